"""The main of imds-detourctl: one verb, one module."""

from __future__ import annotations

import argparse
import sys

from imds_detour import __version__
from imds_detour.ctl import demo, init, mock, plan, remove, status
from imds_detour.errors import DetourError
from imds_detour.report import Report
from imds_detour.waiting import Deadline

VERBS = {
    "demo": (demo, "show the main job on this machine, without Docker"),
    "init": (init, "redirect once, verify, and end: no app is started"),
    "mock": (mock, "serve a small metadata mock, for development; for real work take amazon-ec2-metadata-mock or moto"),
    "plan": (plan, "print the rules that imds-detour would install, and change nothing"),
    "remove": (remove, "take out every rule and route of ours, and nothing else"),
    "status": (status, "say which rules of ours stand here, and how often they matched"),
}


def main() -> int:
    """Run the verb on the command line and return its exit status."""
    parser = argparse.ArgumentParser(
        prog="imds-detourctl",
        description="The tool beside imds-detour, for people. The settings are the same: `imds-detour --help`.",
    )
    parser.add_argument("--version", action="version", version=f"imds-detourctl {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, (module, summary) in VERBS.items():
        module.add_arguments(verbs.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + "."))
    arguments = parser.parse_args()
    module, _ = VERBS[arguments.verb]
    try:
        outcome: int = module.run(arguments)
    except DetourError as error:
        Report("text", Deadline(0)).failure(error)
        return error.status
    return outcome


if __name__ == "__main__":
    sys.exit(main())
