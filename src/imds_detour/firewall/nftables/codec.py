"""Encode rules as netlink expressions of nf_tables, and decode them."""

from __future__ import annotations

import struct
from ipaddress import ip_address

from imds_detour.endpoint import Endpoint
from imds_detour.firewall.rules import (
    COMMENT,
    NFT,
    SIDECAR_COMMENT,
    Dnat,
    Drop,
    Installed,
    Jump,
    Masquerade,
    Reject,
    Rule,
)
from imds_detour.system.netlink import NFPROTO, attribute, attributes, iterate_attributes, nested

TYPE_CHECKING = False
if TYPE_CHECKING:
    from imds_detour.endpoint import Address
    from imds_detour.firewall.rules import Action

# linux/netfilter/nf_tables.h; the names there begin with NFTA_ or NFT_
RULE_CHAIN, RULE_EXPRESSIONS, RULE_USERDATA = 2, 4, 7
LIST_ELEM, EXPR_NAME, EXPR_DATA = 1, 1, 2
PAYLOAD_DREG, PAYLOAD_BASE, PAYLOAD_OFFSET, PAYLOAD_LEN = 1, 2, 3, 4
CMP_SREG, CMP_OP, CMP_DATA, CMP_EQ = 1, 2, 3, 0
META_DREG, META_KEY, META_L4PROTO = 1, 2, 16
IMMEDIATE_DREG, IMMEDIATE_DATA = 1, 2
NAT_TYPE, NAT_FAMILY, NAT_REG_ADDR_MIN, NAT_REG_PROTO_MIN, NAT_DNAT = 1, 2, 3, 5, 1
REJECT_TYPE, REJECT_ICMP_CODE = 1, 2
COUNTER_PACKETS = 2
DATA_VALUE, DATA_VERDICT, VERDICT_CODE, VERDICT_CHAIN, NF_DROP, NFT_JUMP = 1, 2, 1, 2, 0, 0xFFFFFFFD
REG_VERDICT, REG_1, REG_2 = 0, 1, 2
NETWORK_HEADER, TRANSPORT_HEADER = 1, 2

DESTINATION = {4: (16, 4), 6: (24, 16)}
"""Offset and length of the destination address in an IP header, in bytes (RFC 791, RFC 8200)."""
TCP = 6
"""The protocol number (IANA)."""
REJECTS = {
    "tcp-reset": (1, 0),  # NFT_REJECT_TCP_RST
    "icmp-port-unreachable": (0, 3),  # NFT_REJECT_ICMP_UNREACH, RFC 792
    "icmp6-port-unreachable": (0, 4),  # the same, RFC 4443
}
USERDATA = {
    comment: struct.pack("=BB", 0, len(comment) + 1) + comment.encode() + b"\0"
    for comment in (COMMENT, SIDECAR_COMMENT)
}
"""Comments in the format of nft, which lists them (libnftnl: NFTNL_UDATA_RULE_COMMENT)."""
COMMENTS = {data: comment for comment, data in USERDATA.items()}
MAX_DECODED = 1000
"""Decoded rules to keep. A sidecar runs for months, and its rules' counters change."""

_decoded: dict[tuple[int, bytes, bytes, bytes], Installed] = {}


def encode(rule: Rule) -> bytes:
    """Return the expressions and the comment of a rule as attributes of a rule message."""
    parts = list(_matches(rule))
    parts.append(_expression("counter"))
    parts += _verdict(rule.action)
    return nested(RULE_EXPRESSIONS, *parts) + attribute(RULE_USERDATA, USERDATA[rule.comment])


def _matches(rule: Rule) -> list[bytes]:
    parts = []
    if rule.destination is not None:
        offset, length = DESTINATION[rule.destination.version]
        parts += [_payload(NETWORK_HEADER, offset, length), _equals(rule.destination.packed)]
    if rule.protocol is not None:
        parts += [
            _expression("meta", _number(META_DREG, REG_1), _number(META_KEY, META_L4PROTO)),
            _equals(bytes([TCP])),
        ]
    if rule.port is not None:
        parts += [_payload(TRANSPORT_HEADER, 2, 2), _equals(struct.pack("!H", rule.port))]
    return parts


def _verdict(action: Action) -> list[bytes]:
    if isinstance(action, Dnat):
        return [
            _immediate(REG_1, action.to.address.packed),
            _immediate(REG_2, struct.pack("!H", action.to.port)),
            _expression(
                "nat",
                _number(NAT_TYPE, NAT_DNAT),
                _number(NAT_FAMILY, NFPROTO[action.to.address.version]),
                _number(NAT_REG_ADDR_MIN, REG_1),
                _number(NAT_REG_PROTO_MIN, REG_2),
            ),
        ]
    if isinstance(action, Reject):
        kind, code = REJECTS[action.reply]
        return [_expression("reject", _number(REJECT_TYPE, kind), attribute(REJECT_ICMP_CODE, bytes([code])))]
    if isinstance(action, Masquerade):
        return [_expression("masq")]
    verdict = _number(VERDICT_CODE, NF_DROP)
    if isinstance(action, Jump):
        verdict = _number(VERDICT_CODE, NFT_JUMP) + attribute(VERDICT_CHAIN, action.chain.encode() + b"\0")
    # Not nested(): the kernel lists it without NLA_F_NESTED.
    data = nested(IMMEDIATE_DATA, attribute(DATA_VERDICT, verdict))
    return [_expression("immediate", _number(IMMEDIATE_DREG, REG_VERDICT), data)]


def _expression(name: str, *data: bytes) -> bytes:
    return nested(LIST_ELEM, attribute(EXPR_NAME, name.encode() + b"\0"), nested(EXPR_DATA, *data))


