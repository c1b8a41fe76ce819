"""Become the app: find its program, honour stop signals until then, and leave it the process as we found it."""

from __future__ import annotations

import errno
import os
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from imds_detour.errors import STATUS_CANNOT_EXECUTE, STATUS_NOT_FOUND, DetourError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

STOPS = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGTERM,
    *range(signal.SIGRTMIN, signal.SIGRTMAX + 1),
)
"""Signals that end a process by default and that people send. PID 1 without handlers does not even notice them."""

IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)
"""What the interpreter sets to ignored at its start, and an app would inherit."""

DEFAULT_PATH = "/bin:/usr/bin"
"""Where execvp(3) looks when PATH is not set (glibc's confstr _CS_PATH)."""


def honour_stops() -> tuple[int, ...]:
    """End at once, with status 128+n, on a stop signal; return those that now do so. Signals ignored so far stay so."""
    handled = tuple(
        number for number in STOPS if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler)
    )
    for number in handled:
        signal.signal(number, _stop)
    return handled


def _stop(number: int, _frame: FrameType | None) -> NoReturn:
    os._exit(128 + number)


@dataclass(frozen=True, slots=True)
class Command:
    """The app's command.

    Attributes:
        argv: as the user wrote it, byte by byte.
        program: the file to execute.

    """

    argv: tuple[bytes, ...]
    program: bytes


def command(arguments: Sequence[str], path: str | None) -> Command:
    """Find the program of a command, by the rules of execvp(3).

    Args:
        arguments: everything behind our own name; one leading ``--`` is taken off.
        path: the value of PATH, or None where it is not set.

    Raises:
        DetourError: status 125 without a command, 127 when the program is not there, 126 when it cannot be executed.

    """
    words = arguments[1:] if arguments[:1] == ["--"] else arguments
    if not words:
        raise DetourError(
            "command",
            "no command to run",
            "put it behind imds-detour, in CMD, or in Compose's `command:` (`entrypoint:` clears the image's CMD)",
        )
    name = words[0]
    folders = [""] if "/" in name else (DEFAULT_PATH if path is None else path).split(":")
    refused = b""
    for folder in folders if name else ():
        program = os.fsencode(f"{folder}/{name}" if folder else name)
        if os.path.isfile(program) and os.access(program, os.X_OK):
            return Command(tuple(os.fsencode(word) for word in words), program)
        if os.path.lexists(program):
            refused = refused or program
    if refused:
        raise _cannot_execute(refused, _why_not(refused))
    where = "" if "/" in name else " in PATH"
    raise DetourError(
        "command",
        f"command not found{where}: {name!r}",
        "correct it, or install it in the image",
        status=STATUS_NOT_FOUND,
    )


def _why_not(program: bytes) -> str:
    try:
        os.stat(program)
    except OSError as error:
        return (error.strerror or str(error)).lower()
    return "it is a directory" if os.path.isdir(program) else "it is not executable: `chmod +x` it"


def _cannot_execute(program: bytes, why: str) -> DetourError:
    return DetourError("command", f"cannot execute {os.fsdecode(program)!r}: {why}", status=STATUS_CANNOT_EXECUTE)


def become(app: Command, handled: Sequence[int], language: bytes | None) -> NoReturn:
    """Replace this process by the app. Nothing of ours is left: no handler, no mask, no descriptor, no variable.

    Args:
        app: what to run.
        handled: the signals that honour_stops() took.
        language: LC_CTYPE as we were started with; the interpreter may have set its own.

    Raises:
        DetourError: status 126 or 127, when the kernel does not take the program.

    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    # A stop that came before the block has been acted on by now; one that waits behind it is acted on here.
    for number in signal.sigpending() & set(handled):
        _stop(number, None)
    for number in (*handled, *IGNORED_BY_PYTHON):
        signal.signal(number, signal.SIG_DFL)
    if language is None:
        os.unsetenv(b"LC_CTYPE")
    elif language != os.environb.get(b"LC_CTYPE"):
        os.putenv(b"LC_CTYPE", language)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    try:
        os.execv(app.program, app.argv)  # noqa: S606  (no shell is the point)
    except OSError as error:
        if error.errno != errno.ENOEXEC:
            raise _translate(app, error) from None
    _run_script(app)


def _run_script(app: Command) -> NoReturn:
    """Run a file without "#!" by /bin/sh, as execvp(3) does; anything binary is for another machine."""
    head = _head(app.program)
    if head.startswith(b"\x7fELF") or b"\0" in head.partition(b"\n")[0]:
        hint = f"it is no program for this machine ({os.uname().machine}): was the image built for another platform?"
        raise _cannot_execute(app.program, hint)
    try:
        os.execv(b"/bin/sh", (b"/bin/sh", app.program, *app.argv[1:]))  # noqa: S606  (as execvp does)
    except OSError as error:
        raise _cannot_execute(app.program, f"it has no `#!` line, and /bin/sh: {error.strerror}") from None


def _translate(app: Command, error: OSError) -> DetourError:
    head = _head(app.program)
    if error.errno == errno.ENOENT and head.startswith(b"#!"):
        interpreter = os.fsdecode(head[2:].split(b"\n")[0].strip().split(b" ")[0])
        reason = f"cannot execute {os.fsdecode(app.program)!r}: its interpreter {interpreter!r} is not there"
        return DetourError("command", reason, "correct its first line, or install it", status=STATUS_NOT_FOUND)
    if error.errno == errno.ENOENT:
        reason = f"cannot execute {os.fsdecode(app.program)!r}: it, or the loader that it is linked to, is not there"
        return DetourError("command", reason, "was it built for another libc?", status=STATUS_NOT_FOUND)
    return _cannot_execute(app.program, (error.strerror or str(error)).lower())


def _head(program: bytes) -> bytes:
    try:
        with open(program, "rb") as file:
            return file.read(256)  # linux/binfmts.h: BINPRM_BUF_SIZE, as far as the kernel itself looks
    except OSError:
        return b""
