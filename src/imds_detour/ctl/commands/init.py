"""imds-detourctl init: redirect once and verify, without an app: for init containers, or a laptop's own network."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from imds_detour import redirect
from imds_detour.ctl import flags
from imds_detour.ctl.terminal import Progress, Spinner, Style, Terminal
from imds_detour.deadline import Deadline
from imds_detour.errors import DetourError
from imds_detour.firewall.select import FirewallSelector

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the verb."""
    parser.epilog = (
        "For init containers, and for a network that is not a container's. Needs root\n"
        "and NET_ADMIN.\n\n"
        "exit status: 0 when the redirect stands and is verified, 125 when a step failed;\n"
        "nothing of this run stands then.\n"
    )
    parser.add_argument(
        "--host",
        action="store_true",
        help="work in the host's own network namespace too: the redirect then holds for the whole machine",
    )
    flags.add(parser)


def run(arguments: argparse.Namespace) -> int:
    """Take the detour with these settings, and say what stands now.

    Raises:
        DetourError: when a step fails; nothing of this run stands then.

    """
    chosen = flags.parse(arguments).replace(keep_net_admin=True)  # there is no app to keep it from
    if chosen.backend == "env":
        raise DetourError(
            "settings",
            "MOCK_BACKEND=env sets variables for an app, and init starts none",
            "leave it out, or use imds-detour",
        )
    deadline = Deadline(chosen.timeout)
    environment = redirect.inspect(chosen, host=arguments.host)
    spinner = Spinner(Terminal.of(sys.stderr), "redirecting", wanted=chosen.log == "text")
    with spinner, FirewallSelector(chosen.backend, environment.versions, deadline.remaining) as selector:
        done = redirect.setup(chosen, environment, selector, deadline, Progress(chosen.log, spinner))
    Terminal.of(sys.stdout).line(str(done), Style.GREEN if done.identities else Style.YELLOW)
    return 0
