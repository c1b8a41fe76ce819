"""The main of imds-detourctl: one verb, one module, and only the module of the verb that was asked for is loaded."""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from importlib import import_module
from types import SimpleNamespace
from typing import TYPE_CHECKING, Protocol, cast

from imds_detour import __version__
from imds_detour.errors import DetourError
from imds_detour.log import Log

if TYPE_CHECKING:
    import argparse
    from collections.abc import Collection

VERBS = {
    "check": "ask through the metadata address now, and exit 0 if it is the mock that answers, else 1",
    "status": "say what of ours stands in this network namespace, and how often it was used",
    "doctor": "go through everything that a redirect needs, and end with the one thing to change",
    "init": "redirect once, verify, and end: no app is started",
    "sidecar": "redirect, and go on: follow the mock, close without it; for a container beside the app's",
    "plan": "print the rules that would be installed, and change nothing",
    "remove": "take out every rule and route of ours, and nothing else",
    "mock": "serve a small metadata mock, for development; for real work take amazon-ec2-metadata-mock or moto",
    "demo": "show the main job on this machine, without Docker",
    "completion": "print the completion script of a shell",
}
"""Each verb, a module of this package, and what it does."""

EPILOG = """\
`imds-detourctl VERB --help` tells more. The settings are those of imds-detour, by
environment (MOCK_HOSTNAME and so on) or by flag (--hostname and so on); a flag wins.
"""

OF_STDOUT = (errno.EPIPE, errno.ENOSPC)
"""What a write to stdout that cannot be done says, and nothing else that a verb does."""


class Verb(Protocol):
    """What a verb's module has."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the flags of the verb, and what more its --help shall say."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Do it and return the exit status."""


def main() -> int:
    """Run the verb on the command line and return its exit status."""
    asked = SimpleNamespace()
    _replace_closed_streams()
    try:
        status = _outcome(sys.argv[1:], asked)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130  # 128 + SIGINT, as a shell has it
    except OSError as error:  # stdout's: _outcome() lets no other pass
        # What is left in the buffer goes nowhere, or the interpreter would complain when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if error.errno == errno.EPIPE:
            return 141  # 128 + SIGPIPE: the reader has seen enough, as in `| head -1`
        return _failed(DetourError("output", f"cannot write to stdout: {error.strerror}"), asked)
    return status


def parser(load: Collection[str]) -> argparse.ArgumentParser:
    """Return the command line's parser, with the flags of the verbs in ``load``; the others are known by name."""
    import argparse  # noqa: PLC0415  (15 ms that a health check does not pay)

    whole = argparse.ArgumentParser(
        prog="imds-detourctl",
        usage="%(prog)s VERB [FLAG...]",
        description="The tool beside imds-detour: see, check, prepare and undo what it does to the metadata address.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    whole.add_argument("--version", action="version", version=f"imds-detourctl {__version__}")
    verbs = whole.add_subparsers(
        dest="verb", metavar="VERB [FLAG...]", required=True, title="verbs", prog="imds-detourctl"
    )
    for name, summary in VERBS.items():
        one = verbs.add_parser(
            name,
            usage="%(prog)s [FLAG...]",
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if name in load:
            verb(name).add_arguments(one)
    return whole


def verb(name: str) -> Verb:
    """Load the module of a verb."""
    return cast("Verb", import_module(f"imds_detour.ctl.commands.{name}"))


def _replace_closed_streams() -> None:
    """Let what is written to a stream that our caller has closed go nowhere, and no file of ours be taken for it."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
    # For as long as we live, and with the numbers that they would have.
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


def _outcome(words: list[str], asked: SimpleNamespace) -> int:
    """Run the verb, and return its exit status or that of its failure, which is one line then.

    ``asked`` takes the flags, as far as they make sense: one of them says how to report the failure.

    Raises:
        OSError: when a verb that writes more than a buffer holds cannot write to stdout.

    """
    try:
        return _run(words, cast("argparse.Namespace", asked))
    except DetourError as error:
        return _failed(error, asked)
    except OSError as error:
        if error.errno in OF_STDOUT:
            raise
        return _failed(DetourError("system", f"the system refuses: {error}"), asked)
    except Exception as error:  # a fault of ours is one line as well
        failure = DetourError("internal", f"unexpected {type(error).__name__}: {error}", "please report it")
        return _failed(failure, asked)


def _failed(error: DetourError, asked: SimpleNamespace) -> int:
    """Say what failed in the way that MOCK_LOG, or the flag for it, asks for, and return the exit status."""
    from imds_detour.config import settings  # noqa: PLC0415  (a health check that is well does not wait for it)
    from imds_detour.ctl import flags  # noqa: PLC0415  (likewise)

    log = "text"
    with suppress(DetourError):  # it makes no sense, which somebody else says
        log = settings.log_of(flags.environ(cast("argparse.Namespace", asked)))
    Log(log).failure(error)
    return error.status


def _run(words: list[str], asked: argparse.Namespace) -> int:
    if words == ["check"]:  # what a container's HEALTHCHECK runs every few seconds: there is nothing to parse
        return verb("check").run(asked)
    try:
        parser(words[:1]).parse_args(words, asked)  # only --help and --version can come before the verb
    except SystemExit as end:  # it has said what there was to say
        return int(end.code or 0)
    return verb(asked.verb).run(asked)


if __name__ == "__main__":
    sys.exit(main())
