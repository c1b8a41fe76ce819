"""The main of imds-detour: wait for the mock, redirect, verify, give up NET_ADMIN, become the app."""

from __future__ import annotations

from imds_detour import handover

# First of all: PID 1 has no default actions, so a stop that comes before this line is lost.
HANDLED = handover.honour_stops()
handover.hold_closed_streams()

import os  # noqa: E402  (see above)
import sys  # noqa: E402
from contextlib import ExitStack  # noqa: E402
from math import inf  # noqa: E402
from typing import TYPE_CHECKING, NoReturn  # noqa: E402

from imds_detour import (  # noqa: E402
    __version__,
    backends,
    capabilities,
    command,
    discovery,
    routes,
    rules,
    settings,
    usage,
    verification,
)
from imds_detour.errors import STATUS_WRAPPER_FAILED, DetourError  # noqa: E402
from imds_detour.probe import Question  # noqa: E402
from imds_detour.report import Report  # noqa: E402
from imds_detour.waiting import Deadline  # noqa: E402

if TYPE_CHECKING:
    from imds_detour.backends import Firewall
    from imds_detour.rules import Rule
    from imds_detour.settings import Settings

LOCK_PATIENCE = 5.0
"""Seconds to wait for another writer of the firewall; an iptables command holds its lock for some milliseconds."""


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
        detour(chosen, report, program=app.argv[0].decode(errors="replace"))
        handover.become(app, HANDLED, language)
    except DetourError as error:
        report.failure(error)
        os._exit(error.status)
    except Exception as error:  # a fault of ours must not look like the app's, nor let the app start
        report.failure(DetourError("internal", f"unexpected {type(error).__name__}: {error}", "please report it"))
        os._exit(STATUS_WRAPPER_FAILED)


def detour(chosen: Settings, report: Report, program: str) -> None:
    """Do everything that comes before exec; undo it when a step fails.

    Raises:
        DetourError: when a step fails.

    """
    (preset,) = chosen.presets
    (endpoint,) = preset.endpoints
    question = Question(str(endpoint.address), chosen.path or preset.path, word=chosen.path is None)
    firewall = backends.start(chosen.backend)
    with ExitStack() as always, ExitStack() as undo:
        always.callback(firewall.close)
        guard = rules.guard([endpoint.address], firewall.layout) if chosen.guard else ()
        _install(firewall, "filter", guard, undo, report)
        if guard:
            report.step(f"guard: whatever goes to {endpoint.address} is refused from here on")
        mock = discovery.find(chosen, question, report)
        redirect = rules.Redirect(endpoint, mock.endpoint)
        if route := routes.needed(endpoint.address, mock.endpoint.address):
            undo.callback(routes.remove, route)
            routes.add(route)
            report.step(f"route: {route.to} over lo with source {route.source}; there was none that leads to the mock")
        _install(firewall, "nat", rules.redirects([redirect], firewall.layout), undo, report)
        report.step(f"redirect: {endpoint} -> {mock.endpoint}, {firewall.name}")
        verified = None
        if mock.identity is not None:
            verified = verification.verify(redirect, mock.identity, question, firewall, report)
            report.step(f"verified: {verified} answers at {endpoint}, by our rule")
        if not chosen.keep_net_admin:
            _give_up_net_admin(report)
        undo.pop_all()
    backend = f"{firewall.name} ({firewall.because})" if chosen.log == "debug" else firewall.name
    proof = f"verified {verified}" if verified else "not verified (MOCK_PROBE=off)"
    milliseconds = report.deadline.elapsed() * 1000
    report.success(
        f"{endpoint} -> {mock}, {backend}, {proof}, {milliseconds:.0f} ms; exec {program}",
        {
            "endpoint": str(endpoint),
            "mock": mock.name,
            "address": str(mock.endpoint),
            "backend": firewall.name,
            "verified": str(verified) if verified else None,
            "milliseconds": round(milliseconds, 1),
            "exec": program,
        },
    )


def _install(firewall: Firewall, table: str, wanted: tuple[Rule, ...], undo: ExitStack, report: Report) -> None:
    """Make these our rules in a table; should a later step fail, what they took the place of comes back."""
    before = firewall.apply(table, wanted, report.deadline.within(LOCK_PATIENCE))
    if before != wanted:
        undo.callback(_put_back, firewall, table, before, report)


def _put_back(firewall: Firewall, table: str, before: tuple[Rule, ...], report: Report) -> None:
    try:
        if table == "filter" and any(found.rule and found.rule.table == "nat" for found in firewall.installed()):
            return  # another start in this namespace has succeeded meanwhile: its app lives behind this guard too
        firewall.apply(table, before, LOCK_PATIENCE)
    except DetourError as error:
        # The guard, which came first, is what stands when nothing can be taken out: closed, not open.
        report.warning(f"our firewall rules could not be taken out: {error.reason}")


def _give_up_net_admin(report: Report) -> None:
    if not capabilities.within_reach(capabilities.NET_ADMIN):
        return
    from imds_detour import privileges  # noqa: PLC0415  (ctypes, 5 ms that MOCK_KEEP_NET_ADMIN=1 does not pay)

    if privileges.drop_net_admin():
        report.warning("NET_ADMIN given up by no_new_privs, for want of SETPCAP: set-uid programs have no effect")
    report.step("NET_ADMIN is given up")


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
