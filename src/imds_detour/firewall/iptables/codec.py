"""Encode rules as entries of python-iptables, and decode them."""

from __future__ import annotations

import ctypes
from ipaddress import ip_address, ip_interface

from imds_detour.endpoint import Address, Endpoint
from imds_detour.firewall.rules import COMMENT, LEGACY, SIDECAR_COMMENT, Action, Dnat, Drop, Jump, Reject, Rule

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

    from imds_detour.firewall.iptables.loader import Library

    Iptc: TypeAlias = Any  # an object of python-iptables, which has no types

TARGET_HEADER = 32
"""sizeof(struct xt_entry_target) (linux/netfilter/x_tables.h); a jump's verdict follows it."""
ANY_ADDRESS = {4: "0.0.0.0/0.0.0.0", 6: "::/0"}


def encode(library: Library, rule: Rule) -> Iptc:
    """Return a rule as an entry of python-iptables; a missing extension is an error of the library."""
    entry = library.rule()
    if rule.destination is not None:
        entry.dst = str(rule.destination)
    if rule.protocol is not None:
        entry.protocol = rule.protocol  # first, because DNAT accepts a port only for a protocol with ports
    if rule.port is not None:
        entry.create_match("tcp").dport = str(rule.port)  # an int would make a rule without a port
    entry.create_match("comment").comment = rule.comment
    match rule.action:
        case Jump(chain):
            entry.create_target(chain)
        case Dnat(to):
            entry.create_target("DNAT").to_destination = str(to)
        case Reject(reply):
            entry.create_target("REJECT").reject_with = reply
        case Drop():
            entry.create_target("DROP")
    return entry


def entry_bytes(entry: Iptc) -> Iptc:
    """Return an entry as an array of bytes, as the kernel has it."""
    entry.final_check()
    return entry.rule


def set_destination(entry: Iptc, address: Address) -> None:
    """Change the destination in the bytes of an entry that has one of this IP version."""
    size = len(address.packed)
    entry[size : 2 * size] = address.packed  # struct ipt_ip, struct ip6t_ip6: source, destination, and their masks


def masked_bytes(entry: Iptc, version: int, *, jumps: bool) -> tuple[Address | None, bytes]:
    """Return an entry's destination, and its bytes without that, its counters, and the hooks that lead to it.

    For an entry that does not ``jump``, the destination is None and in the bytes. A jump's verdict is the position of a
    chain in the table, which changes with every rule.
    """
    whole = bytearray(ctypes.string_at(ctypes.addressof(entry), entry.next_offset))
    destination: Address | None = None
    size = 4 if version == 4 else 16  # struct ipt_ip, struct ip6t_ip6: source, destination, and their masks
    if jumps and whole[3 * size : 4 * size] == b"\xff" * size:
        destination = ip_address(bytes(whole[size : 2 * size]))
        whole[size : 2 * size] = bytes(size)
    if jumps:
        whole[entry.target_offset + TARGET_HEADER : entry.next_offset] = b""
    for field in (type(entry).counters, type(entry).comefrom):  # the last one first: the others must not move
        whole[field.offset : field.offset + field.size] = b""
    return destination, bytes(whole)


def decode(entry: Iptc, table: str, chain: str, version: int) -> Rule | None:
    """Return the rule that an entry was made from; None if imds-detour makes no such entry."""
    matches = {match.name: match.get_all_parameters() for match in entry.matches}
    parameters = entry.target.get_all_parameters()
    match entry.target.name:
        case "DNAT" if set(parameters) == {"to-destination"}:
            host, _, number = parameters["to-destination"][0].rpartition(":")
            action: Action = Dnat(Endpoint(ip_address(host.strip("[]")), int(number)))
        case "REJECT" if set(parameters) == {"reject-with"}:
            action = Reject(parameters["reject-with"][0])
        case "DROP":
            action = Drop()
        case name if name in (LEGACY.redirect, LEGACY.guard):
            action = Jump(name)
        case _:
            return None
    port = matches.pop("tcp", {})
    rule = Rule(
        table,
        chain,
        action,
        destination=None if entry.dst == ANY_ADDRESS[version] else ip_interface(entry.dst).ip,
        protocol=None if entry.protocol == "ip" else entry.protocol,
        port=int(port.pop("dport")[0]) if "dport" in port else None,
        version=version,
    )
    fragment = version == 4 and entry.fragment  # Rule6 has no such field
    interfaces = entry.in_interface or entry.out_interface
    plain = entry.src == ANY_ADDRESS[version] and not (interfaces or port or fragment or entry.target.goto)
    exact = rule.destination is None or ip_interface(entry.dst).network.num_addresses == 1
    known = [{"comment": {"comment": [comment]}} for comment in (COMMENT, SIDECAR_COMMENT)]
    return rule.replace(comment=matches["comment"]["comment"][0]) if plain and exact and matches in known else None
