"""imds-detourctl remove: take out everything of ours, and nothing else."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from imds_detour import hosts, routes
from imds_detour.ctl import firewalls
from imds_detour.detour import LOCK_PATIENCE

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add nothing: there is nothing to choose."""


def run(_arguments: argparse.Namespace) -> int:
    """Remove redirect, guard, host names and routes, in this order: what is half removed is closed.

    Raises:
        DetourError: when no firewall can be changed here.

    """
    removed = 0
    with firewalls.usable() as working:
        for firewall in working:
            removed += sum(len(firewall.apply(table, (), LOCK_PATIENCE)) for table in ("nat", "filter"))
    hosts.remove()
    for route in routes.ours():
        routes.remove(route)
    sys.stdout.write(f"{removed} rules removed\n" if removed else "there was nothing of ours\n")
    return 0
