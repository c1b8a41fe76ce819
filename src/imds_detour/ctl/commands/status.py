"""imds-detourctl status: the rules and routes of imds-detour in this network namespace, and how often they were used.

docs/status.md describes the JSON object that ``--json`` prints.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from typing import Any

from imds_detour.ctl.installed import InstalledRules, summarize, usable
from imds_detour.ctl.sidecar import last_probe
from imds_detour.ctl.sidecar.last_probe import LastProbe
from imds_detour.ctl.terminal import Style, Terminal
from imds_detour.firewall.select import FirewallSelector
from imds_detour.system import namespaces, routes
from imds_detour.system.routes import Route
from imds_detour.value import Value


class Status(Value):
    """The state of a network namespace."""

    firewalls: tuple[InstalledRules, ...]  # those that hold rules of imds-detour
    routes: tuple[Route, ...]  # the routes of imds-detour
    probe: LastProbe | None  # the sidecar's last probe
    unseen: Mapping[str, str]  # why a firewall cannot be read, by its name


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the verb."""
    parser.epilog = (
        "Needs root and NET_ADMIN, as the start that installed the rules; `check` does not.\n\n"
        "exit status: 0 if a redirect is installed, 1 if none is, 125 if no firewall can be\n"
        "read.\n"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text, for programs")


def run(arguments: argparse.Namespace) -> int:
    """Print the status; return 0 if a redirect is installed, else 1."""
    status = read()
    if arguments.json:
        sys.stdout.write(json.dumps(facts(status)) + "\n")
    else:
        show(status, Terminal.of(sys.stdout))
    return 0 if any(firewall.redirects for firewall in status.firewalls) else 1


def read() -> Status:
    """Read the status; DetourError if no firewall can be read."""
    with FirewallSelector("auto", namespaces.ip_versions()) as selector:
        working, refused = usable(selector)
        firewalls = [summarize(firewall.name, firewall.layout, firewall.installed()) for firewall in working]
    return Status(
        firewalls=tuple(firewall for firewall in firewalls if firewall.rules),
        routes=routes.installed_routes(),
        probe=last_probe.ask(),
        unseen={name: error.reason for name, error in refused.items()},
    )


def listing(firewall: InstalledRules) -> str:
    """Return the command that lists a firewall's rules, for an IP version that has some."""
    ipv6_only = all(entry.rule is not None and entry.rule.version == 6 for entry in firewall.rules)
    if firewall.backend == "nftables":
        return f"nft list table {'ip6' if ipv6_only else 'ip'} imds_detour"
    return "ip6tables-legacy-save" if ipv6_only else "iptables-legacy-save"


def facts(status: Status) -> dict[str, Any]:
    """Return the object that ``--json`` prints."""
    probe = status.probe
    return {
        "schema": 1,
        "redirects": [
            {
                "endpoint": str(active.redirect.endpoint),
                "mock": str(active.redirect.mock),
                "backend": firewall.backend,
                "connections": active.connections,
            }
            for firewall in status.firewalls
            for active in firewall.redirects
        ],
        "guard": [
            {
                "address": str(guarded.address),
                "backend": firewall.backend,
                "how": "drop" if guarded.drops else "reject",
                "refused": guarded.refused,
            }
            for firewall in status.firewalls
            for guarded in firewall.guarded
        ],
        "routes": [{"to": str(route.to), "source": str(route.source)} for route in status.routes],
        "probe": probe and {"verified": probe.verified, "text": probe.text, "age": round(probe.age, 3)},
        "faults": [fault for firewall in status.firewalls for fault in firewall.faults],
        "rules": [
            {
                "backend": firewall.backend,
                "rule": entry.rule.spec if entry.rule else None,
                "table": entry.rule.table if entry.rule else None,
                "ip": entry.rule.version if entry.rule else None,
                "packets": entry.packets,
            }
            for firewall in status.firewalls
            for entry in firewall.rules
        ],
        "unseen": status.unseen,
    }


def show(status: Status, terminal: Terminal) -> None:
    """Print the status for people."""
    if not status.firewalls and not status.routes:
        terminal.line("no imds-detour rules in this network namespace")
    shown = facts(status)
    redirects = [(row["endpoint"], row["mock"], row["backend"], row["connections"]) for row in shown["redirects"]]
    guards = [(row["address"], f"{row['how']}s", row["backend"], row["refused"]) for row in shown["guard"]]
    for head, rows in (
        (("REDIRECT", "TO", "BY", "CONNECTIONS"), redirects),
        (("GUARD", "HOW", "BY", "PACKETS REFUSED"), guards),
        (("ROUTE", "OVER", "SOURCE"), [(row["to"], "lo", row["source"]) for row in shown["routes"]]),
    ):
        if rows:
            terminal.table(head, rows)
            terminal.line()
    if status.firewalls and not redirects:
        terminal.line("no redirect: the guard refuses packets to the addresses above", Style.YELLOW)
    if status.firewalls and not guards:
        terminal.line("no guard: packets that are not redirected leave this network namespace", Style.YELLOW)
    if probe := status.probe:
        outcome = "verified" if probe.verified else "failed"
        terminal.line(
            f"last probe of the sidecar: {outcome} {probe.age:.1f} s ago, {probe.text}",
            Style.GREEN if probe.verified else Style.RED,
        )
    for firewall in status.firewalls:
        for fault in firewall.faults:
            terminal.line(f"{firewall.backend}: {fault}", Style.RED)
        terminal.line(f"`{listing(firewall)}` shows the rules", Style.DIM)
    for name, reason in status.unseen.items():
        terminal.line(f"{name} cannot be read: {reason}", Style.DIM)
