"""imds-detourctl status: what of ours stands in this network namespace, and how much it has been used.

``--json`` prints one object. Its keys stay; later versions may add some:

- ``schema``: 1; it changes if a key ever changes its meaning.
- ``redirects``: a list of ``{"endpoint": "169.254.169.254:80", "mock": "10.88.0.3:1338", "backend": "nftables",
  "connections": 3}``, one for each that stands. ``backend`` is ``legacy iptables`` or ``nftables``.
- ``guard``: a list of ``{"address": "169.254.169.254", "backend": "nftables", "how": "reject", "refused": 0}``; ``how``
  is ``reject`` or ``drop``, ``refused`` the number of packets.
- ``routes``: a list of ``{"to": "169.254.169.254", "source": "10.88.0.2"}``, our routes over the loopback device.
- ``probe``: what the sidecar saw last, ``{"verified": true, "text": "IMDSv2 i-1234567890abcdef0", "age": 2.1}``, the
  age in seconds, or null without a sidecar.
- ``faults``: a list of texts, rules that are missing or that somebody else wrote into our chains; empty if all is well.
- ``rules``: a list of ``{"backend": ..., "rule": ..., "table": "nat", "ip": 4, "packets": 3}``; ``rule`` as
  iptables-save(8) writes it; ``rule``, ``table`` and ``ip`` are null for a rule that is not of our making.
- ``unseen``: ``{"legacy iptables": "why it cannot be looked at here"}``, for each firewall that could not.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imds_detour.ctl.installed import standing
from imds_detour.ctl.sidecar import last_probe
from imds_detour.ctl.terminal import Style, Terminal
from imds_detour.firewall.select import FirewallSelector
from imds_detour.system import namespaces, routes

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from imds_detour.ctl.installed import Standing
    from imds_detour.ctl.sidecar.last_probe import LastProbe
    from imds_detour.system.routes import Route

SCHEMA = 1
LISTINGS = {
    "legacy iptables": "iptables-legacy-save",
    "nftables": "nft list table ip imds_detour",
}
"""The command that shows the same rules."""


@dataclass(frozen=True, slots=True)
class Status:
    """All that there is to say.

    Attributes:
        firewalls: those in which something of ours stands.
        routes: ours.
        probe: what the sidecar saw last.
        unseen: why some firewall could not be looked at, by its name.

    """

    firewalls: tuple[Standing, ...]
    routes: tuple[Route, ...]
    probe: LastProbe | None
    unseen: Mapping[str, str]

    @property
    def redirected(self) -> bool:
        """Whether a redirect stands."""
        return any(firewall.redirects for firewall in self.firewalls)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the verb."""
    parser.epilog = (
        "Needs root and NET_ADMIN, as whoever set the rules up did; `check` does not.\n\n"
        "exit status: 0 when a redirect stands, 1 when none does, 125 when no firewall can\n"
        "be looked at.\n"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text, for programs")


def run(arguments: argparse.Namespace) -> int:
    """Print it; the status is 0 when a redirect stands, 1 when none does.

    Raises:
        DetourError: when no firewall can be looked at.

    """
    status = look()
    if arguments.json:
        sys.stdout.write(json.dumps(facts(status)) + "\n")
    else:
        show(status, Terminal.of(sys.stdout))
    return 0 if status.redirected else 1


def look() -> Status:
    """Return what stands.

    Raises:
        DetourError: when no firewall can be looked at.

    """
    with FirewallSelector("auto", namespaces.ip_versions()) as selector:
        working, refused = selector.usable()
        found = tuple(standing(each.name, each.layout, each.installed()) for each in working)
    return Status(
        firewalls=tuple(each for each in found if each.rules),
        routes=routes.installed_routes(),
        probe=last_probe.ask(),
        unseen={name: error.reason for name, error in refused.items()},
    )


def facts(status: Status) -> dict[str, object]:
    """Return the object that ``--json`` prints; this module's docstring describes it."""
    probe = status.probe
    return {
        "schema": SCHEMA,
        "redirects": [
            {
                "endpoint": str(used.redirect.endpoint),
                "mock": str(used.redirect.mock),
                "backend": firewall.backend,
                "connections": used.connections,
            }
            for firewall in status.firewalls
            for used in firewall.redirects
        ],
        "guard": [
            {
                "address": str(each.address),
                "backend": firewall.backend,
                "how": "drop" if each.drops else "reject",
                "refused": each.refused,
            }
            for firewall in status.firewalls
            for each in firewall.guarded
        ],
        "routes": [{"to": str(route.to), "source": str(route.source)} for route in status.routes],
        "probe": probe and {"verified": probe.verified, "text": probe.text, "age": round(probe.age, 3)},
        "faults": [fault for firewall in status.firewalls for fault in firewall.faults],
        "rules": [
            {
                "backend": firewall.backend,
                "rule": found.rule.spec if found.rule else None,
                "table": found.rule.table if found.rule else None,
                "ip": found.rule.version if found.rule else None,
                "packets": found.packets,
            }
            for firewall in status.firewalls
            for found in firewall.rules
        ],
        "unseen": status.unseen,
    }


def show(status: Status, terminal: Terminal) -> None:
    """Write it for people."""
    if not status.firewalls and not status.routes:
        terminal.line("nothing of imds-detour's stands in this network namespace")
    redirects = [
        (str(used.redirect.endpoint), str(used.redirect.mock), firewall.backend, used.connections)
        for firewall in status.firewalls
        for used in firewall.redirects
    ]
    guards = [
        (str(each.address), "drops" if each.drops else "rejects", firewall.backend, each.refused)
        for firewall in status.firewalls
        for each in firewall.guarded
    ]
    tables: list[tuple[tuple[str, ...], Sequence[Sequence[str | int]]]] = [
        (("REDIRECT", "TO", "BY", "CONNECTIONS"), redirects),
        (("GUARD", "HOW", "BY", "PACKETS REFUSED"), guards),
        (("ROUTE", "OVER", "SOURCE"), [(str(route.to), "lo", str(route.source)) for route in status.routes]),
    ]
    shown = [table for table in tables if table[1]]
    for head, rows in shown:
        terminal.table(head, rows)
        terminal.line()
    if status.firewalls and not redirects:
        terminal.line("no redirect stands: the guard alone refuses what goes to the addresses above", Style.YELLOW)
    if status.firewalls and not guards:
        terminal.line("no guard stands: what is not redirected goes out as ever", Style.YELLOW)
    if probe := status.probe:
        said = "verified" if probe.verified else "failed"
        terminal.line(
            f"last probe of the sidecar: {said} {probe.age:.1f} s ago, {probe.text}",
            Style.GREEN if probe.verified else Style.RED,
        )
    for firewall in status.firewalls:
        for fault in firewall.faults:
            terminal.line(f"{firewall.backend}: {fault}", Style.RED)
        terminal.line(f"`{LISTINGS[firewall.backend]}` shows the rules", Style.DIM)
    for name, why in status.unseen.items():
        terminal.line(f"{name} could not be looked at: {why}", Style.DIM)
