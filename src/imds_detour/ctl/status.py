"""imds-detourctl status: what of ours stands in this network namespace, and how much it has been used."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from imds_detour.ctl import firewalls
from imds_detour.rules import Dnat

if TYPE_CHECKING:
    import argparse

    from imds_detour.rules import Installed

LISTING = {"legacy iptables": "iptables-legacy-save", "nftables": "nft list table ip imds_detour"}
"""The command that shows the same rules."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the verb."""
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")


def run(arguments: argparse.Namespace) -> int:
    """Print it; the status is 0 when a redirect stands, 1 when none does.

    Raises:
        DetourError: when no firewall can be looked at.

    """
    with firewalls.usable() as working:
        found = {firewall.name: firewall.installed() for firewall in working}
    standing = {name: installed for name, installed in found.items() if installed}
    if arguments.json:
        sys.stdout.write(
            json.dumps({name: [_facts(rule) for rule in rules] for name, rules in standing.items()}) + "\n"
        )
    else:
        sys.stdout.write(_text(standing))
    redirected = any(_redirects(rule) for rules in standing.values() for rule in rules)
    return 0 if redirected else 1


def _redirects(found: Installed) -> bool:
    return found.rule is not None and isinstance(found.rule.target, Dnat)


def _facts(found: Installed) -> dict[str, str | int | None]:
    rule = found.rule
    return {
        "rule": rule.spec if rule else None,
        "table": rule.table if rule else None,
        "ip": rule.version if rule else None,
        "packets": found.packets,
    }


def _text(standing: dict[str, tuple[Installed, ...]]) -> str:
    if not standing:
        return "nothing of imds-detour's stands in this network namespace\n"
    lines = []
    for name, rules in standing.items():
        lines.append(f"{name} (`{LISTING[name]}` shows the same)")
        lines += [f"{found.packets:>8} packets  {found.rule.spec if found.rule else 'not ours'}" for found in rules]
    return "".join(f"{line}\n" for line in lines)
