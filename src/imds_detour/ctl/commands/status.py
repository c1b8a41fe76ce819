"""imds-detourctl status: the rules and routes of imds-detour in this network namespace, and how often they were used.

docs/status.md describes the JSON object that ``--json`` prints.
"""

import argparse
import sys
from collections.abc import Mapping
from typing import Any

from imds_detour.ctl import report
from imds_detour.ctl.cleanup import may_hold_rules
from imds_detour.ctl.installed import InstalledRules, summarize, usable
from imds_detour.ctl.sidecar import last_probe
from imds_detour.ctl.sidecar.last_probe import LastProbe
from imds_detour.ctl.terminal import Style, Terminal
from imds_detour.errors import DetourError
from imds_detour.firewall.iptables.preflight import readable_versions
from imds_detour.firewall.select import FirewallSelector
from imds_detour.system import routes
from imds_detour.system.routes import Route
from imds_detour.value import Value


class Status(Value):
    """The state of a network namespace."""

    firewalls: tuple[InstalledRules, ...]  # those that hold rules of imds-detour
    routes: tuple[Route, ...]  # the routes of imds-detour
    probe: LastProbe | None  # the sidecar's last probe
    unseen: Mapping[str, DetourError]  # why a firewall cannot be read, by its name


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the verb."""
    report.add_flag(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the status; return 0 if a redirect is installed, else 1."""
    status = read()
    if arguments.json:
        report.write(facts(status))
    else:
        show(status, Terminal.of(sys.stdout))
    return 0 if any(firewall.redirects for firewall in status.firewalls) else 1


def read() -> Status:
    """Read the status; DetourError if no firewall can be read."""
    with FirewallSelector("auto", readable_versions()) as selector:
        working, refused = usable(selector)
        firewalls = [summarize(firewall.name, firewall.layout, firewall.installed()) for firewall in working]
    return Status(
        firewalls=tuple(firewall for firewall in firewalls if firewall.rules),
        routes=routes.installed_routes(),
        probe=last_probe.ask(),
        unseen=refused,
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
        "unseen": {name: error.reason for name, error in status.unseen.items()},
    }


def show(status: Status, terminal: Terminal) -> None:
    """Print the status for people."""
    if not status.firewalls and not status.routes:
        terminal.line("no imds-detour rules in this network namespace")
    shown = facts(status)
    redirects = [(row["endpoint"], row["mock"], row["backend"], row["connections"]) for row in shown["redirects"]]
    guards = [(row["address"], f"{row['how']}s", row["backend"], row["refused"]) for row in shown["guard"]]
    probe = status.probe
    if redirects and guards and not shown["faults"] and (probe is None or probe.verified):
        count = f"{len(redirects)} redirect{'s' * (len(redirects) != 1)}, with a guard"
        asks = f"installed: {count}; `imds-detourctl check` asks the mock"
        terminal.line(f"healthy: {count}, verified by the sidecar" if probe else asks, Style.GREEN)
        terminal.line()
    for head, rows in (
        (("REDIRECT", "TO", "BY", "CONNECTIONS"), redirects),
        (("GUARD", "HOW", "BY", "PACKETS REFUSED"), [row for row in guards if row[-1]]),
        (("ROUTE", "OVER", "SOURCE"), [(row["to"], "lo", row["source"]) for row in shown["routes"]]),
    ):
        if rows:
            terminal.table(head, rows)
            terminal.line()
    if guards:
        addresses, refused = len({row[0] for row in guards}), sum(row[-1] for row in guards)
        terminal.line(f"guard: packets to {addresses} addresses are refused unless redirected; {refused} so far")
    if status.firewalls and not redirects:
        terminal.line("no redirect: no mock answers an app at a metadata address", Style.YELLOW)
    if status.firewalls and not guards:
        terminal.line("no guard: packets that are not redirected leave this network namespace", Style.YELLOW)
    if probe:
        outcome = "verified" if probe.verified else "failed"
        terminal.line(
            f"last probe of the sidecar: {outcome} {probe.age:.1f} s ago, {probe.text}",
            Style.GREEN if probe.verified else Style.RED,
        )
    for firewall in status.firewalls:
        for fault in firewall.faults:
            terminal.line(f"{firewall.backend}: {fault}", Style.RED)
        terminal.line(f"`{listing(firewall)}` shows the rules", Style.DIM)
    for name, error in status.unseen.items():
        if not redirects or error.step == "privileges" or may_hold_rules(name, error):
            terminal.line(f"{name} cannot be read: {error.reason}", Style.DIM)
