"""imds-detourctl doctor: go through everything that a redirect needs, and end with the one thing to change.

It writes no rule, route or file; the kernel may load its modules, and has the tables of legacy iptables afterwards.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from imds_detour.ctl import flags
from imds_detour.ctl.doctor import examine
from imds_detour.ctl.doctor.context import open_context
from imds_detour.ctl.doctor.result import State
from imds_detour.ctl.terminal import Spinner, Style, Terminal

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from imds_detour.ctl.doctor.result import Finding

STYLES = {State.OK: Style.GREEN, State.WARN: Style.YELLOW, State.FAIL: Style.RED, State.SKIPPED: Style.DIM}
NAMES = 27
"""Columns for the names of preconditions."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the verb."""
    parser.epilog = (
        "Writes no rule, route or file; the kernel may load its modules. Run it where the app\n"
        "runs, with what the app is given, for example\n"
        "  docker compose run --rm --entrypoint /opt/imds-detour/bin/imds-detourctl SERVICE doctor\n\n"
        "exit status: 0 when nothing stands in the way, 1 when something does.\n"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text, for programs")
    flags.add(parser)


def run(arguments: argparse.Namespace) -> int:
    """Examine, and say what was found; the status is 0 when nothing stands in the way, else 1."""
    terminal, found = Terminal.of(sys.stdout), []
    with (
        open_context(flags.environ(arguments)) as context,
        Spinner(Terminal.of(sys.stderr), "looking", wanted=not arguments.json) as spinner,
    ):
        for finding in examine(context):
            found.append(finding)
            if not arguments.json:
                with spinner.aside():
                    show(finding, terminal)
    change = to_change(found)
    if arguments.json:
        findings = [{**asdict(finding), "state": finding.state.value} for finding in found]
        sys.stdout.write(json.dumps({"schema": 1, "findings": findings, "change": change.remedy if change else None}))
        sys.stdout.write("\n")
    else:
        conclude(change, found, terminal)
    return 1 if change else 0


def to_change(found: Sequence[Finding]) -> Finding | None:
    """Return the first finding that stands in the way: those after it may be but its consequences."""
    return next((finding for finding in found if finding.state is State.FAIL), None)


def show(finding: Finding, terminal: Terminal) -> None:
    """Write one finding."""
    state = terminal.paint(f"{finding.state.value:4}", STYLES[finding.state])
    seen = terminal.paint(finding.seen, *([Style.DIM] if finding.state is State.SKIPPED else []))
    terminal.stream.write(f"{state}  {terminal.paint(f'{finding.name:{NAMES}}')}{seen}\n")
    terminal.stream.flush()


def conclude(change: Finding | None, found: Sequence[Finding], terminal: Terminal) -> None:
    """Write the one thing to change, or that there is none."""
    terminal.line()
    if change:
        terminal.line(f"to change ({change.name}): {change.remedy}", Style.BOLD)
        return
    worth = next((finding for finding in found if finding.state is State.WARN and finding.remedy), None)
    if worth:
        terminal.line(f"worth a look ({worth.name}): {worth.remedy}", Style.YELLOW)
    terminal.line("all is well: nothing stands in the way of imds-detour here", Style.GREEN)
