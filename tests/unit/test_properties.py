"""Properties of what takes bytes from outside or writes rules: nothing is lost, nothing is taken for something else."""

from __future__ import annotations

import json
import tracemalloc
from contextlib import suppress
from ipaddress import ip_address

import dns.exception
import dns.message
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imds_detour.config import services
from imds_detour.config.mock_address import BadValueError, MockAddress
from imds_detour.config.presets import PRESETS
from imds_detour.discovery import http
from imds_detour.discovery.dns import nameservers
from imds_detour.discovery.http import GarbageError, Reply
from imds_detour.discovery.probe import _proven, _token
from imds_detour.endpoint import Endpoint
from imds_detour.errors import NotYetError
from imds_detour.firewall import render, rules
from imds_detour.firewall.nftables import codec
from imds_detour.firewall.nftables.backend import TABLES
from imds_detour.firewall.rules import LEGACY, NFT, Redirect, Rule
from imds_detour.system.netlink import attribute

ADDRESSES = st.ip_addresses()
REDIRECTS = st.lists(
    st.sampled_from([4, 6]).flatmap(
        lambda version: st.builds(
            Redirect,
            *(st.builds(Endpoint, st.ip_addresses(v=version), st.integers(1, 65535)) for _ in range(2)),  # type: ignore[arg-type]  # a literal's values
        )
    ),
    max_size=6,
)
MEGABYTE = 1 << 20


@given(REDIRECTS, st.booleans())
def test_what_is_written_for_nftables_is_read_back_as_it_was(wanted: list[Redirect], reject: bool) -> None:
    """encode() then decode() is identity, for each rule that there can be; IPv4 and IPv6 alike."""
    addresses = dict.fromkeys(redirect.endpoint.address for redirect in wanted)
    for rule in (*rules.redirect_rules(wanted, NFT), *rules.guard_rules(addresses, NFT, reject=reject)):
        message = attribute(codec.RULE_CHAIN, rule.chain.encode() + b"\0") + codec.encode(rule)
        assert codec.decode(message, TABLES).rule == rule


@given(st.binary(max_size=400))
def test_any_bytes_of_a_rule_are_one_of_ours_or_none(data: bytes) -> None:
    """Whatever the kernel lists in a chain of ours, reading it does not fail."""
    chain = attribute(codec.RULE_CHAIN, NFT.redirect.encode() + b"\0")
    found = codec.decode(chain + attribute(codec.RULE_EXPRESSIONS, data), TABLES)
    assert found.rule is None or codec.encode(found.rule)


@given(REDIRECTS)
def test_both_backends_and_both_versions_say_the_same(wanted: list[Redirect]) -> None:
    """Each redirect is one translation in either layout, and each metadata address is closed in either."""

    def meaning(planned: tuple[Rule, ...]) -> list[tuple[object, ...]]:
        told = [(rule.version, rule.destination, rule.protocol, rule.port, rule.action) for rule in planned]
        return [one for one in told if not isinstance(one[-1], rules.Jump)]

    assert meaning(rules.redirect_rules(wanted, LEGACY)) == meaning(rules.redirect_rules(wanted, NFT))
    addresses = dict.fromkeys(redirect.endpoint.address for redirect in wanted)
    jumps = {rule.destination for rule in rules.guard_rules(addresses, LEGACY) if isinstance(rule.action, rules.Jump)}
    assert jumps == {rule.destination for rule in rules.guard_rules(addresses, NFT)} == set(addresses)


@given(REDIRECTS, REDIRECTS)
def test_applied_and_removed_is_as_before_on_a_model(theirs: list[Redirect], ours: list[Redirect]) -> None:
    """A model of a kernel: others' rules in OUTPUT, ours in front of them and in our chain; what is ours goes whole."""
    others = [Rule("nat", "OUTPUT", rules.Dnat(other.mock), other.endpoint.address) for other in theirs]
    planned = rules.redirect_rules(ours, LEGACY)
    output = [rule for rule in planned if rule.chain == "OUTPUT"] + others
    chain = [rule for rule in planned if rule.chain == LEGACY.redirect]
    assert [rule for rule in output if rule.action != rules.Jump(LEGACY.redirect)] == others
    assert len(chain) == len(ours)
    for version in (4, 6):
        text = render.iptables_text(planned, version)
        assert text.count("-A IMDS_DETOUR ") == sum(one.endpoint.address.version == version for one in ours)
        assert "-A OUTPUT" not in text  # a jump is inserted, never appended


