"""The main of imds-detour: wait for the mock, redirect, verify, give up NET_ADMIN, become the app."""

from __future__ import annotations

from imds_detour import handover

# First of all: PID 1 has no default actions, so a stop that comes before this line is lost.
HANDLED = handover.honour_stops()
handover.hold_closed_streams()

import os  # noqa: E402  (see above)
import sys  # noqa: E402
from math import inf  # noqa: E402
from typing import NoReturn  # noqa: E402

from imds_detour import __version__, app_environment, command, detour, endpoint_variables, settings, usage  # noqa: E402
from imds_detour.errors import STATUS_WRAPPER_FAILED, DetourError  # noqa: E402
from imds_detour.report import Report  # noqa: E402
from imds_detour.waiting import Deadline  # noqa: E402


def main() -> NoReturn:
    """Run the app behind the detour; returns never, by exec or with the wrapper's own exit status."""
    language = _language()
    arguments = sys.argv[1:]
    if arguments in (["--help"], ["--version"]):
        _tell(usage.text() if arguments == ["--help"] else f"imds-detour {__version__}\n")
    report = Report("text", Deadline(inf))
    try:
        report.log = settings.log_of(os.environ)
        chosen = settings.parse(os.environ)
        app = command.find(arguments, os.environ.get("PATH"))
        report.deadline = Deadline(chosen.timeout, start=report.deadline.start)
        for name in settings.unknown(os.environ):
            report.warning(f"{name} is not a setting of ours{settings.similar(name)}; `imds-detour --help` lists them")
        done = (endpoint_variables if chosen.backend == "env" else detour).take(chosen, report)
        changes, told = app_environment.changes(chosen, done, os.environ)
        for line in told:
            report.warning(line)
        _announce(done, report, program=app.argv[0].decode(errors="replace"))
        ours = {os.fsencode(name): None if value is None else os.fsencode(value) for name, value in changes.items()}
        handover.become(app, HANDLED, {b"LC_CTYPE": language, **ours})
    except DetourError as error:
        report.failure(error)
        os._exit(error.status)
    except Exception as error:  # a fault of ours must not look like the app's, nor let the app start
        report.failure(DetourError("internal", f"unexpected {type(error).__name__}: {error}", "please report it"))
        os._exit(STATUS_WRAPPER_FAILED)


def _announce(done: detour.Detour, report: Report, program: str) -> None:
    milliseconds = report.deadline.elapsed() * 1000
    because = f" ({done.because})" if report.log == "debug" else ""
    report.success(
        f"{done}{because}, {milliseconds:.0f} ms; exec {program}",
        {**done.facts(), "milliseconds": round(milliseconds, 1), "exec": program},
    )


def _tell(text: str) -> NoReturn:
    try:
        os.write(1, text.encode())
    except OSError:  # stdout is closed or full
        sys.exit(STATUS_WRAPPER_FAILED)
    sys.exit()


def _language() -> bytes | None:
    """Return LC_CTYPE as we were started with it: under the C locale the interpreter sets its own (PEP 538)."""
    try:
        with open("/proc/self/environ", "rb") as start:
            entries = start.read().split(b"\0")
    except OSError:
        return os.environb.get(b"LC_CTYPE")
    return next((entry[9:] for entry in entries if entry.startswith(b"LC_CTYPE=")), None)
