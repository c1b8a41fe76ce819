"""imds-detourctl sidecar: guard, wait, redirect, verify, and go on: follow the mock, and close without it."""

from __future__ import annotations

import time
from functools import partial
from math import inf
from typing import TYPE_CHECKING

from imds_detour import redirect
from imds_detour.config.mock_address import BadValueError, parse_host_port
from imds_detour.ctl import flags
from imds_detour.ctl.cleanup import clear
from imds_detour.ctl.sidecar.controller import Follower
from imds_detour.ctl.sidecar.names import FollowedNames
from imds_detour.ctl.sidecar.pages import STALE
from imds_detour.ctl.sidecar.reconciler import Upkeep
from imds_detour.ctl.sidecar.restarting_firewall import LastingFirewall
from imds_detour.ctl.sidecar.server import Server
from imds_detour.ctl.sidecar.service_status import EVERY, Habits
from imds_detour.ctl.sidecar.signals import Wake
from imds_detour.deadline import Deadline
from imds_detour.endpoint import Endpoint
from imds_detour.errors import DetourError
from imds_detour.firewall import select
from imds_detour.log import Log
from imds_detour.text import quoted

if TYPE_CHECKING:
    import argparse

    from imds_detour.firewall.base import Firewall


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the verb."""
    parser.epilog = (
        "The metadata addresses are closed at once, then redirected as soon as their mocks\n"
        "answer. It goes on until SIGTERM: looks the names up when their answers run out (1 to\n"
        "60 s), probes, swaps in one commit when a mock moves, closes when it is gone. SIGHUP:\n"
        "look again now. MOCK_TIMEOUT does not count: it waits for ever. MOCK_PROBE=off is\n"
        "refused: probes are what it follows by.\n\n"
        "With --listen: /healthz (the process), /readyz (every redirect is verified now),\n"
        "/metrics (Prometheus), /status.json, and / for people.\n\n"
        "exit status: 0 after SIGTERM or SIGINT, 125 when it cannot start.\n"
    )
    parser.add_argument(
        "--listen", metavar="ADDRESS:PORT", help="serve health, metrics and a page there; off by default"
    )
    parser.add_argument(
        "--every", type=float, default=EVERY, metavar="SECONDS", help="between probes (default %(default)g)"
    )
    parser.add_argument("--keep", action="store_true", help="leave rules and routes in place at the end")
    parser.add_argument(
        "--host", action="store_true", help="work in the host's own network namespace too, for the whole machine"
    )
    flags.add(parser)


def run(arguments: argparse.Namespace) -> int:
    """Follow the mocks until told to stop.

    Raises:
        DetourError: when a setting is bad, the firewall cannot be used, or an address to listen on is taken.

    """
    wake = Wake()
    chosen = flags.parse(arguments)
    log = Log(chosen.log, Deadline(inf))
    listen = _listen(arguments.listen)
    if not 0.1 <= arguments.every <= 3600:
        raise DetourError("settings", f"--every {arguments.every:g} is not valid", "allowed: 0.1 to 3600 seconds")
    if chosen.backend == "env":
        raise DetourError(
            "settings", "MOCK_BACKEND=env sets variables for an app, and the sidecar starts none", "leave it out"
        )
    if not chosen.probe:
        raise DetourError(
            "settings", "MOCK_PROBE=off leaves the sidecar nothing to follow by", "leave it out, or use init"
        )
    inspect = partial(redirect.inspect, chosen, host=arguments.host)
    environment = inspect()
    habits = Habits(arguments.every, chosen.guard)
    firewall = LastingFirewall(_firewall(chosen.backend, environment.versions), environment.versions, wake, log)
    upkeep = Upkeep(environment, inspect, firewall, log, habits)
    names = FollowedNames((service.mock.host for service in environment.services), time.monotonic, log.step)
    follower = Follower(upkeep, names, wake, log, habits)
    try:
        latest = [follower.state()]
        Server(listen, lambda: latest[0])  # before anything is changed: where another one is at work, it ends here
        upkeep.close()
        while not wake.stopped:
            pause = follower.step()
            latest[0] = follower.state()
            if wake.wait(min(pause, STALE / 3)):  # where nothing is due for an hour, it beats all the same
                follower.look_again()
        if not arguments.keep:
            clear([firewall])
    finally:
        firewall.close()
    return 0


def _firewall(choice: str, versions: tuple[int, ...]) -> Firewall:
    """Return nftables before legacy iptables, unless told otherwise: no helper process to keep for a lifetime."""
    if choice == "auto":
        try:
            nft = select.start("nft", versions)
        except DetourError:
            pass  # what it is that lacks, `auto` says for both
        else:
            nft.reason = "it needs no helper process"
            return nft
    return select.start(choice, versions)


def _listen(text: str | None) -> Endpoint | None:
    if text is None:
        return None
    try:
        address, port = parse_host_port(text)
    except BadValueError:
        address, port = "", None
    if isinstance(address, str) or port is None:
        raise DetourError(
            "settings", f"--listen {quoted(text)} is not valid", "write it like 127.0.0.1:9138 or [::]:9138"
        )
    return Endpoint(address, port)
