"""imds-detourctl sidecar: guard, redirect, verify, keep running; close a redirect while its mock does not answer."""

from __future__ import annotations

import argparse
from contextlib import suppress
from functools import partial

from imds_detour.config.mock_address import BadValueError, parse_host_port
from imds_detour.config.settings import Settings
from imds_detour.ctl import flags
from imds_detour.ctl.cleanup import end_sidecar
from imds_detour.ctl.sidecar.controller import Controller
from imds_detour.ctl.sidecar.firewall_events import open_firewall_events, read_events
from imds_detour.ctl.sidecar.pages import STALE
from imds_detour.ctl.sidecar.prober import Prober, SidecarCache
from imds_detour.ctl.sidecar.reconciler import Reconciler
from imds_detour.ctl.sidecar.restarting_firewall import RestartingFirewall, choose_firewall
from imds_detour.ctl.sidecar.server import start_server
from imds_detour.ctl.sidecar.signals import install_signal_handlers
from imds_detour.endpoint import Endpoint
from imds_detour.errors import DetourError
from imds_detour.log import Log
from imds_detour.text import quoted

PROBE_INTERVAL = 5.0
"""Seconds between two probes, by default."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the verb."""
    served = "serve health, metrics and a page there; off by default"
    parser.add_argument("--listen", metavar="ADDRESS:PORT", help=served)
    parser.add_argument(
        "--every", type=float, default=PROBE_INTERVAL, metavar="SECONDS", help="between probes (default %(default)g)"
    )
    parser.add_argument("--keep", action="store_true", help="keep rules and routes at the end")
    flags.add_namespace(parser)
    flags.add(parser)


def run(arguments: argparse.Namespace) -> int:
    """Follow the mocks until a stop."""
    signals = install_signal_handlers()
    settings = flags.parse(arguments)
    listen = _listen(arguments.listen)
    _require(settings, arguments.every)
    log = Log(settings.log)
    inspect = partial(flags.inspect, settings, arguments)
    environment = inspect()
    firewall = RestartingFirewall(choose_firewall(settings.backend, environment.versions), signals, log)
    reconciler = Reconciler(environment, inspect, firewall, log, arguments.every)
    cache = SidecarCache((service.mock.host for service in environment.services), log)
    prober = Prober(reconciler, cache, signals, log)
    controller = Controller(reconciler, prober, cache, signals, log, arguments.every)
    try:
        # Before anything is changed: it fails if another sidecar runs.
        start_server(listen, lambda: controller.latest, log)
        reconciler.install_guard(environment)
        events = open_firewall_events()
        while not signals.stopped:
            pause = controller.step()
            if signals.wait(min(pause, STALE / 3), events):  # a heartbeat, even if nothing is due for an hour
                controller.refresh()
            if events and read_events(events):
                reconciler.read_soon()
        if not arguments.keep:
            end_sidecar(firewall, reconciler.guards, host=arguments.host).require_all()
    finally:
        firewall.close()
    return 0


def _require(settings: Settings, interval: float) -> None:
    if not 0.1 <= interval <= 3600:
        raise DetourError("settings", f"--every {interval:g} is not valid", "allowed: 0.1 to 3600 seconds")
    flags.refuse_env(settings, "the sidecar starts none", "leave it out")
    if not settings.probe:
        reason = "MOCK_PROBE=off leaves the sidecar nothing to follow by"
        raise DetourError("settings", reason, "leave it out, or use init")


def _listen(text: str | None) -> Endpoint | None:
    if text is None:
        return None
    with suppress(BadValueError):
        address, port = parse_host_port(text)
        if port is not None and not isinstance(address, str):
            return Endpoint(address, port)
    raise DetourError("settings", f"--listen {quoted(text)} is not valid", "write it like 127.0.0.1:9138 or [::]:9138")
