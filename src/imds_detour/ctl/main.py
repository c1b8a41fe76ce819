"""The entry point of imds-detourctl: each verb is a module, and only the verb on the command line is loaded."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from contextlib import suppress
from importlib import import_module
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, cast

from imds_detour import __version__
from imds_detour.errors import DetourError
from imds_detour.log import Log
from imds_detour.text import printable, quoted

if TYPE_CHECKING:
    import argparse
    from collections.abc import Collection

GROUPS = {
    "look": {
        "doctor": "check all that a redirect needs, and name the one thing to fix",
        "status": "show the rules in this network namespace, and their use",
        "check": "ask through the metadata address now; exit 0 if the mock answers",
        "plan": "print the rules that would be installed, and change nothing",
    },
    "do": {
        "init": "redirect once, verify, and exit; no app is started",
        "sidecar": "redirect, and follow the mock as a second container",
        "remove": "remove every rule and route of imds-detour, and nothing else",
    },
    "try": {
        "mock": "serve a small metadata mock for development",
        "demo": "show the main job on this machine, without Docker",
    },
    "set up": {
        "copy": "copy the bundle into a volume, for unmodified images",
        "completion": "print the completion script of a shell",
    },
}
"""Each verb, a module in commands, and what it does, in the groups of the help."""
VERBS = {verb: summary for verbs in GROUPS.values() for verb, summary in verbs.items()}

EPILOG = """\
The settings are those of imds-detour, by environment (MOCK_HOSTNAME and so on)
or by flag (--hostname and so on); a flag wins.

examples:
  imds-detourctl doctor --mock mock_metadata:1338
  imds-detourctl VERB --help
"""
FOLDER = os.path.dirname(os.path.abspath(__file__))
"""The folder of help/, with the end of each verb's help: requirements, examples, exit status."""
WIDTH = 80
"""Columns of the help, also on a wider terminal."""


def main() -> int:
    """Run the verb on the command line and return its exit status."""
    arguments = cast("argparse.Namespace", SimpleNamespace())  # a health check does without argparse
    _replace_closed_streams()
    try:
        status = _outcome(sys.argv[1:], arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130  # 128 + SIGINT, as in a shell
    except OSError as error:  # from a write to stdout: _outcome() raises no other
        # The rest of the buffer is discarded, or the interpreter would report an error when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if error.errno == errno.EPIPE:
            return 141  # 128 + SIGPIPE: the reader has closed, as in `| head -1`
        return _failed(DetourError("output", f"cannot write to stdout: {error.strerror}"), arguments)
    return status


def parser(load: Collection[str]) -> argparse.ArgumentParser:
    """Return the parser of the command line, with the flags of the verbs in ``load``; the others have only a name."""
    import argparse  # noqa: PLC0415  (costly to import; a health check does without)

    def formatter(prog: str) -> argparse.HelpFormatter:
        return argparse.RawDescriptionHelpFormatter(prog, width=min(shutil.get_terminal_size().columns, WIDTH) - 2)

    groups = (
        "".join((f"\n{title}:\n", *(f"  {verb:12}{summary}\n" for verb, summary in verbs.items())))
        for title, verbs in GROUPS.items()
    )
    whole = argparse.ArgumentParser(
        prog="imds-detourctl",
        usage="%(prog)s VERB [FLAG...]",
        description="See, check, prepare and undo what imds-detour does to the metadata address.\n" + "".join(groups),
        epilog=EPILOG,
        formatter_class=formatter,
    )
    whole.add_argument("--version", action="version", version=f"imds-detourctl {__version__}", help="print the version")
    # The description lists the verbs.
    verbs = whole.add_subparsers(dest="verb", metavar="VERB", required=True, prog=whole.prog, help=argparse.SUPPRESS)
    for name, summary in VERBS.items():
        command = verbs.add_parser(
            name,
            usage="%(prog)s [FLAG...]",
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            formatter_class=formatter,
        )
        command.set_defaults(parser=command)
        if name in load:
            verb(name).add_arguments(command)
            with open(f"{FOLDER}/help/{name}.txt", encoding="utf-8") as end:
                command.epilog = end.read()
    return whole


def verb(name: str) -> ModuleType:
    """Import a verb's module: add_arguments() adds its flags to a parser, run() returns the exit status."""
    return import_module(f"imds_detour.ctl.commands.{name}")


def _replace_closed_streams() -> None:
    """Open /dev/null for each closed standard stream, so that no other file gets its number."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
    # Until the process ends.
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


def _outcome(words: list[str], arguments: argparse.Namespace) -> int:
    """Run the verb, and return its exit status; a failure is one line.

    ``arguments`` receives the flags, as far as they are valid: one of them is the format of failures.

    Raises OSError when stdout cannot be written to.
    """
    try:
        if words == ["check"]:  # a container's HEALTHCHECK runs this every few seconds: there is nothing to parse
            arguments.verb = "check"
        else:
            _parse(words, arguments)
        return int(verb(arguments.verb).run(arguments))
    except SystemExit as end:  # argparse has printed its message
        return int(end.code or 0)
    except DetourError as error:
        failure = error
    except OSError as error:
        if error.errno in (errno.EPIPE, errno.ENOSPC):  # a failed write to stdout, and nothing else that a verb does
            raise
        failure = DetourError("system", f"the system refuses: {error}")
    except Exception as error:  # a bug is one line too
        failure = DetourError("internal", f"unexpected {type(error).__name__}: {error}", "please report it")
    with suppress(Exception):  # it is reported as it is, if the system refuses more
        from imds_detour.advice.failure import complete_for_verb  # noqa: PLC0415  (a verb that succeeds does without)

        complete_for_verb(failure, words)
    status = _failed(failure, arguments)
    if getattr(arguments, "json", False):
        import_module("imds_detour.ctl.report").write_failure(failure)
    return status


def _parse(words: list[str], arguments: argparse.Namespace) -> None:
    """Parse the command line; SystemExit after the help, or after a message on the first word that is not valid."""
    from imds_detour.advice.values import did_you_mean  # noqa: PLC0415  (a health check does without)

    commands = parser(words[:1])
    if words and words[0] not in VERBS and not words[0].startswith("-"):
        hint = did_you_mean(words[0].lower(), VERBS) or "`imds-detourctl --help` lists the verbs"
        commands.error(f"{quoted(words[0])} is no verb: {hint}")
    rest = commands.parse_known_args(words, arguments)[1]
    if rest and words[0].startswith("-"):  # only --help and --version can come before the verb
        commands.error(f"{quoted(rest[0])} is before the verb: write `imds-detourctl VERB {printable(rest[0])}`")
    if rest:
        word, known = rest[0].partition("=")[0], arguments.parser._option_string_actions  # noqa: SLF001  (no other list)
        hint = did_you_mean(word.lower(), known) or f"`imds-detourctl {arguments.verb} --help` lists its flags"
        arguments.parser.error(f"{quoted(word)} is no flag of {arguments.verb}: {hint}")


def _failed(error: DetourError, arguments: argparse.Namespace) -> int:
    """Report a failure in the format of MOCK_LOG, or of the flag for it, and return the exit status."""
    from imds_detour.config import settings  # noqa: PLC0415  (a healthy check does without)
    from imds_detour.ctl import flags  # noqa: PLC0415  (likewise)

    log = "text"
    with suppress(DetourError):  # not valid: then that is the failure
        log = settings.log_of(flags.environ(arguments))
    Log(log).failure(error)
    return error.status


if __name__ == "__main__":
    sys.exit(main())
