"""Encode rules as entries of python-iptables, and decode them."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface

from imds_detour.endpoint import Endpoint
from imds_detour.firewall.rules import COMMENT, LEGACY, SIDECAR_COMMENT, Dnat, Drop, Jump, Reject, Rule

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

    from imds_detour.firewall.iptables.loader import Library
    from imds_detour.firewall.rules import Action

    Iptc: TypeAlias = Any  # an object of python-iptables, which has no types

ANY_ADDRESS = {4: "0.0.0.0/0.0.0.0", 6: "::/0"}
"""Any address, as python-iptables writes it."""


def encode(library: Library, rule: Rule) -> Iptc:
    """Return a rule as python-iptables' entry; a missing extension is the library's own error."""
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


def decode(entry: Iptc, table: str, chain: str, version: int) -> Rule | None:
    """Return the rule that an entry was made from; None if imds-detour makes no such entry."""
    matches = {match.name: match.get_all_parameters() for match in entry.matches}
    parameters = entry.target.get_all_parameters()
    match entry.target.name:
        case "DNAT" if set(parameters) == {"to-destination"}:
            action: Action = Dnat(_endpoint(parameters["to-destination"][0]))
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


def _endpoint(text: str) -> Endpoint:
    host, _, port = text.rpartition(":")
    return Endpoint(ip_address(host.strip("[]")), int(port))
