"""imds-detourctl plan: print the rules, for both kinds of tables, and change nothing."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from imds_detour import rules, rules_text, settings
from imds_detour.endpoints import Endpoint
from imds_detour.lookup import Lookup
from imds_detour.waiting import Deadline

if TYPE_CHECKING:
    import argparse

PATIENCE = 5.0
"""Seconds for the look-up of the mock's name."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add nothing: the settings come from the environment, as for imds-detour itself."""


def run(_arguments: argparse.Namespace) -> int:
    """Print what imds-detour would install with these settings.

    Raises:
        DetourError: when a setting is bad, or the mock's name has no address now.

    """
    chosen = settings.parse(os.environ)
    addresses = Lookup(chosen.host).attempt(Deadline(PATIENCE)).addresses
    mocks = {address.version: Endpoint(address, chosen.port) for address in reversed(addresses)}
    endpoints = [endpoint for preset in chosen.presets for endpoint in preset.endpoints]
    wanted = [rules.Redirect(at, mocks[at.address.version]) for at in endpoints if at.address.version in mocks]
    guarded = [endpoint.address for endpoint in endpoints] if chosen.guard else []

    legacy, nft = (
        (*rules.guard(guarded, layout), *rules.redirects(wanted, layout)) for layout in (rules.LEGACY, rules.NFT)
    )
    for version, command in ((4, "iptables-legacy-restore"), (6, "ip6tables-legacy-restore")):
        sys.stdout.write(f"# {command} --noflush\n{rules_text.restore(legacy, version)}\n")
    sys.stdout.write(f"# nft -f -\n{rules_text.nft(nft)}")
    return 0
