"""imds-detourctl init: redirect once and verify, without an app: for init containers, or a laptop's own network."""

from __future__ import annotations

import dataclasses
import os
import sys
from typing import TYPE_CHECKING

from imds_detour import detour, settings
from imds_detour.report import Report
from imds_detour.waiting import Deadline

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the verb."""
    parser.add_argument(
        "--host",
        action="store_true",
        help="work in the host's own network namespace too: the redirect then holds for the whole machine",
    )


def run(arguments: argparse.Namespace) -> int:
    """Take the detour with the settings of the environment, and say what stands now.

    Raises:
        DetourError: when a step fails; nothing of this run stands then.

    """
    chosen = dataclasses.replace(settings.parse(os.environ), keep_net_admin=True)  # there is no app to keep it from
    done = detour.take(chosen, Report(chosen.log, Deadline(chosen.timeout)), host=arguments.host)
    sys.stdout.write(f"{done}\n")
    return 0
