"""imds-detourctl remove: remove everything that imds-detour has installed, and nothing else."""

import argparse
import sys

from imds_detour.ctl.cleanup import clean_up, may_hold_rules
from imds_detour.ctl.installed import usable
from imds_detour.ctl.terminal import Style, Terminal
from imds_detour.errors import DetourError
from imds_detour.firewall.iptables.preflight import readable_versions
from imds_detour.firewall.select import FirewallSelector
from imds_detour.system import etc_hosts


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the help text; the verb has no flags."""


def run(_arguments: argparse.Namespace) -> int:
    """Remove everything and report it; DetourError if no firewall can be used, or something remains."""
    terminal = Terminal.of(sys.stdout)
    with FirewallSelector("auto", readable_versions()) as selector:
        working, refused = usable(selector)
        removed = clean_up(working, refused)
    lines = [f"{name}: {count} rule{'s' * (count != 1)} removed" for name, count in removed.rules.items() if count]
    if removed.names:
        lines.append(f"{etc_hosts.PATH}: lines of imds-detour removed")
    if removed.routes:
        lines.append(f"routes: {removed.routes} route{'s' * (removed.routes != 1)} removed")
    for line in lines:
        terminal.line(line, Style.GREEN)
    for name, error in refused.items():
        reason = f"{name} cannot be read: {error.reason}"
        if may_hold_rules(name, error):
            removed.failures.append(
                DetourError("firewall", f"{reason}; it may hold rules of imds-detour", error.remedy)
            )
        else:
            Terminal.of(sys.stderr).line(reason, Style.DIM)
    removed.require_all()
    if not lines:
        terminal.line("nothing to remove")
    return 0
