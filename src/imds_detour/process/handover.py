"""Exit on stop signals until the app runs, and then become the app, with the process as it was at the start.

Imports next to nothing: PID 1 ignores a stop signal that comes before the handlers are set.
"""

from __future__ import annotations

import errno
import gc
import os

from imds_detour.lean import signal, start_thread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import FrameType
    from typing import NoReturn

    from imds_detour.process.command import Command

STOPS = frozenset(
    {
        signal.SIGHUP,
        signal.SIGINT,
        signal.SIGQUIT,
        signal.SIGUSR1,
        signal.SIGUSR2,
        signal.SIGTERM,
        *range(signal.SIGRTMIN, signal.SIGRTMAX + 1),
    }
)
"""Signals that end a process by default and that people send. PID 1 without handlers ignores them."""
IGNORED_BY_PYTHON = frozenset({signal.SIGPIPE, signal.SIGXFSZ})
"""Signals that the interpreter ignores at its start, and that an app would then ignore too."""
RESERVED = frozenset({32, 33})
"""Signals that glibc reserves (nptl: SIGCANCEL, SIGSETXID): it hides them, and unblocks them with the first thread."""
SYS_RT_SIGPROCMASK = {("x86_64", 8): 14, ("aarch64", 8): 135}
"""System call numbers by machine and pointer size in bytes (asm/unistd_64.h, asm-generic/unistd.h)."""
LAUNCHED = "--launched="
"""The argument by which a launcher that blocked the stop signals passes the masks before that; see Inherited."""
FEW_COLLECTIONS = 100_000
"""New objects before Python looks for garbage. A start makes fewer, and leaves them all."""


class Inherited:
    """The signal masks that this process was started with, which the app gets: numbers of signals."""

    __slots__ = ("blocked", "ignored")

    def __init__(self, blocked: Iterable[int], ignored: Iterable[int]) -> None:
        self.blocked = frozenset(blocked)
        self.ignored = frozenset(ignored)

    @classmethod
    def from_argument(cls, argument: str) -> Inherited:
        """Read ``--launched=BLOCKED:IGNORED``, both as masks in /proc/self/status: 16 digits, signal n is bit n-1."""
        blocked, ignored = argument.removeprefix(LAUNCHED).split(":")
        return cls(_numbers(blocked), _numbers(ignored))

    @classmethod
    def from_process(cls) -> Inherited:
        """Read the masks of this process. Whether SIGPIPE and SIGXFSZ were ignored before Python, is unknown."""
        ignored = {number for number in signal.valid_signals() if signal.getsignal(number) == signal.SIG_IGN}
        return cls(signal.pthread_sigmask(signal.SIG_BLOCK, ()), ignored - IGNORED_BY_PYTHON)

    def argument(self) -> str:
        """Return the argument for from_argument()."""
        blocked, ignored = (sum(1 << number - 1 for number in mask) for mask in (self.blocked, self.ignored))
        return f"{LAUNCHED}{blocked:016x}:{ignored:016x}"


def _numbers(mask: str) -> list[int]:
    return [number for number in range(1, 65) if int(mask, 16) >> number - 1 & 1]


def install_stop_handlers(inherited: Inherited) -> None:
    """Exit with status 128+n on a stop signal, also on a pending one. Signals that are ignored stay ignored."""
    for number in STOPS - inherited.ignored:
        signal.signal(number, _stop)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS - inherited.blocked)


def _stop(number: int, _frame: FrameType | None) -> NoReturn:
    os._exit(128 + number)


def start_stop_thread() -> None:
    """Let a thread act on stop signals too. Fork before that.

    Python's handlers run between two instructions of Python. If a signal comes just before the main thread begins to
    wait for a reply, Python notes it, and runs the handler when the wait is over, perhaps ten seconds later. Python
    also writes such a signal to a pipe, and the thread waits at its other end. Without a thread or a descriptor, only
    the handlers act.
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
    except OSError:  # forbidden, by a seccomp filter perhaps: only the handlers act
        return
    _stop(number, None)


def raise_gc_threshold() -> None:
    """Let Python look for garbage less often (bench/NOTES.md)."""
    gc.set_threshold(FEW_COLLECTIONS)


def hold_closed_streams() -> None:
    """Keep 0, 1 and 2 from being used for other files if they are closed; at exec they are closed again."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            # Takes the lowest free number, which is this one. O_PATH: reading and writing fail, as on a closed one.
            os.open("/", os.O_PATH | os.O_CLOEXEC)


