"""imds-detourctl plan: print the rules and routes that imds-detour would install, and change nothing."""

import argparse
import sys

from imds_detour.config.settings import Settings
from imds_detour.ctl import flags
from imds_detour.ctl.terminal import Style, Terminal
from imds_detour.deadline import Deadline
from imds_detour.discovery.dns.lookup import Lookup
from imds_detour.endpoint import Address, Endpoint
from imds_detour.errors import DetourError
from imds_detour.firewall import render, rules
from imds_detour.firewall.rules import Redirect
from imds_detour.result import guarded_addresses
from imds_detour.system import etc_hosts, namespaces, routes
from imds_detour.system.routes import Route
from imds_detour.value import Value

TIMEOUT = 5.0
"""Seconds for the look-up of the mock's name."""


class Plan(Value):
    """What a start would install."""

    guarded: tuple[Address, ...]  # the addresses that would be guarded
    redirects: tuple[Redirect, ...]  # the redirects, if the mocks answer
    comments: tuple[str, ...]  # the same for people, with routes, host names and remarks, a line each


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the verb."""
    flags.add(parser, ("MOCK_HOSTNAME", "MOCK_PORT", "MOCK_ENDPOINTS", "MOCK_BACKEND", "MOCK_GUARD"))


def run(arguments: argparse.Namespace) -> int:
    """Print the rules as the tools of each firewall load them, after the comments."""
    settings = flags.parse(arguments)
    remedy = "leave it out, or run `imds-detour env` to see what the app gets"
    flags.refuse_env(settings, "makes no rules to plan", remedy)
    plan, terminal = make(settings), Terminal.of(sys.stdout)
    for comment in plan.comments:
        terminal.line(f"# {comment}", Style.DIM)
    for name, command, text in _sections(plan):
        if text and settings.backend in (name, "auto"):
            terminal.line()
            instead = "instead of the commands above: " if (name, settings.backend) == ("nft", "auto") else ""
            terminal.line(f"# {instead}{command}", Style.BOLD)
            for line in text.splitlines():
                terminal.line(line.expandtabs(4))
    return 0


def _sections(plan: Plan) -> tuple[tuple[str, str, str], ...]:
    """Return the rules of each firewall: its name, the command that loads them, and its input."""
    guard4, guard6 = ([at for at in plan.guarded if at.version == version] for version in (4, 6))
    legacy = render.redirect_rules(plan.redirects, rules.LEGACY)
    nft = render.redirect_rules(plan.redirects, rules.NFT)
    text4 = render.iptables_text((*rules.guard_rules(guard4, rules.LEGACY), *legacy), 4)
    return (
        ("legacy", "iptables-legacy-restore --noflush", text4),
        ("legacy", "ip6tables-legacy-restore --noflush", render.iptables_text(legacy, 6)),
        ("legacy", "nft -f -", render.nft_text(rules.guard_rules(guard6, rules.NFT))),  # FirewallSelector.guards()
        ("nft", "nft -f -", render.nft_text((*rules.guard_rules(plan.guarded, rules.NFT), *nft))),
    )


def make(settings: Settings) -> Plan:
    """Return what a start would install in this network namespace; DetourError without an address of the mock."""
    versions = namespaces.ip_versions()
    redirects: list[Redirect] = []
    names: dict[Address, tuple[str, ...]] = {}
    for service in settings.services:
        addresses = Lookup(service.mock.host).attempt(Deadline(TIMEOUT)).addresses
        mocks = {address.version: Endpoint(address, service.mock.port) for address in reversed(addresses)}
        endpoints = [at for at in service.preset.endpoints if at.address.version in versions]
        of_service = [Redirect(at, mocks[at.address.version]) for at in endpoints if at.address.version in mocks]
        redirects += of_service
        if of_service and service.preset.names:
            address = of_service[0].endpoint.address
            names[address] = (*names.get(address, ()), *service.preset.names)
    closed = guarded_addresses(settings)
    required: list[Route] = []
    notes: list[str] = []
    for redirect in redirects:
        try:
            route = routes.required_route(redirect.endpoint.address, redirect.mock.address)
            required += [route] if route else []
        except DetourError as error:
            notes.append(f"{error.reason}: nothing would be redirected there")
    if 6 not in versions:
        notes.append("there is no IPv6 in this network namespace: it is guarded, and not redirected")
    comments = [f"redirect {redirect.endpoint} -> {redirect.mock}" for redirect in redirects]
    comments += [f"guard {address}: packets to it that are not redirected are refused" for address in closed]
    comments += notes
    comments += [f"{etc_hosts.PATH}: {address} {' '.join(aliases)}" for address, aliases in names.items()]
    comments += [f"ip route add {route.to} dev lo src {route.source} proto {routes.PROTOCOL}" for route in required]
    return Plan(closed, tuple(dict.fromkeys(redirects)), tuple(dict.fromkeys(comments)))
