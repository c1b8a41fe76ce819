"""The main of imds-detourctl: one verb, one module."""

from __future__ import annotations

import argparse
import sys

from imds_detour import __version__
from imds_detour.ctl import demo, mock

VERBS = {
    "demo": (demo, "show the main job on this machine, without Docker"),
    "mock": (mock, "serve a small metadata mock, for development; for real work take amazon-ec2-metadata-mock or moto"),
}


def main() -> int:
    """Run the verb on the command line and return its exit status."""
    parser = argparse.ArgumentParser(prog="imds-detourctl", description="The tool beside imds-detour, for people.")
    parser.add_argument("--version", action="version", version=f"imds-detourctl {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, (module, summary) in VERBS.items():
        module.add_arguments(verbs.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + "."))
    arguments = parser.parse_args()
    module, _ = VERBS[arguments.verb]
    status: int = module.run(arguments)
    return status


if __name__ == "__main__":
    sys.exit(main())