ENTRIES = st.one_of(
    st.text(max_size=60),
    st.lists(
        st.sampled_from([*PRESETS, "192.0.2.7:80", "[::1]:80", "=", "=mock", "=mock:80", "=[", ",", " ", "aws="]),
        max_size=8,
    ).map("".join),
)


@given(ENTRIES)
def test_any_list_of_endpoints_is_taken_or_refused(text: str) -> None:
    """MOCK_ENDPOINTS: services, each once and each endpoint with one mock, or BadValueError."""
    try:
        found = services.parse_services(text, lambda: MockAddress("mock", 80))
    except BadValueError:
        return
    assert found
    assert len(set(found)) == len(found)
    mocks = {(endpoint, service.mock) for service in found for endpoint in service.preset.endpoints}
    assert len(mocks) == len({endpoint for endpoint, _ in mocks})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just('"\\ud800"'),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "compute", "vmId"]), inner),
    max_leaves=8,
)


@given(
    st.sampled_from(list(PRESETS.values())),
    st.integers(200, 599),
    st.binary(max_size=200)
    | JSON.map(lambda value: json.dumps(value).encode())
    | st.sampled_from([b'{"id": "\\ud800"}', b'{"AccessKeyId": "a", "RoleArn": "\\udfff"}', b"[" * 60_000]),
)
def test_any_answer_proves_something_or_nothing(preset: object, status: int, body: bytes) -> None:
    """No body of a reply, for no preset, ends in anything but bytes to compare or NotYetError."""
    assert hasattr(preset, "proof")
    with suppress(NotYetError):
        assert isinstance(_proven(preset.proof, Reply(status, {}, body)), bytes)
    if preset.proof.token:
        assert "\n" not in _token(preset.proof.token, Reply(status, {}, body))


def _peak(data: bytes) -> int:
    tracemalloc.start()
    try:
        with suppress(GarbageError):
            http.parse(data, ended=True)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


WORST = {
    "headers": b"".join(b"%x:\r\n" % number for number in range(14_000)),
    "blank headers": b":\r\n" * 21_000,
    "chunks": b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\ni\r\n" * 10_000 + b"0\r\n\r\n",
    "one header": b"X: " + b"x" * 65_000,
    "a body": b"\r\n" + b"x" * 65_000,
}


@pytest.mark.parametrize("rest", WORST.values(), ids=WORST.keys())
def test_no_reply_costs_a_megabyte(rest: bytes) -> None:
    """Of the largest reply that is read, in its worst shapes."""
    data = (b"HTTP/1.1 200 OK\r\n" + rest)[: http.MAX_REPLY]
    assert _peak(data + b"\r\n\r\n") < MEGABYTE


@given(st.binary(max_size=512))
def test_any_bytes_are_a_dns_message_or_one_of_dnspythons_errors(data: bytes) -> None:
    """nameservers.py catches DNSException: no datagram raises anything else."""
    with suppress(dns.exception.DNSException):
        dns.message.from_wire(data)


CONFIGURATIONS = st.one_of(
    st.text(max_size=300),
    st.lists(
        st.sampled_from(
            [
                "nameserver 10.0.0.1",
                "nameserver",
                "nameserver fe80::1%eth0",
                "search a b",
                "search " + "a" * 300,
                "domain x",
                "options ndots:15",
                "options ndots:x",
                "options timeout:-1",
                "options :",
                "sortlist",
                "\0",
            ]
        ),
        max_size=10,
    ).map("\n".join),
)


@given(CONFIGURATIONS)
def test_any_resolv_conf_names_servers_or_none(text: str) -> None:
    """A configuration that makes no sense names no servers; it never raises."""
    _, servers = nameservers.read(text.splitlines())
    assert all(ip_address(server.partition("%")[0]) for server in servers)