def _number(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("!I", value))


def _payload(base: int, offset: int, length: int) -> bytes:
    numbers = ((PAYLOAD_DREG, REG_1), (PAYLOAD_BASE, base), (PAYLOAD_OFFSET, offset), (PAYLOAD_LEN, length))
    return _expression("payload", *(_number(kind, value) for kind, value in numbers))


def _equals(value: bytes) -> bytes:
    data = nested(CMP_DATA, attribute(DATA_VALUE, value))
    return _expression("cmp", _number(CMP_SREG, REG_1), _number(CMP_OP, CMP_EQ), data)


def _immediate(register: int, value: bytes) -> bytes:
    data = nested(IMMEDIATE_DATA, attribute(DATA_VALUE, value))
    return _expression("immediate", _number(IMMEDIATE_DREG, register), data)


def chain_of(parts: dict[int, bytes]) -> str:
    """Return the name of a rule's chain."""
    return parts.get(RULE_CHAIN, b"").rstrip(b"\0").decode("ascii", "replace")


def decode(parts: dict[int, bytes], version: int) -> Installed:
    """Return the rule in the attributes of a rule message. Installed.rule is None for a foreign rule.

    A rule is read many times, mostly with the same bytes, so the results are cached.
    """
    key = version, parts.get(RULE_CHAIN, b""), parts.get(RULE_USERDATA, b""), parts.get(RULE_EXPRESSIONS, b"")
    if key not in _decoded:
        if len(_decoded) > MAX_DECODED:
            _decoded.clear()
        _decoded[key] = _decode(parts, version)
    return _decoded[key]


def _decode(parts: dict[int, bytes], version: int) -> Installed:
    packets = 0
    try:
        expressions = [_parse(value) for _, value in iterate_attributes(parts.get(RULE_EXPRESSIONS, b""))]
        packets = next((_packets(data) for name, data in expressions if name == "counter"), 0)
        comment = COMMENTS[parts.get(RULE_USERDATA, b"")]
        rule = _decode_rule(chain_of(parts), version, comment, [item for item in expressions if item[0] != "counter"])
    except (KeyError, ValueError, IndexError, struct.error):
        return Installed(None, packets)
    # A foreign rule may have parts that were ignored. A rule of imds-detour is the same when it is encoded again.
    same = _plain(attributes(encode(rule))) == _plain(parts)
    return Installed(rule if same else None, packets)


def _parse(element: bytes) -> tuple[str, dict[int, bytes]]:
    parts = attributes(element)
    return parts[EXPR_NAME].rstrip(b"\0").decode("ascii", "replace"), attributes(parts.get(EXPR_DATA, b""))


def _packets(data: dict[int, bytes]) -> int:
    return int.from_bytes(data.get(COUNTER_PACKETS, b""), "big")


def _decode_rule(chain: str, version: int, comment: str, expressions: list[tuple[str, dict[int, bytes]]]) -> Rule:
    destination: Address | None = None
    protocol, port = None, None
    registers: dict[int, dict[int, bytes]] = {}
    loaded: tuple[str, int] = ("", 0)
    action: Action | None = None
    for name, data in expressions:
        if name in ("payload", "meta"):
            loaded = (name, int.from_bytes(data.get(PAYLOAD_BASE, b""), "big"))
        elif name == "cmp":
            value = attributes(data[CMP_DATA])[DATA_VALUE]
            if loaded == ("payload", NETWORK_HEADER):
                destination = ip_address(value)
            elif loaded == ("payload", TRANSPORT_HEADER):
                (port,) = struct.unpack("!H", value)
            else:
                protocol = {bytes([TCP]): "tcp"}[value]
        elif name == "immediate":
            registers[int.from_bytes(data[IMMEDIATE_DREG], "big")] = attributes(data[IMMEDIATE_DATA])
        else:
            action = _action(name, data, registers)
    if REG_VERDICT in registers:
        verdict = attributes(registers[REG_VERDICT][DATA_VERDICT])
        target = verdict.get(VERDICT_CHAIN, b"").rstrip(b"\0").decode("ascii", "replace")
        action = Jump(target) if target else Drop()  # another verdict shows when the rule is encoded again
    if action is None:
        raise ValueError("no verdict")
    return Rule(NFT.tables[chain], chain, action, destination, protocol, port, version, comment)


def _action(name: str, data: dict[int, bytes], registers: dict[int, dict[int, bytes]]) -> Action:
    if name == "nat":
        (port,) = struct.unpack("!H", registers[REG_2][DATA_VALUE])
        return Dnat(Endpoint(ip_address(registers[REG_1][DATA_VALUE]), port))
    if name == "masq":
        return Masquerade()
    if name == "reject":
        kind, code = int.from_bytes(data[REJECT_TYPE], "big"), data.get(REJECT_ICMP_CODE, b"\0")[0]
        return Reject({value: reply for reply, value in REJECTS.items()}[kind, code])
    raise ValueError(name)


def _plain(rule: dict[int, bytes]) -> list[tuple[str, dict[int, bytes]]]:
    """Return the expressions without the parts that the kernel adds: counters, ends of ranges, unused codes."""
    expressions = [_parse(value) for _, value in iterate_attributes(rule[RULE_EXPRESSIONS])]
    added = {"counter": {1, 2}, "nat": {4, 6, 7}, "reject": {REJECT_ICMP_CODE}}
    plain = []
    for name, data in expressions:
        kept = {kind: value for kind, value in data.items() if kind not in added.get(name, set())}
        plain.append((name, kept))
    return plain
