"""imds-detourctl remove: take out everything of ours, and nothing else."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from imds_detour import routes
from imds_detour.ctl import firewalls
from imds_detour.detour import LOCK_PATIENCE
from imds_detour.endpoints import METADATA_ADDRESSES

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add nothing: there is nothing to choose."""


def run(_arguments: argparse.Namespace) -> int:
    """Remove redirect, guard and route, in this order: what is half removed is closed.

    Raises:
        DetourError: when no firewall can be changed here.

    """
    removed = 0
    with firewalls.usable() as working:
        for firewall in working:
            removed += sum(len(firewall.apply(table, (), LOCK_PATIENCE)) for table in ("nat", "filter"))
    for address in METADATA_ADDRESSES:
        routes.remove(routes.Route(address, address))
    sys.stdout.write(f"{removed} rules removed\n" if removed else "there was nothing of ours\n")
    return 0
