"""imds-detourctl remove: take out everything of ours, and nothing else."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from imds_detour import hosts, routes
from imds_detour.ctl import firewalls
from imds_detour.ctl.terminal import Style, Terminal
from imds_detour.detour import LOCK_PATIENCE

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
    """Remove redirect, guard, host names and routes, in this order: what is half removed is closed.

    Raises:
        DetourError: when no firewall can be changed here.

    """
    terminal = Terminal.of(sys.stdout)
    removed = 0
    with firewalls.usable() as usable:
        for firewall in usable.working:
            count = sum(len(firewall.apply(table, (), LOCK_PATIENCE)) for table in ("nat", "filter"))
            if count:
                terminal.line(f"{firewall.name}: {_counted(count, 'rule')} removed", Style.GREEN)
            removed += count
    if hosts.remove():
        terminal.line(f"{hosts.PATH}: our lines removed", Style.GREEN)
        removed += 1
    ours = routes.ours()
    for route in ours:
        routes.remove(route)
    if ours:
        terminal.line(f"routes: {_counted(len(ours), 'route')} removed", Style.GREEN)
    if not removed and not ours:
        terminal.line("there was nothing of ours")
    for name, error in usable.refused.items():
        Terminal.of(sys.stderr).line(f"{name} could not be looked at: {error.reason}", Style.DIM)
    return 0


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
