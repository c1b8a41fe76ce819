"""The main of imds-detour: wait for the mock, redirect, verify, give up NET_ADMIN, become the app."""

from __future__ import annotations

import os
import sys
from math import inf

from imds_detour import __version__
from imds_detour.config import settings
from imds_detour.deadline import Deadline
from imds_detour.errors import STATUS_WRAPPER_FAILED, DetourError
from imds_detour.firewall import select
from imds_detour.log import Log
from imds_detour.process import command, handover

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from imds_detour.config.settings import Settings
    from imds_detour.firewall.iptables.helpers import HeadStart
    from imds_detour.process.accounts import Account
    from imds_detour.result import Redirected


def main(inherited: handover.Inherited, changes: dict[bytes, bytes | None], head_start: HeadStart) -> NoReturn:
    """Run the app behind the detour; returns never, by exec or with the wrapper's own exit status.

    Whoever calls honours stop signals and holds closed streams already: importing this module takes its time.

    Args:
        inherited: the signal masks that the app shall find.
        changes: what takes back what starting this interpreter did to the environment.
        head_start: the helpers of legacy iptables, which are loading already.

    """
    arguments = sys.argv[1:]
    if arguments in (["--help"], ["--version"]):
        from imds_detour import usage  # noqa: PLC0415  (0.2 ms that an app does not pay)

        _tell(usage.text() if arguments == ["--help"] else f"imds-detour {__version__}\n")
    log = Log("text", Deadline(inf))
    standing = False
    try:
        log.format = settings.log_of(os.environ)
        chosen = settings.parse(os.environ)
        app = command.find(arguments, os.environ.get("PATH"))
        account, home = _account(chosen)
        log.deadline = Deadline(chosen.timeout, start=log.deadline.start)
        for name in settings.unknown(os.environ):
            log.warning(f"{name} is not a setting of ours{settings.similar(name)}; `imds-detour --help` lists them")
        done = _take(chosen, log, head_start)
        standing = chosen.backend != "env"
        from imds_detour.process import environment  # noqa: PLC0415  (it imports what _take() imports late)

        ours, told = environment.changes(chosen, done, os.environ)
        changes = {**changes, **home, **{os.fsencode(name): _encoded(value) for name, value in ours.items()}}
        for line in told:
            log.warning(line)
        if account is not None:
            _switch(account, log)
            app = command.find(arguments, os.environ.get("PATH"))  # what root may execute, the user may not
        _announce(done, log, app.argv[0].decode(errors="replace"), account)
        handover.become(app, inherited, changes)
    except DetourError as error:
        _fail(error, log, head_start, standing=standing)
    except (OSError, MemoryError, ImportError) as error:  # every program is refused these things sooner or later
        reason = f"the system refuses what every start needs: {str(error) or type(error).__name__}"
        remedy = "look at the container's limits on memory, files and processes"
        _fail(DetourError("system", reason, remedy), log, head_start, standing=standing)
    except Exception as error:  # a fault of ours must not look like the app's, nor let the app start
        reason = f"unexpected {type(error).__name__}: {error}"
        _fail(DetourError("internal", reason, "please report it"), log, head_start, standing=standing)


def _fail(error: DetourError, log: Log, head_start: HeadStart, *, standing: bool) -> NoReturn:
    if standing and error.status == STATUS_WRAPPER_FAILED:  # a command's own fault is told in its own line alone
        log.warning("our firewall rules stay in this network namespace")
    log.failure(error)
    head_start.give_up()
    os._exit(error.status)


def _encoded(value: str | None) -> bytes | None:
    return None if value is None else os.fsencode(value)


def _take(chosen: Settings, log: Log, head_start: HeadStart) -> Redirected:
    if chosen.backend == "env":
        from imds_detour import env_backend  # noqa: PLC0415  (as below)

        return env_backend.take(chosen, log)
    candidates = select.Candidates(chosen.backend, head_start.take, log.deadline.remaining)
    from imds_detour import redirect  # noqa: PLC0415  (MOCK_BACKEND=env goes without)

    return redirect.take(chosen, log, candidates=candidates)


def _account(chosen: Settings) -> tuple[Account | None, dict[bytes, bytes | None]]:
    """Find whom the app shall run as, and the HOME that goes with it."""
    if chosen.user is None:
        return None, {}
    from imds_detour.process import users  # noqa: PLC0415  (1 ms that only MOCK_USER pays)

    account = users.prepare(chosen.user)
    return account, users.home_change(account, os.environ.get("HOME"))


def _switch(account: Account, log: Log) -> None:
    from imds_detour.process import users  # noqa: PLC0415  (it is loaded)

    if log.format == "json":
        import json  # noqa: F401, PLC0415  (its file may be out of the user's reach once we have switched)
    for stream in users.switch(account):
        log.warning(f"descriptor {stream} stays root's: /dev/stdout and the like may fail; add CHOWN")
    log.step(f"user: this process is {account} from here on")


def _announce(done: Redirected, log: Log, program: str, account: Account | None) -> None:
    milliseconds = log.deadline.elapsed() * 1000
    user = f" as {account}" if account else ""
    log.success(
        f"{done.line(why=log.format == 'debug')}, {milliseconds:.0f} ms; exec {program}{user}",
        {
            **done.facts(),
            "milliseconds": round(milliseconds, 1),
            "exec": program,
            **({"user": str(account)} if user else {}),
        },
    )


def _tell(text: str) -> NoReturn:
    try:
        os.write(1, text.encode())
    except OSError:  # stdout is closed or full
        sys.exit(STATUS_WRAPPER_FAILED)
    sys.exit()
