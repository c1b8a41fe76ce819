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
    wanted: dict[Endpoint, Endpoint] = {}
    guarded = [at.address for service in chosen.services for at in service.preset.endpoints] if chosen.guard else []
    for service in chosen.services:
        addresses = Lookup(service.mock.host).attempt(Deadline(PATIENCE)).addresses
        mocks = {address.version: Endpoint(address, service.mock.port) for address in reversed(addresses)}
        wanted |= {at: mocks[at.address.version] for at in service.preset.endpoints if at.address.version in mocks}
    redirects = [rules.Redirect(endpoint, mock) for endpoint, mock in wanted.items()]

    legacy, nft = (
        (*rules.guard(dict.fromkeys(guarded), layout), *rules.redirects(redirects, layout))
        for layout in (rules.LEGACY, rules.NFT)
    )
    for version, command in ((4, "iptables-legacy-restore"), (6, "ip6tables-legacy-restore")):
        sys.stdout.write(f"# {command} --noflush\n{rules_text.restore(legacy, version)}\n")
    sys.stdout.write(f"# nft -f -\n{rules_text.nft(nft)}")
    return 0
