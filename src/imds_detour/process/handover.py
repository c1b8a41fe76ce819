"""Exit on stop signals until the app starts, and then become the app in a process as it was at the start.

It has few imports, because PID 1 loses stop signals until the handlers are installed.
"""

from __future__ import annotations

import errno
import os

from imds_detour.lean import signal, start_thread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import FrameType
    from typing import NoReturn

    from imds_detour.process.command import Command

_NAMED = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM)
STOPS = frozenset((*_NAMED, *range(signal.SIGRTMIN, signal.SIGRTMAX + 1)))
"""Signals that people send to end a process. PID 1 without handlers ignores them."""
IGNORED_BY_PYTHON = frozenset({signal.SIGPIPE, signal.SIGXFSZ})
"""Signals that the interpreter ignores from its start; an app would inherit that."""
RESERVED = frozenset({32, 33})
"""Signals of glibc (nptl: SIGCANCEL, SIGSETXID): it hides them, and unblocks them at the first thread."""
SYS_RT_SIGPROCMASK = {("x86_64", 8): 14, ("aarch64", 8): 135}
"""System call numbers by machine and pointer size in bytes (asm/unistd_64.h, asm-generic/unistd.h)."""
LAUNCHED = "--launched="
"""The argument in which a launcher passes the signal masks that it was started with; see Inherited."""
GC_THRESHOLD = 100_000
"""New objects between two garbage collections. A start makes fewer."""


class Inherited:
    """The numbers of the signals that were blocked and ignored when this process started, for the app."""

    __slots__ = ("blocked", "ignored")

    def __init__(self, blocked: Iterable[int], ignored: Iterable[int]) -> None:
        self.blocked = frozenset(blocked)
        self.ignored = frozenset(ignored)

    @classmethod
    def from_argument(cls, argument: str) -> Inherited:
        """Read ``--launched=BLOCKED:IGNORED``: masks as in /proc/self/status, 16 digits, signal n is bit n-1."""
        masks = [int(mask, 16) for mask in argument.removeprefix(LAUNCHED).split(":")]
        return cls(*([number for number in range(1, 65) if mask >> number - 1 & 1] for mask in masks))

    @classmethod
    def from_process(cls) -> Inherited:
        """Read the masks of this process. It cannot show whether SIGPIPE and SIGXFSZ were ignored before Python."""
        ignored = {number for number in signal.valid_signals() if signal.getsignal(number) == signal.SIG_IGN}
        return cls(signal.pthread_sigmask(signal.SIG_BLOCK, ()), ignored - IGNORED_BY_PYTHON)

    def argument(self) -> str:
        """Return the argument for from_argument()."""
        blocked, ignored = (sum(1 << number - 1 for number in mask) for mask in (self.blocked, self.ignored))
        return f"{LAUNCHED}{blocked:016x}:{ignored:016x}"


def install_stop_handlers(inherited: Inherited) -> None:
    """Exit with status 128+n on a stop signal, also on a pending one. Ignored signals stay ignored."""
    for number in STOPS - inherited.ignored:
        signal.signal(number, _stop)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS - inherited.blocked)


def _stop(number: int, _frame: FrameType | None) -> NoReturn:
    os._exit(128 + number)


def start_stop_thread() -> None:
    """Start a thread that exits on stop signals too. Fork before that.

    Python's handlers run between two instructions. If a signal comes just before the main thread waits for a reply,
    its handler runs after the wait. Python also writes the signal to a pipe, which the thread reads. If no thread or
    descriptor is left, the handlers have to do.
    """
    try:
        reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(reader, True)
        start_thread(_await_stop, reader)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    except (OSError, RuntimeError):
        pass


def _await_stop(reader: int) -> None:
    try:
        number = os.read(reader, 1)[0]
    except OSError:  # a seccomp filter may forbid it
        return
    _stop(number, None)


def hold_closed_streams() -> None:
    """Open closed descriptors 0, 1 and 2, so that no file gets these numbers; exec closes them."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            # It gets the lowest free number, this one. O_PATH: reads and writes fail, as on a closed descriptor.
            os.open("/", os.O_PATH | os.O_CLOEXEC)


def changed_by_python() -> dict[bytes, bytes | None]:
    """Return the original LC_CTYPE, which the interpreter changes in the C locale (PEP 538)."""
    try:
        with open("/proc/self/environ", "rb") as environ:
            entries = environ.read().split(b"\0")
    except OSError:
        return {}
    original = next((entry[9:] for entry in entries if entry.startswith(b"LC_CTYPE=")), None)
    return {} if original == os.environb.get(b"LC_CTYPE") else {b"LC_CTYPE": original}


def relaunch(command: tuple[str, ...], arguments: list[str]) -> NoReturn:
    """Replace this interpreter by another, whose script gets ``--launched=`` and these arguments; no stop is lost."""
    inherited = Inherited.from_process()
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    _apply(changed_by_python())
    os.execv(command[0], (*command, inherited.argument(), *arguments))  # noqa: S606  (no shell)


def become(app: Command, inherited: Inherited, changes: Mapping[bytes, bytes | None]) -> NoReturn:
    """Replace this process by the app, without handlers, masks, descriptors or variables of imds-detour.

    ``changes`` are the app's new variables; None unsets one. All other entries of the environment stay byte by byte,
    even those that a dictionary cannot hold. A program that the kernel refuses is a DetourError with status 126 or 127.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    _apply(changes)
    for number in (STOPS | IGNORED_BY_PYTHON) - inherited.ignored:
        signal.signal(number, signal.SIG_DFL)
    if signal.SIGCHLD in signal.sigpending():  # the helpers', which was blocked at the start
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:  # the app has no children
            signal.sigtimedwait([signal.SIGCHLD], 0)
    # A stop signal that is pending now must not be lost, but PID 1 with default actions would lose it at the unblock.
    # One that was blocked at the start stays pending for the app.
    newly_blocked = STOPS - inherited.blocked
    for number in signal.sigpending() & newly_blocked - inherited.ignored:
        _stop(number, None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, newly_blocked)
    if reserved := RESERVED & inherited.blocked:
        import ctypes  # noqa: PLC0415  (costly to import; few starts need it)

        # Libc hides these signals, so by the system call, where its number is known.
        mask = ctypes.c_uint64(sum(1 << number - 1 for number in reserved))
        if call := SYS_RT_SIGPROCMASK.get((os.uname().machine, ctypes.sizeof(ctypes.c_void_p))):
            ctypes.CDLL(None).syscall(call, signal.SIG_BLOCK, ctypes.byref(mask), None, ctypes.sizeof(mask))
    try:
        os.execv(app.program, app.argv)  # noqa: S606  (no shell)
    except OSError as error:
        from imds_detour.process import command  # noqa: PLC0415  (only a failure needs it, and main has loaded it)

        if error.errno != errno.ENOEXEC or not command.is_text(app.program):
            error.filename = app.program
            raise command.refused(app.program, error) from error
    try:
        os.execv(b"/bin/sh", (b"/bin/sh", app.program, *app.argv[1:]))  # noqa: S606  (as execvp(3) does)
    except OSError as error:
        raise command.refused(app.program, error, by_shell=True) from None


def _apply(changes: Mapping[bytes, bytes | None]) -> None:
    for name, value in changes.items():
        if value is None:
            os.unsetenv(name)
        else:
            os.putenv(name, value)  # exec uses the C library's environment, not os.environ
