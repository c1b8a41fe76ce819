"""The main of imds-detour: wait for the mock, redirect, verify, drop NET_ADMIN, become the app."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

from imds_detour import __version__
from imds_detour.config import settings as config
from imds_detour.deadline import Deadline
from imds_detour.errors import STATUS_WRAPPER_FAILED, DetourError
from imds_detour.firewall.select import FirewallSelector
from imds_detour.log import Log
from imds_detour.process import command, handover

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from imds_detour.process.accounts import Account
    from imds_detour.result import Redirected

Changes = dict[bytes, bytes | None]


def main(inherited: handover.Inherited, changes: Changes) -> NoReturn:
    """Become the app, with these signal masks and variables (None unsets one), or exit with the wrapper's status."""
    arguments = sys.argv[1:]
    if arguments == ["--help"]:
        from imds_detour.advice import usage  # noqa: PLC0415  (a start does without)

        _print(usage.text())
    if arguments == ["--version"]:
        _print(f"imds-detour {__version__}\n")
    log = Log("text")
    redirected = False
    account: Account | None = None
    home: Changes = {}
    try:
        log.format = config.log_of(os.environ)
        settings = config.parse(os.environ)
        app = command.find(arguments, os.environ.get("PATH"))
        if settings.user is not None:
            from imds_detour.process import users  # noqa: PLC0415  (only MOCK_USER needs it)

            account, home = users.prepare(settings.user, os.environ.get("HOME"))
        deadline = Deadline(settings.timeout, start=log.since.start)
        for name in config.unknown(os.environ):
            from imds_detour.advice.values import unknown  # noqa: PLC0415  (only a typo needs it)

            log.warning(f"{unknown(name)}; `imds-detour --help` lists them")
        result = _setup(settings, deadline, log)
        redirected = settings.backend != "env"
        changes = {**changes, **home, **_environment_changes(settings, result, log)}
        if account is not None:
            _switch(account, log)
            app = command.find(arguments, os.environ.get("PATH"))  # root may execute files that the user may not
        _announce(result, log, app.argv[0].decode(errors="replace"), account)
        handover.become(app, inherited, changes)
    except DetourError as error:
        failure = error
    except ImportError as error:
        remedy = "install imds-detour again, for this Python and architecture, or raise the limit that this text names"
        failure = DetourError("system", f"a module cannot be loaded: {error}", remedy)
    except (OSError, MemoryError) as error:  # the system may refuse these to every program
        reason = f"the system refuses what every start needs: {str(error) or type(error).__name__}"
        failure = DetourError("system", reason, "look at the container's limits on memory, files and processes")
    except Exception as error:  # a bug here must not look like the app's failure, nor let the app start
        failure = DetourError("internal", f"unexpected {type(error).__name__}: {error}", "please report it")
    if redirected and failure.status == STATUS_WRAPPER_FAILED:  # a command's own fault needs no such line
        log.warning("the firewall rules of this start stay in this network namespace")
    _fail(failure, arguments, log)


def _fail(failure: DetourError, arguments: list[str], log: Log) -> NoReturn:
    with suppress(Exception):  # without memory or a file, it is reported as it is
        from imds_detour.advice.failure import complete  # noqa: PLC0415  (a start that succeeds does without)

        complete(failure, arguments)
    log.failure(failure)
    os._exit(failure.status)


def _setup(settings: config.Settings, deadline: Deadline, log: Log) -> Redirected:
    if settings.backend == "env":
        handover.start_stop_thread()
        from imds_detour import env_backend, result  # noqa: PLC0415  (as below)

        # Nothing is changed in the namespace, so it may be the host's.
        return env_backend.setup(settings, result.inspect(settings, host=True), deadline, log)
    # A helper for IPv6 is forked only if a mock has an IPv6 address, or nftables cannot guard it.
    with FirewallSelector(settings.backend, (4,), deadline.remaining) as selector:
        selector.start()
        handover.start_stop_thread()  # a thread, so after the helper is forked
        from imds_detour import redirect, result  # noqa: PLC0415  (its imports take as long as the helper's, on another core)

        return redirect.setup(settings, result.inspect(settings), selector, deadline, log)


def _environment_changes(settings: config.Settings, result: Redirected, log: Log) -> Changes:
    from imds_detour.process import environment  # noqa: PLC0415  (it imports what setup() has loaded)

    changes, warnings = environment.changes(settings, result, os.environ)
    for warning in warnings:
        log.warning(warning)
    return {os.fsencode(name): None if value is None else os.fsencode(value) for name, value in changes.items()}


def _switch(account: Account, log: Log) -> None:
    from imds_detour.process import users  # noqa: PLC0415  (only MOCK_USER needs it)

    if log.format == "json":
        import json  # noqa: F401, PLC0415  (the user may not be able to read its file)
    for stream in users.switch(account):
        log.warning(f"descriptor {stream} stays root's: /dev/stdout and the like may fail; add CHOWN")
    log.step(f"user: this process is {account} from now on")


def _announce(result: Redirected, log: Log, program: str, account: Account | None) -> None:
    milliseconds = log.since.elapsed() * 1000
    text = f"{result.line(with_reason=log.format == 'debug')}, {milliseconds:.0f} ms; exec {program}"
    facts = {**result.facts(), "milliseconds": round(milliseconds, 1), "exec": program}
    if account:
        text, facts["user"] = f"{text} as {account}", str(account)
    log.success(text, facts)


def _print(text: str) -> NoReturn:
    try:
        os.write(1, text.encode())
    except OSError:  # stdout is closed or full
        sys.exit(STATUS_WRAPPER_FAILED)
    sys.exit()
