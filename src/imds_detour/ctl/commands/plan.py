"""imds-detourctl plan: print the rules and routes that imds-detour would make, and change nothing."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imds_detour.ctl import flags
from imds_detour.ctl.terminal import Style, Terminal
from imds_detour.deadline import Deadline
from imds_detour.discovery.dns.lookup import Lookup
from imds_detour.endpoint import Endpoint
from imds_detour.errors import DetourError
from imds_detour.firewall import render, rules
from imds_detour.system import etc_hosts, namespaces, routes

if TYPE_CHECKING:
    import argparse

    from imds_detour.config.settings import Settings
    from imds_detour.endpoint import Address
    from imds_detour.firewall.rules import Redirect
    from imds_detour.system.routes import Route

TIMEOUT = 5.0
"""Seconds for the look-up of the mock's name."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What would be made.

    Attributes:
        guarded: the addresses that would be guarded.
        redirects: what would be redirected to where, if the mock answers there.
        routes: the routes that this would need.
        names: the lines that would come into /etc/hosts.
        notes: what else there is to know, a line each.

    """

    guarded: tuple[Address, ...]
    redirects: tuple[Redirect, ...]
    routes: tuple[Route, ...]
    names: tuple[etc_hosts.Line, ...]
    notes: tuple[str, ...]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the verb."""
    parser.epilog = (
        "Looks the mock's name up, and asks nobody else. Needs no capability. What it\n"
        "prints for nftables can be loaded: imds-detourctl plan --backend nft | nft -f -\n"
    )
    flags.add(parser, ("MOCK_HOSTNAME", "MOCK_PORT", "MOCK_ENDPOINTS", "MOCK_BACKEND", "MOCK_GUARD"))


def run(arguments: argparse.Namespace) -> int:
    """Print what imds-detour would make with these settings.

    Raises:
        DetourError: when a setting is bad, or the mock's name has no address now.

    """
    chosen = flags.parse(arguments)
    if chosen.backend == "env":
        raise DetourError(
            "settings",
            "MOCK_BACKEND=env sets variables for an app, and makes no rules to plan",
            "leave it out, or run `imds-detour env` to see what the app gets",
        )
    show(make(chosen), chosen.backend, Terminal.of(sys.stdout))
    return 0


def make(chosen: Settings) -> Plan:
    """Return what would be made here and now.

    Raises:
        DetourError: when the mock's name has no address now.

    """
    versions = namespaces.ip_versions()
    redirects: list[Redirect] = []
    names: list[etc_hosts.Line] = []
    for service in chosen.services:
        addresses = Lookup(service.mock.host).attempt(Deadline(TIMEOUT)).addresses
        mocks = {address.version: Endpoint(address, service.mock.port) for address in reversed(addresses)}
        here = [
            rules.Redirect(at, mocks[at.address.version])
            for at in service.preset.endpoints
            if at.address.version in mocks and at.address.version in versions
        ]
        redirects += here
        if here and service.preset.names:
            names.append(etc_hosts.Line(here[0].endpoint.address, service.preset.names))
    redirects = list(dict.fromkeys(redirects))
    endpoints = [at for each in chosen.services for at in each.preset.endpoints if at.address.version in versions]
    wanted: list[Route] = []
    notes: list[str] = []
    for redirect in redirects:
        try:
            route = routes.needed(redirect.endpoint.address, redirect.mock.address)
        except DetourError as error:
            notes.append(f"{error.reason}: nothing would be redirected there")
        else:
            wanted += [route] if route else []
    if 6 not in versions:
        notes.append("there is no IPv6 in this network namespace: nothing to do for it")
    return Plan(
        guarded=tuple(dict.fromkeys(at.address for at in endpoints)) if chosen.guard else (),
        redirects=tuple(redirects),
        routes=tuple(dict.fromkeys(wanted)),
        names=tuple(dict.fromkeys(names)),
        notes=tuple(notes),
    )


def show(plan: Plan, backend: str, terminal: Terminal) -> None:
    """Write it, as the tools of each kind of tables load it; all else is a comment to them."""
    for redirect in plan.redirects:
        terminal.line(f"# redirect {redirect.endpoint} -> {redirect.mock}", Style.DIM)
    for address in plan.guarded:
        terminal.line(f"# guard {address}: what goes there and is not redirected is refused", Style.DIM)
    for note in plan.notes:
        terminal.line(f"# {note}", Style.DIM)
    for line in plan.names:
        terminal.line(f"# {etc_hosts.PATH}: {line.address} {' '.join(line.names)}", Style.DIM)
    for route in plan.routes:
        terminal.line(f"# ip route add {route.to} dev lo src {route.source} proto {routes.PROTOCOL}", Style.DIM)
    legacy, nft = (
        (*rules.guard(plan.guarded, layout), *rules.redirects(plan.redirects, layout))
        for layout in (rules.LEGACY, rules.NFT)
    )
    texts = []
    if backend != "nft":
        texts += [
            ("iptables-legacy-restore --noflush", render.restore(legacy, 4)),
            ("ip6tables-legacy-restore --noflush", render.restore(legacy, 6)),
        ]
    if backend != "legacy":
        texts.append(("nft -f -", render.nft(nft)))
    for command, text in texts:
        if text:
            terminal.line()
            terminal.line(f"# {command}", Style.BOLD)
            for loaded in text.splitlines():
                terminal.line(loaded.expandtabs(4))
