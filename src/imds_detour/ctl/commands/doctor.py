"""imds-detourctl doctor: check everything that a redirect needs, and name the one thing to fix."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

from imds_detour.ctl import flags
from imds_detour.ctl.doctor import run_checks
from imds_detour.ctl.doctor.context import open_context
from imds_detour.ctl.doctor.result import CheckResult, State
from imds_detour.ctl.terminal import Spinner, Style, Terminal

STYLES = {State.OK: Style.GREEN, State.WARN: Style.YELLOW, State.FAIL: Style.RED, State.SKIPPED: Style.DIM}
NAME_WIDTH = 27
"""Columns for the names of checks."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the verb."""
    parser.epilog = (
        "Writes no rule, route or file; the kernel may load its modules. Run it where the app\n"
        "runs, with the app's settings, for example\n"
        "  docker compose run --rm --entrypoint /opt/imds-detour/bin/imds-detourctl SERVICE doctor\n\n"
        "exit status: 0 if all is well, 1 if something must be fixed.\n"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text, for programs")
    flags.add(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the checks and print their results; return 0 if nothing must be fixed, else 1."""
    terminal, results = Terminal.of(sys.stdout), []
    with (
        open_context(flags.environ(arguments)) as context,
        Spinner(Terminal.of(sys.stderr), "looking", wanted=not arguments.json) as spinner,
    ):
        for result in run_checks(context):
            results.append(result)
            if not arguments.json:
                with spinner.aside():
                    show(result, terminal)
    failure = first_failure(results)
    if arguments.json:
        findings = [{**asdict(result), "state": result.state.value, "see": result.see} for result in results]
        change = failure.remedy if failure else None
        sys.stdout.write(json.dumps({"schema": 1, "findings": findings, "change": change}) + "\n")
        return 1 if failure else 0
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


def show(result: CheckResult, terminal: Terminal) -> None:
    """Print one result."""
    state = terminal.paint(f"{result.state.value:4}", STYLES[result.state])
    seen = terminal.paint(result.seen, *([Style.DIM] if result.state is State.SKIPPED else []))
    see = f"{'':{NAME_WIDTH + 6}}see {result.see}\n" if result.see else ""
    terminal.stream.write(f"{state}  {terminal.paint(f'{result.name:{NAME_WIDTH}}')}{seen}\n{see}")
    terminal.stream.flush()
