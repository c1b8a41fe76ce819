"""Rules as values, in the syntax of iptables-save."""

from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from imds_detour.endpoint import Endpoint
from imds_detour.firewall.render import redirect_rules
from imds_detour.firewall.rules import COMMENT, LEGACY, NFT, Redirect, dnat_rule, guard_rules, nat_rules

METADATA = Endpoint(ip_address("169.254.169.254"), 80)
ECS = Endpoint(ip_address("169.254.170.2"), 80)
MOCK = Endpoint(ip_address("10.88.0.3"), 1338)
ENDPOINTS = st.builds(Endpoint, st.ip_addresses(v=4), st.integers(1, 65535))


def test_redirect_is_a_jump_and_a_translation_and_the_guard_rejects_by_protocol() -> None:
    """The jump matches address, the translation address and port; the guard resets TCP, rejects the rest by ICMP."""
    assert [rule.spec for rule in redirect_rules([Redirect(METADATA, MOCK)], LEGACY)] == [
        "-A OUTPUT -d 169.254.169.254/32 -m comment --comment imds-detour -j IMDS_DETOUR",
        (
            "-A IMDS_DETOUR -d 169.254.169.254/32 -p tcp -m tcp --dport 80 -m comment --comment imds-detour"
            " -j DNAT --to-destination 10.88.0.3:1338"
        ),
    ]
    assert [rule.spec for rule in guard_rules([METADATA.address, ECS.address], LEGACY)] == [
        "-A OUTPUT -d 169.254.169.254/32 -m comment --comment imds-detour -j IMDS_DETOUR_GUARD",
        "-A OUTPUT -d 169.254.170.2/32 -m comment --comment imds-detour -j IMDS_DETOUR_GUARD",
        "-A FORWARD -d 169.254.169.254/32 -m comment --comment imds-detour -j IMDS_DETOUR_GUARD",
        "-A FORWARD -d 169.254.170.2/32 -m comment --comment imds-detour -j IMDS_DETOUR_GUARD",
        "-A IMDS_DETOUR_GUARD -p tcp -m comment --comment imds-detour -j REJECT --reject-with tcp-reset",
        "-A IMDS_DETOUR_GUARD -m comment --comment imds-detour -j REJECT --reject-with icmp-port-unreachable",
    ]


def test_ipv6_mock_is_in_brackets() -> None:
    """An IPv6 target is in brackets, which separate the address from the port."""
    redirect = Redirect(Endpoint(ip_address("fd00:ec2::254"), 80), Endpoint(ip_address("fd00::5"), 1338))
    spec = dnat_rule(redirect, LEGACY).spec
    assert "-d fd00:ec2::254/128 " in spec
    assert spec.endswith("--to-destination [fd00::5]:1338")


@given(st.lists(st.builds(Redirect, ENDPOINTS, ENDPOINTS), max_size=5, unique=True))
def test_redirects_have_one_jump_per_address(wanted: list[Redirect]) -> None:
    """A jump for each address comes first, then a translation each; all have the comment; names fit iptables' 28."""
    rules = redirect_rules(wanted, LEGACY)
    jumps = [rule for rule in rules if rule.chain == "OUTPUT"]
    assert [rule.destination for rule in jumps] == list(dict.fromkeys(redirect.endpoint.address for redirect in wanted))
    assert rules[: len(jumps)] == tuple(jumps)
    assert rules[len(jumps) :] == tuple(dnat_rule(redirect, LEGACY) for redirect in wanted)
    assert {rule.chain for rule in rules} <= {"OUTPUT", LEGACY.redirect}
    assert all(f"--comment {COMMENT}" in rule.spec for rule in rules)
    assert max(len(LEGACY.redirect), len(LEGACY.guard)) <= 28  # XT_FUNCTION_MAXNAMELEN, less the terminating zero


def test_nftables_hooks_match_the_destination() -> None:
    """Rules of nftables' base chains match metadata, the others refuse; only bridges need nat's other hooks."""
    own = {NFT.hooks[at] for at in (("filter", "output"), ("filter", "forward"), ("nat", "output"))}
    for forwarded, more, to_mock in ((False, set(), set()), (True, {"nat_prerouting"}, {"nat_postrouting"})):
        redirects = nat_rules({Redirect(METADATA, MOCK): COMMENT}, NFT, forwarded=forwarded)
        rules = (*redirects, *guard_rules([METADATA.address], NFT))
        assert {rule.chain for rule in rules if rule.destination == METADATA.address} == own | more
        assert {rule.chain for rule in rules if rule.destination == MOCK.address} == to_mock
        assert {rule.chain for rule in rules if rule.destination is None} == {NFT.guard}
    assert own | {"nat_prerouting", "nat_postrouting"} == set(NFT.hooks.values())
