"""imds-detourctl remove: take out everything of ours, and nothing else."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from imds_detour.ctl.cleanup import clear
from imds_detour.ctl.terminal import Style, Terminal
from imds_detour.firewall.select import FirewallSelector
from imds_detour.system import etc_hosts, namespaces

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add no flags: there is nothing to choose."""
    parser.epilog = (
        "Takes out redirect, guard, host names and routes in this order, so that what is\n"
        "half removed is closed, not open. What others have put there stays as it is.\n"
        "Needs root and NET_ADMIN.\n\n"
        "exit status: 0, also when there was nothing; 125 when it cannot be done.\n"
    )


def run(_arguments: argparse.Namespace) -> int:
    """Remove everything of ours, and say what it was.

    Raises:
        DetourError: when no firewall can be changed here.

    """
    terminal = Terminal.of(sys.stdout)
    with FirewallSelector("auto", namespaces.ip_versions()) as selector:
        working, refused = selector.usable()
        cleared = clear(working)
    said = [f"{name}: {_counted(count, 'rule')} removed" for name, count in cleared.rules.items() if count]
    if cleared.names:
        said.append(f"{etc_hosts.PATH}: our lines removed")
    if cleared.routes:
        said.append(f"routes: {_counted(cleared.routes, 'route')} removed")
    for line in said:
        terminal.line(line, Style.GREEN)
    if not said:
        terminal.line("there was nothing of ours")
    for name, error in refused.items():
        Terminal.of(sys.stderr).line(f"{name} could not be looked at: {error.reason}", Style.DIM)
    return 0


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