def changed_by_python() -> dict[bytes, bytes | None]:
    """Return what undoes the LC_CTYPE that the interpreter sets under the C locale (PEP 538)."""
    now = os.environb.get(b"LC_CTYPE")
    try:
        with open("/proc/self/environ", "rb") as environ:
            entries = environ.read().split(b"\0")
    except OSError:
        return {}
    before = next((entry[9:] for entry in entries if entry.startswith(b"LC_CTYPE=")), None)
    return {} if before == now else {b"LC_CTYPE": before}


def relaunch(interpreter: str, *words: str) -> NoReturn:
    """Replace this interpreter by another one, without losing a stop signal.

    It gets ``words[0]``, ``words[1]``, the ``--launched=`` argument, and the other words.
    """
    inherited = Inherited.from_process()
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    _apply(changed_by_python())
    option, script, *command = words
    os.execv(interpreter, (interpreter, option, script, inherited.argument(), *command))  # noqa: S606  (no shell)


def become(app: Command, inherited: Inherited, changes: Mapping[bytes, bytes | None]) -> NoReturn:
    """Replace this process by the app. No handler, mask, descriptor or variable of imds-detour remains.

    The app gets the inherited signal masks and the changed variables; None unsets one. All other entries of the
    environment stay byte by byte, also those that a dictionary cannot hold. Raises DetourError with status 126 or 127
    when the kernel refuses the program.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    _apply(changes)
    for number in (STOPS | IGNORED_BY_PYTHON) - inherited.ignored:
        signal.signal(number, signal.SIG_DFL)
    _clear_sigchld()
    # The handlers have acted on stops before the block. Those that are pending now are acted on here, as late as
    # possible: PID 1 with default actions would lose them when they are unblocked. Signals that were blocked at the
    # start may wait for the app.
    blocked_here = STOPS - inherited.blocked
    for number in signal.sigpending() & blocked_here - inherited.ignored:
        _stop(number, None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, blocked_here)
    if reserved := RESERVED & inherited.blocked:
        _block_reserved(reserved)
    _execute(app.program, app.argv)


def _block_reserved(reserved: frozenset[int]) -> None:
    """Block signals that libc hides, by the system call. On a machine without a known number they stay unblocked."""
    import ctypes  # noqa: PLC0415  (costly to import; next to no start needs it)

    mask = ctypes.c_uint64(sum(1 << number - 1 for number in reserved))
    if call := SYS_RT_SIGPROCMASK.get((os.uname().machine, ctypes.sizeof(ctypes.c_void_p))):
        ctypes.CDLL(None).syscall(call, signal.SIG_BLOCK, ctypes.byref(mask), None, ctypes.sizeof(mask))


def _apply(changes: Mapping[bytes, bytes | None]) -> None:
    for name, value in changes.items():
        if value is None:
            os.unsetenv(name)
        else:
            os.putenv(name, value)  # not os.environ, which is a copy: exec uses the C library's


def _clear_sigchld() -> None:
    """Clear the SIGCHLD of the helpers if it came blocked and is pending, unless the app has children."""
    if signal.SIGCHLD in signal.sigpending():
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            signal.sigtimedwait([signal.SIGCHLD], 0)


def _execute(program: bytes, argv: tuple[bytes, ...]) -> NoReturn:
    try:
        os.execv(program, argv)  # noqa: S606  (no shell)
    except OSError as error:
        failure = error
    from imds_detour.process import command  # noqa: PLC0415  (only a failure needs it, and main has loaded it)

    if failure.errno == errno.ENOEXEC and command.is_text(program):
        try:
            os.execv(b"/bin/sh", (b"/bin/sh", program, *argv[1:]))  # noqa: S606  (as execvp(3) does)
        except OSError as error:
            raise command.explain(program, error, by_shell=True) from None
    raise command.explain(program, failure)
