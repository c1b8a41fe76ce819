"""Encode rules as netlink expressions of nf_tables, and decode them."""

from __future__ import annotations

import struct
from functools import lru_cache
from ipaddress import ip_address

from imds_detour.endpoint import Endpoint
from imds_detour.firewall import rules
from imds_detour.firewall.rules import NFT, Action, Installed, Rule
from imds_detour.system.netlink import NFPROTO, attribute, attributes, iterate_attributes, nested, string, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, TypeAlias

    Parts: TypeAlias = dict[int, Any]  # attributes to encode, by kind: numbers, bytes, and Parts
    Expression: TypeAlias = tuple[str, Mapping[int, bytes]]  # name, and attributes by kind

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
    for comment in (rules.COMMENT, rules.SIDECAR_COMMENT)
}
"""Comments in the format of nft, which lists them (libnftnl: NFTNL_UDATA_RULE_COMMENT)."""
COMMENTS = {data: comment for comment, data in USERDATA.items()}
ADDED = {"counter": {1, 2}, "nat": {4, 6, 7}, "reject": {REJECT_ICMP_CODE}}
"""The attributes that the kernel adds to an expression: counters, ends of ranges, unused codes."""
TABLES = NFT.tables
MAX_DECODED = 1000
"""Rules and parts of them to keep, decoded or encoded. A sidecar runs for months, and its rules' counters change."""


@lru_cache(MAX_DECODED)  # a rule is encoded when it is written, and each time that it is decoded
def encode(rule: Rule) -> bytes:
    """Return the expressions and the comment of a rule as attributes of a rule message."""
    parts = []
    if rule.destination is not None:
        offset, length = DESTINATION[rule.destination.version]
        parts += [_payload(NETWORK_HEADER, offset, length), _equals(rule.destination.packed)]
    if rule.protocol is not None:
        parts += [_expression("meta", {META_DREG: REG_1, META_KEY: META_L4PROTO}), _equals(bytes([TCP]))]
    if rule.port is not None:
        parts += [_payload(TRANSPORT_HEADER, 2, 2), _equals(struct.pack("!H", rule.port))]
    parts += [_expression("counter", {}), *_verdict(rule.action)]
    return nested(RULE_EXPRESSIONS, *parts) + attribute(RULE_USERDATA, USERDATA[rule.comment])


@lru_cache(MAX_DECODED)
def _verdict(action: Action) -> tuple[bytes, ...]:
    match action:
        case rules.Dnat(to):
            nat = {NAT_TYPE: NAT_DNAT, NAT_FAMILY: NFPROTO[to.address.version]}
            nat |= {NAT_REG_ADDR_MIN: REG_1, NAT_REG_PROTO_MIN: REG_2}
            port = struct.pack("!H", to.port)
            return _immediate(REG_1, to.address.packed), _immediate(REG_2, port), _expression("nat", nat)
        case rules.Reject(reply):
            kind, code = REJECTS[reply]
            return (_expression("reject", {REJECT_TYPE: kind, REJECT_ICMP_CODE: bytes([code])}),)
        case rules.Masquerade():
            return (_expression("masq", {}),)
        case rules.Jump(chain):
            verdict: Parts = {VERDICT_CODE: NFT_JUMP, VERDICT_CHAIN: string(chain)}
        case rules.Drop():
            verdict = {VERDICT_CODE: NF_DROP}
    # As bytes: the kernel lists a verdict without NLA_F_NESTED.
    data = {IMMEDIATE_DREG: REG_VERDICT, IMMEDIATE_DATA: {DATA_VERDICT: _packed(verdict)}}
    return (_expression("immediate", data),)


@lru_cache(MAX_DECODED)
def _payload(base: int, offset: int, length: int) -> bytes:
    parts = {PAYLOAD_DREG: REG_1, PAYLOAD_BASE: base, PAYLOAD_OFFSET: offset, PAYLOAD_LEN: length}
    return _expression("payload", parts)


def _equals(value: bytes) -> bytes:
    return _expression("cmp", {CMP_SREG: REG_1, CMP_OP: CMP_EQ, CMP_DATA: {DATA_VALUE: value}})


