"""Become the app: honour stop signals until then, and leave it the process as we found it.

Imports next to nothing: the sooner it is there, the shorter the time in which PID 1 does not notice a stop signal.
"""

from __future__ import annotations

import errno
import gc
import os

from imds_detour.lean import signal, start_thread

TYPE_CHECKING = False  # importing typing for it would cost as much as all of the above
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
"""Signals that end a process by default and that people send. PID 1 without handlers does not even notice them."""

IGNORED_BY_PYTHON = frozenset({signal.SIGPIPE, signal.SIGXFSZ})
"""What the interpreter sets to ignored at its start, and an app would inherit."""

RESERVED = frozenset({32, 33})
"""Signals that glibc keeps to itself (nptl: SIGCANCEL, SIGSETXID): it hides them, and lets them through with the first
thread that is started."""
SYS_RT_SIGPROCMASK = {"x86_64": 14, "aarch64": 135}
"""The number of that system call (asm/unistd_64.h, asm-generic/unistd.h)."""

LAUNCHED = "--launched="
"""How whoever blocked the stop signals before this interpreter began says what it had found; see Inherited."""


class Inherited:
    """The signal masks that this process was started with, which are the app's to have.

    Attributes:
        blocked: the numbers of the blocked signals.
        ignored: the numbers of the ignored signals.

    """

    __slots__ = ("blocked", "ignored")

    def __init__(self, blocked: Iterable[int], ignored: Iterable[int]) -> None:
        self.blocked = frozenset(blocked)
        self.ignored = frozenset(ignored)

    @classmethod
    def from_argument(cls, argument: str) -> Inherited:
        """Read ``--launched=BLOCKED:IGNORED``, both as /proc/self/status writes masks: 16 digits, signal n is bit n-1.

        Raises:
            ValueError: when it is not of that form.

        """
        blocked, ignored = argument.removeprefix(LAUNCHED).split(":")
        return cls(_numbers(blocked), _numbers(ignored))

    @classmethod
    def here(cls) -> Inherited:
        """Look at this process. Whether SIGPIPE and SIGXFSZ were ignored before Python ignored them, nobody knows."""
        ignored = {number for number in signal.valid_signals() if signal.getsignal(number) == signal.SIG_IGN}
        return cls(signal.pthread_sigmask(signal.SIG_BLOCK, ()), ignored - IGNORED_BY_PYTHON)

    def argument(self) -> str:
        """Return what from_argument() reads."""
        blocked, ignored = (sum(1 << number - 1 for number in mask) for mask in (self.blocked, self.ignored))
        return f"{LAUNCHED}{blocked:016x}:{ignored:016x}"


def _numbers(mask: str) -> list[int]:
    return [number for number in range(1, 65) if int(mask, 16) >> number - 1 & 1]


def honour_stops(inherited: Inherited) -> None:
    """End at once, with status 128+n, on a stop signal, also one that waits already. Signals ignored so far stay so."""
    for number in STOPS - inherited.ignored:
        signal.signal(number, _stop)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS - inherited.blocked)


def _stop(number: int, _frame: FrameType | None) -> NoReturn:
    os._exit(128 + number)


def watch_for_stops() -> None:
    """Let a thread act on stop signals too, once nobody forks any more.

    Python's handlers run between two instructions of Python. A signal that comes just before the main thread begins to
    wait for a reply is noted by C and acted on when the wait is over, which may be ten seconds later. What C notes also
    goes into a pipe, and at its other end somebody waits for nothing else. Where there is no thread or no descriptor
    to be had, the handlers alone must do.
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
    except OSError:  # refused (a seccomp filter?): the handlers alone must do, as above
        return
    _stop(number, None)


def tidy_up_later() -> None:
    """Let Python look for garbage after 100,000 new objects instead of 700: a start makes less, and leaves it all."""
    gc.set_threshold(100_000)  # 7 % of a start


def hold_closed_streams() -> None:
    """Keep 0, 1 and 2 from being taken by files of ours where they are closed; at exec they are closed again."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number, which is this one. O_PATH: reading and writing fail, as on a closed one.
            os.open("/", os.O_PATH | os.O_CLOEXEC)


