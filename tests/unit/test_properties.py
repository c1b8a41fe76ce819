"""Properties of parsers and rule writers: each input gives a valid result or the documented error."""

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
from imds_detour.discovery.probe import _compared, _doubt, _token
from imds_detour.endpoint import Endpoint
from imds_detour.firewall import render, rules
from imds_detour.firewall.nftables import codec
from imds_detour.firewall.rules import COMMENT, LEGACY, NFT, Redirect, Rule
from imds_detour.system.netlink import attribute

ADDRESSES = st.ip_addresses()
REDIRECTS = st.lists(
    st.sampled_from([4, 6]).flatmap(
        lambda version: st.builds(
            Redirect,
            *(st.builds(Endpoint, st.ip_addresses(v=version), st.integers(1, 65535)) for _ in range(2)),  # type: ignore[arg-type]  # a literal's values
        )
    ),
    unique=True,
    max_size=6,
)
MEGABYTE = 1 << 20


@given(REDIRECTS, st.booleans())
def test_nftables_rules_survive_a_round_trip(wanted: list[Redirect], reject: bool) -> None:
    """decode() of encode() is the same rule, for each possible rule of IPv4 and IPv6."""
    addresses = dict.fromkeys(redirect.endpoint.address for redirect in wanted)
    for rule in (*render.redirect_rules(wanted, NFT), *rules.guard_rules(addresses, NFT, reject=reject)):
        message = attribute(codec.RULE_CHAIN, rule.chain.encode() + b"\0") + codec.encode(rule)
        assert codec.decode(message, rule.version) == (rule.chain, rules.Installed(rule, 0))


@given(st.binary(max_size=400))
def test_nftables_decoder_accepts_any_bytes(data: bytes) -> None:
    """Any expression bytes that the kernel lists decode to a rule or to None."""
    parts = (
        attribute(codec.RULE_CHAIN, b"nat_output\0"),
        attribute(codec.RULE_EXPRESSIONS, data),
        attribute(codec.RULE_USERDATA, codec.USERDATA[COMMENT]),
    )
    _, decoded = codec.decode(b"".join(parts), 4)
    assert decoded.rule is None or codec.encode(decoded.rule)


@given(REDIRECTS)
def test_both_layouts_translate_and_guard_the_same(wanted: list[Redirect]) -> None:
    """Both layouts have the same translations and guard the same addresses."""

    def meaning(planned: tuple[Rule, ...]) -> list[tuple[object, ...]]:
        parts = [(rule.version, rule.destination, rule.protocol, rule.port, rule.action) for rule in planned]
        return [part for part in parts if not isinstance(part[-1], rules.Jump)]

    assert meaning(render.redirect_rules(wanted, LEGACY)) == meaning(render.redirect_rules(wanted, NFT))
    addresses = dict.fromkeys(redirect.endpoint.address for redirect in wanted)
    for layout in (LEGACY, NFT):
        assert set(rules.guarded_addresses(rules.guard_rules(addresses, layout))) == set(addresses)


@given(REDIRECTS, REDIRECTS)
def test_removal_keeps_foreign_rules_in_a_model(foreign: list[Redirect], own: list[Redirect]) -> None:
    """In a model kernel, removal leaves OUTPUT's foreign rules; a redirect is there once, however often given."""
    others = [Rule("nat", "OUTPUT", rules.Dnat(other.mock), other.endpoint.address) for other in foreign]
    planned = render.redirect_rules(own, LEGACY)
    output = [rule for rule in planned if rule.chain == "OUTPUT"] + others
    chain = [rule for rule in planned if rule.chain == LEGACY.redirect]
    assert [rule for rule in output if rule.action != rules.Jump(LEGACY.redirect)] == others
    assert len(chain) == len(set(own))
    for version in (4, 6):
        text = render.iptables_text(planned, version)
        assert text.count("-A IMDS_DETOUR ") == sum(each.endpoint.address.version == version for each in set(own))
        assert "-A OUTPUT" not in text  # a jump is inserted, never appended


ENTRIES = st.one_of(
    st.text(max_size=60),
    st.lists(
        st.sampled_from([*PRESETS, "192.0.2.7:80", "[::1]:80", "=", "=mock", "=mock:80", "=[", ",", " ", "aws="]),
        max_size=8,
    ).map("".join),
)


@given(ENTRIES)
def test_mock_endpoints_accepts_or_refuses_any_text(text: str) -> None:
    """Any text of MOCK_ENDPOINTS gives distinct services with one mock for each endpoint, or BadValueError."""
    try:
        parsed = services.parse_services(text, lambda: MockAddress("mock", 80))
    except BadValueError:
        return
    assert parsed
    assert len(set(parsed)) == len(parsed)
    mocks = {(endpoint, service.mock) for service in parsed for endpoint in service.preset.endpoints}
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
def test_proof_accepts_any_reply(preset: object, status: int, body: bytes) -> None:
    """For each preset, any reply gives bytes to compare and perhaps a doubt, never an error or a second line."""
    assert hasattr(preset, "proof")
    assert isinstance(_compared(preset.proof, body), bytes)
    assert "\n" not in _doubt(preset.proof, preset.proof.path, Reply(status, {}, body))
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
def test_large_reply_needs_less_than_a_megabyte(rest: bytes) -> None:
    """Parsing a reply with the largest head, or with many chunks, needs less than a megabyte of memory."""
    assert _peak((b"HTTP/1.1 200 OK\r\n" + rest)[: http.MAX_HEAD] + b"\r\n\r\n") < MEGABYTE


@given(st.binary(max_size=512))
def test_any_dns_datagram_raises_only_dns_exceptions(data: bytes) -> None:
    """Any datagram gives a message or DNSException, which nameservers.py catches."""
    with suppress(dns.exception.DNSException):
        dns.message.from_wire(data)


CONFIGURATIONS = st.one_of(
    st.text(max_size=300),
    st.lists(
        st.sampled_from(
            [
                *("nameserver 10.0.0.1", "nameserver", "nameserver fe80::1%eth0", "search a b", "search " + "a" * 300),
                *("domain x", "options ndots:15", "options ndots:x", "options timeout:-1", "options :"),
                *("sortlist", "\0"),
            ]
        ),
        max_size=10,
    ).map("\n".join),
)


@given(CONFIGURATIONS)
def test_resolv_conf_reader_accepts_any_text(text: str) -> None:
    """Any resolv.conf gives a list of server addresses, empty if the file is invalid."""
    _, servers = nameservers.read(text.splitlines())
    assert all(ip_address(server.partition("%")[0]) for server in servers)
