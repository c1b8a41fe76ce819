"""imds-detourctl completion: print the script that teaches a shell the verbs and flags."""

import argparse
import os
import sys

FOLDER = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "completions")
FILES = {
    "bash": f"{FOLDER}/imds-detourctl.bash",
    "zsh": f"{FOLDER}/_imds-detourctl",
    "fish": f"{FOLDER}/imds-detourctl.fish",
}
"""The script of each shell, which scripts/completions.py writes."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the verb."""
    parser.usage = "%(prog)s SHELL"
    parser.add_argument("shell", metavar="SHELL", choices=tuple(FILES), help="bash, zsh or fish")


def run(arguments: argparse.Namespace) -> int:
    """Print the script."""
    with open(FILES[arguments.shell], encoding="utf-8") as script:
        sys.stdout.write(script.read())
    return 0