def changed_by_python() -> dict[bytes, bytes | None]:
    """Return what takes back the LC_CTYPE that the interpreter sets for itself under the C locale (PEP 538)."""
    now = os.environb.get(b"LC_CTYPE")
    try:
        with open("/proc/self/environ", "rb") as start:
            entries = start.read().split(b"\0")
    except OSError:
        return {}
    before = next((entry[9:] for entry in entries if entry.startswith(b"LC_CTYPE=")), None)
    return {} if before == now else {b"LC_CTYPE": before}


def relaunch(interpreter: str, *words: str) -> NoReturn:
    """Start another interpreter in this one's place, to which no stop signal is lost; the rest is the app's.

    It gets ``words[0]``, ``words[1]``, our ``--launched=`` argument, and the further words.
    """
    inherited = Inherited.here()
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    _apply(changed_by_python())
    option, script, *command = words
    os.execv(interpreter, (interpreter, option, script, inherited.argument(), *command))  # noqa: S606  (no shell)


def become(app: Command, inherited: Inherited, changes: Mapping[bytes, bytes | None]) -> NoReturn:
    """Replace this process by the app. Nothing of ours is left: no handler, no mask, no descriptor, no variable.

    Args:
        app: what to run.
        inherited: the masks that it shall find.
        changes: the variables that it shall find other than we did; None is for none. All other entries of the
            environment stay byte by byte, also those that no dictionary can hold.

    Raises:
        DetourError: status 126 or 127, when the kernel does not take the program.

    """
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    _apply(changes)
    for number in (STOPS | IGNORED_BY_PYTHON) - inherited.ignored:
        signal.signal(number, signal.SIG_DFL)
    _take_back_sigchld()
    # A stop that came before the block has been acted on by now; one that waits behind it is acted on here, as late as
    # can be: as PID 1, with the default action back, the next line would lose it. What had been blocked before us may
    # wait for the app.
    ours = STOPS - inherited.blocked
    for number in signal.sigpending() & ours - inherited.ignored:
        _stop(number, None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ours)
    if reserved := RESERVED & inherited.blocked:
        _block_again(reserved)
    _execute(app.program, app.argv)


def _block_again(reserved: frozenset[int]) -> None:
    """Block signals behind libc's back."""
    import ctypes  # noqa: PLC0415  (2 ms that next to nobody pays)

    mask = ctypes.c_uint64(sum(1 << number - 1 for number in reserved))
    if call := SYS_RT_SIGPROCMASK.get(os.uname().machine):
        ctypes.CDLL(None).syscall(call, signal.SIG_BLOCK, ctypes.byref(mask), None, ctypes.sizeof(mask))


def _apply(changes: Mapping[bytes, bytes | None]) -> None:
    for name, value in changes.items():
        if value is None:
            os.unsetenv(name)
        else:
            os.putenv(name, value)  # behind os.environ's back: it is a copy, and exec takes what the C library has


def _take_back_sigchld() -> None:
    """Remove what the end of our helper leaves pending where SIGCHLD came blocked, unless the app has children."""
    if signal.SIGCHLD in signal.sigpending():
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            signal.sigtimedwait([signal.SIGCHLD], 0)


def _execute(program: bytes, argv: tuple[bytes, ...]) -> NoReturn:
    try:
        os.execv(program, argv)  # noqa: S606  (no shell is the point)
    except OSError as error:
        failure = error
    from imds_detour.process import command  # noqa: PLC0415  (it is loaded: the program was found by it)

    if failure.errno == errno.ENOEXEC and command.is_text(program):
        try:
            os.execv(b"/bin/sh", (b"/bin/sh", program, *argv[1:]))  # noqa: S606  (as execvp(3) does)
        except OSError as error:
            raise command.explain(program, error, by_shell=True) from None
    raise command.explain(program, failure)