def _immediate(register: int, value: bytes) -> bytes:
    return _expression("immediate", {IMMEDIATE_DREG: register, IMMEDIATE_DATA: {DATA_VALUE: value}})


def _expression(name: str, data: Parts) -> bytes:
    return nested(LIST_ELEM, _packed({EXPR_NAME: string(name), EXPR_DATA: data}))


def _packed(parts: Parts) -> bytes:
    packed = b""
    for kind, value in parts.items():
        if isinstance(value, dict):
            packed += nested(kind, _packed(value))
        else:
            packed += attribute(kind, struct.pack("!I", value) if isinstance(value, int) else value)
    return packed


@lru_cache(MAX_DECODED)  # a rule is read many times, mostly with the same bytes
def decode(data: bytes, version: int) -> tuple[str, Installed]:
    """Return the chain and the rule in the attributes of a rule message. Installed.rule is None for a foreign rule."""
    parts = attributes(data)
    chain = text(parts.get(RULE_CHAIN, b""))
    packets = 0
    try:
        expressions, plain = _expressions(parts)
        packets = int.from_bytes(dict(expressions).get("counter", {}).get(COUNTER_PACKETS, b""))
        rule = _decode_rule(chain, version, COMMENTS[parts.get(RULE_USERDATA, b"")], expressions)
    except (KeyError, ValueError, IndexError, struct.error):
        return chain, Installed(None, packets)
    # A foreign rule may have parts that were ignored. A rule of imds-detour is the same when it is encoded again.
    _, again = _expressions(attributes(encode(rule)))
    return chain, Installed(rule if again == plain else None, packets)


def _expressions(parts: Mapping[int, bytes]) -> tuple[list[Expression], list[Expression]]:
    """Return the expressions of a rule, and the same without the attributes that the kernel adds."""
    pairs = [_expression_in(element) for _, element in iterate_attributes(parts.get(RULE_EXPRESSIONS, b""))]
    return [whole for whole, _ in pairs], [plain for _, plain in pairs]


@lru_cache(MAX_DECODED)  # most rules differ in their address only
def _expression_in(element: bytes) -> tuple[Expression, Expression]:
    parts = attributes(element)
    name, data = text(parts[EXPR_NAME]), attributes(parts.get(EXPR_DATA, b""))
    added = ADDED.get(name, ())
    return (name, data), (name, {kind: value for kind, value in data.items() if kind not in added})


def _decode_rule(chain: str, version: int, comment: str, expressions: list[Expression]) -> Rule:
    """Return the rule that these expressions seem to make; whether they do is seen when it is encoded again."""
    compared: dict[int, bytes] = {}  # an address, a port and a protocol differ in length
    registers: dict[int, Mapping[int, bytes]] = {}
    by_name = dict(expressions)
    for name, data in expressions:
        if name == "cmp":
            value = attributes(data[CMP_DATA])[DATA_VALUE]
            compared[len(value)] = value
        elif name == "immediate":
            registers[int.from_bytes(data[IMMEDIATE_DREG])] = attributes(data[IMMEDIATE_DATA])
    if "nat" in by_name:
        (port,) = struct.unpack("!H", registers[REG_2][DATA_VALUE])
        action: Action = rules.Dnat(Endpoint(ip_address(registers[REG_1][DATA_VALUE]), port))
    elif "masq" in by_name:
        action = rules.Masquerade()
    elif reject := by_name.get("reject"):
        reply = int.from_bytes(reject[REJECT_TYPE]), reject.get(REJECT_ICMP_CODE, b"\0")[0]
        action = rules.Reject({value: name for name, value in REJECTS.items()}[reply])
    else:
        target = text(attributes(registers[REG_VERDICT][DATA_VERDICT]).get(VERDICT_CHAIN, b""))
        action = rules.Jump(target) if target else rules.Drop()
    address = compared.get(DESTINATION[version][1])
    return Rule(
        TABLES[chain],
        chain,
        action,
        destination=None if address is None else ip_address(address),
        protocol="tcp" if 1 in compared else None,
        port=int.from_bytes(compared[2]) if 2 in compared else None,
        version=version,
        comment=comment,
    )
