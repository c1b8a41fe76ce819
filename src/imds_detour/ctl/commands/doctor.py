"""imds-detourctl doctor: check everything that a redirect needs, and name the one thing to fix."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict

from imds_detour.ctl import flags, report
from imds_detour.ctl.doctor import run_checks
from imds_detour.ctl.doctor.context import open_context
from imds_detour.ctl.doctor.result import CheckResult, State
from imds_detour.ctl.terminal import Spinner, Style, Terminal

FIRST = (State.FAIL, State.WARN)
"""The states of the rows that come first; the others are shown by ``--all``."""
STYLES = {State.OK: Style.GREEN, State.WARN: Style.YELLOW, State.FAIL: Style.RED, State.SKIPPED: Style.DIM}
NAME_WIDTH = 27
"""Columns for the names of checks."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the verb."""
    report.add_flag(parser)
    parser.add_argument("--all", action="store_true", help="show the checks that are ok or skipped too")
    flags.add(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the checks and print their results; return 0 if nothing must be fixed, else 1."""
    with (
        open_context(flags.environ(arguments)) as context,
        Spinner(Terminal.of(sys.stderr), "checking", wanted=not arguments.json),
    ):
        results = list(run_checks(context))
    failure = first_failure(results)
    if arguments.json:
        findings = [{**asdict(result), "state": result.state.value, "see": result.see} for result in results]
        report.write({"findings": findings, "change": failure.remedy if failure else None})
        return 1 if failure else 0
    terminal = Terminal.of(sys.stdout)
    for state in FIRST:
        show([result for result in results if result.state is state], terminal)
    others = [result for result in results if result.state not in FIRST]
    if arguments.all:
        show(others, terminal)
    else:
        good = sum(result.state is State.OK for result in others)
        skipped = f", {len(others) - good} skipped" if len(others) > good else ""
        terminal.line(f"{good} checks ok{skipped}; `imds-detourctl doctor --all` shows them", Style.DIM)
    terminal.line()
    if failure:
        terminal.line(f"Fix ({failure.name}): {failure.remedy}", Style.BOLD)
        return 1
    warning = next((result for result in results if result.state is State.WARN and result.remedy), None)
    if warning:
        terminal.line(f"worth a look ({warning.name}): {warning.remedy}", Style.YELLOW)
    terminal.line("all is well: imds-detour can start here", Style.GREEN)
    return 0


def first_failure(results: Sequence[CheckResult]) -> CheckResult | None:
    """Return the first failure; those after it may be its consequences."""
    return next((result for result in results if result.state is State.FAIL), None)


def show(results: Sequence[CheckResult], terminal: Terminal) -> None:
    """Print results, a row each."""
    for result in results:
        state = terminal.paint(f"{result.state.value:4}", STYLES[result.state])
        lead = f"{state}  {terminal.paint(f'{result.name:{NAME_WIDTH}}')}"
        terminal.row(lead, 6 + NAME_WIDTH, result.seen, *([Style.DIM] if result.state is State.SKIPPED else []))
        if result.see:
            terminal.row(" " * (6 + NAME_WIDTH), 6 + NAME_WIDTH, f"see {result.see}")
