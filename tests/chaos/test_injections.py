"""System calls that fail, one at a time, from our first line to the app's: strace answers in the kernel's place.

A start stops before its first line until strace is there. It counts the calls of each thread and process by name, from
that line on; with children, each of them meets the failure at its own call of that number, as the wrapper does.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest

from tests.chaos.cases import RIGHT, Case
from tests.chaos.contract import ANY_USERS_APP, Ended
from tests.chaos.test_campaign import server
from tests.support.faults.injection import Injection, calls_made, failed, strace
from tests.support.hosts.cloud import BACKENDS, LONG
from tests.support.hosts.network import FAULTY_DNS, MOCK, NAME
from tests.support.marks import first_quick

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from tests.chaos.contract import Judge

ANY = ("ENOMEM", "EMFILE", "ENOSPC", "EPERM", "EINTR")
"""What each call is made to fail with: the kernel means some of them never, a seccomp filter may say any."""


@dataclass(frozen=True, slots=True)
class Start:
    """A start that makes certain calls.

    Attributes:
        calls: the calls that are failed in it, and what they may fail with beside ANY.
        settings: MOCK_* and other variables.
        backends: the firewalls with which it makes them.
        prefix: a command that runs it.
        beside: an injection without which it would not make them.
        dns: the plan of the DNS server (tests/support/servers/faulty_dns.py); empty for nobody.

    """

    calls: Mapping[str, tuple[str, ...]]
    settings: Mapping[str, str] = field(default_factory=dict)
    backends: tuple[str, ...] = BACKENDS
    prefix: tuple[str, ...] = ()
    beside: tuple[Injection, ...] = ()
    dns: tuple[str, ...] = ()


HELPERS = {
    "clone": ("EAGAIN",),
    "socketpair": ("ENFILE",),
    "memfd_create": ("ENFILE", "ENOSYS"),
    "wait4": ("ECHILD",),
    "shutdown": ("ENOTCONN",),
    "dup2": ("EBADF", "EBUSY"),
    "statfs": ("EIO", "ENOSYS"),
    "mremap": ("EFAULT",),
    "setsockopt": ("EINVAL", "EAGAIN", "ENOPROTOOPT"),
}
"""Calls that are made for the helpers of legacy iptables, or by them."""
EVERYWHERE = {
    "openat": ("ENFILE", "EACCES", "ENOENT", "ELOOP", "EIO"),
    "read": ("EIO", "EISDIR"),
    "write": ("EPIPE", "EIO", "EAGAIN", "EFBIG"),
    "close": ("EIO", "EBADF"),
    "mmap": ("EACCES", "EAGAIN", "ENODEV"),
    "mprotect": ("EACCES",),
    "munmap": ("EINVAL",),
    "clone3": ("EAGAIN", "ENOSYS"),
    "socket": ("ENFILE", "ENOBUFS", "EAFNOSUPPORT", "EACCES"),
    "bind": ("EADDRINUSE", "EACCES"),
    "connect": ("ECONNREFUSED", "ENETUNREACH", "EADDRNOTAVAIL", "ETIMEDOUT", "EINPROGRESS"),
    "sendto": ("ENOBUFS", "EPIPE", "ECONNRESET", "EAGAIN"),
    "recvfrom": ("ENOBUFS", "ECONNRESET", "EAGAIN"),
    "getsockopt": ("ENOPROTOOPT", "EINVAL", "EAGAIN"),
    "getsockname": ("ENOBUFS",),
    "poll": ("EINVAL",),
    "ioctl": ("ENOTTY", "ENODEV"),
    "fcntl": ("EINVAL", "EAGAIN"),
    "flock": ("EAGAIN", "ENOLCK"),
    "pipe2": ("ENFILE",),
    "newfstatat": ("EIO", "ENOENT", "EACCES"),
    "getdents64": ("EIO", "ENOENT"),
    "lseek": ("ESPIPE",),
    "prctl": ("EINVAL",),
    "capget": ("EINVAL",),
    "capset": ("EINVAL",),
    "rt_sigaction": ("EINVAL",),
    "rt_sigprocmask": ("EINVAL",),
    "rt_sigpending": ("EFAULT",),
    "uname": ("EFAULT",),
    "access": ("EACCES", "EROFS", "EIO"),
    "pwrite64": ("EIO", "EFBIG"),
    "ftruncate": ("EIO", "EFBIG"),
    "execve": ("EACCES", "E2BIG", "ENOENT", "ETXTBSY", "EAGAIN"),
}
RESOLVER = {
    **{name: EVERYWHERE[name] for name in ("openat", "read", "newfstatat", "socket", "connect", "poll", "recvfrom")},
    "sendmmsg": ("ENOBUFS", "ECONNREFUSED"),
    "setsockopt": ("EINVAL",),
    "futex": ("EAGAIN", "ETIMEDOUT"),
    "madvise": ("EINVAL",),
    "uname": ("EFAULT",),
}
"""What libc's resolver calls, in a thread."""
LATE = "a name that comes late"
STARTS = {
    "an address": Start(EVERYWHERE, {"MOCK_HOSTNAME": MOCK}),
    "helpers": Start(HELPERS, {"MOCK_HOSTNAME": MOCK}, ("legacy",)),
    "a name": Start(RESOLVER, {"MOCK_HOSTNAME": NAME}, dns=(RIGHT,)),
    LATE: Start(
        {
            "clock_nanosleep": ("EINVAL",),
            "getrandom": ("ENOSYS", "EAGAIN"),
            **{name: EVERYWHERE[name] for name in ("poll", "sendto", "recvfrom", "connect", "socket", "getsockname")},
        },
        {"MOCK_HOSTNAME": NAME},
        dns=("SERVFAIL*3", RIGHT),
    ),
    "a user": Start(
        {
            "setgroups": ("EINVAL",),
            "setresgid": ("EINVAL", "EAGAIN"),
            "setresuid": ("EINVAL", "EAGAIN"),
            "setuid": ("EAGAIN",),
            "fchown": ("EROFS", "EIO", "EINVAL"),
            "getgroups": ("EFAULT",),
            "getresuid": ("EFAULT",),
            "getresgid": ("EFAULT",),
            "prctl": ("EINVAL",),
            "capget": ("EINVAL",),
            "capset": ("EINVAL",),
            "tgkill": ("EAGAIN",),
        },
        {"MOCK_HOSTNAME": MOCK, "MOCK_USER": "1:1"},
    ),
    "SIGCHLD blocked": Start(
        {"waitid": ("ECHILD",), "rt_sigtimedwait": ("EAGAIN",)},
        {"MOCK_HOSTNAME": MOCK},
        ("legacy",),
        prefix=("env", "--block-signal=CHLD"),
    ),
    "a helper that cannot be heard": Start(
        {"kill": ("ESRCH",)}, {"MOCK_HOSTNAME": MOCK}, ("legacy",), beside=(Injection("recvfrom", "error=EIO", 5),)
    ),
    "a helper that is gone": Start(
        {"pread64": ("EIO",)}, {"MOCK_HOSTNAME": MOCK}, ("legacy",), beside=(Injection("sendto", "error=EPIPE", 5),)
    ),
    "a PYTHONPATH": Start(
        {"execve": ("EACCES", "E2BIG", "EAGAIN")}, {"MOCK_HOSTNAME": MOCK, "PYTHONPATH": "/none"}, ("nft",)
    ),
}
"""The starts, by what they are about."""
UNUSED: frozenset[tuple[str, str, str]] = frozenset()
"""Start, firewall and call where the call is known not to be made, with another libc say. None by now."""
CHANCE = frozenset({"futex", "poll", "mmap", "munmap", "mprotect", "madvise", "mremap", "clock_nanosleep"})
"""Calls whose number depends on who is faster, as in LATE all do: one of a row's injections happens, not each."""
TOGETHER = frozenset({"setgroups", "setresgid", "setresuid"})
"""Calls that libc makes in every thread; where one may and another not, it aborts. A kernel says the same to all."""
COMMANDS = frozenset({"access", "newfstatat", "execve", "openat", "read"})
"""By these the app's own file is looked at: where it is refused, the status is 126 or 127."""
POINTS = 3 if LONG else 1
"""At how many of its calls each failure is tried, spread over the whole of the start; with each firewall in turn."""
SETTINGS = {"MOCK_ENDPOINTS": "aws,gcp", "MOCK_TIMEOUT": "6"}
LAUNCH = (
    "import os; from imds_detour.bootstrap import excepthook, pip;"
    f" os.kill(os.getpid(), {signal.SIGSTOP:d}); pip.main()"
)
"""What pip's script does, with a stop before it."""
LOST_WAKE = re.compile(r"FUTEX_WAKE.* \(INJECTED\)")
"""A thread that was not woken waits on a lock of libc's or Python's for good: no program lives with that, and no kernel
does it. It is ended as libc ends others, by SIGABRT, and the guard is looked at."""
SLACK = 4.0
"""Seconds that strace adds at most."""


def started(
    judge: Judge,
    start: Start,
    backend: str,
    log: str,
    *injections: Injection,
    calls: Iterable[str] = (),
    children: bool = False,
) -> Ended:
    """Start under strace from our first line on, with these injections; it logs them and these calls."""
    judge.clean()
    options = ("--detach-on=execve",)
    tracer = strace(*injections, *start.beside, log=log, calls=calls, children=children, options=options)
    with server(judge, FAULTY_DNS, MOCK, *start.dns) if start.dns else nullcontext():
        return _traced(judge, start, backend, log, tracer)


def _traced(judge: Judge, start: Start, backend: str, log: str, tracer: tuple[str, ...]) -> Ended:
    environ = judge.cloud.settings(None, MOCK_BACKEND=backend, **{**SETTINGS, **start.settings})
    limit = float(environ["MOCK_TIMEOUT"])
    command = (*start.prefix, sys.executable, "-c", LAUNCH, *ANY_USERS_APP)
    with ExitStack() as stack:
        process = stack.enter_context(
            judge.cloud.app.popen(*command, environ=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        )
        stack.callback(process.kill)
        stopped = os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        assert stopped is not None
        assert stopped.si_code == os.CLD_STOPPED, process.communicate()
        strace = stack.enter_context(
            subprocess.Popen([*tracer, "-p", str(process.pid)], stderr=subprocess.PIPE, text=True)
        )
        stack.callback(strace.kill)
        assert strace.stderr is not None
        said = strace.stderr.readline()
        assert "attached" in said, said
        began = time.monotonic()
        os.kill(process.pid, signal.SIGCONT)
        try:
            out, err = process.communicate(timeout=limit + 30)
        except subprocess.TimeoutExpired:
            with open(log) as calls_made:
                if not LOST_WAKE.search(calls_made.read()):
                    return Ended(99, "", "hung", limit + 30, limit=limit)
            began = time.monotonic()
            process.send_signal(signal.SIGABRT)
            out, err = process.communicate()
        seconds = time.monotonic() - began
        strace.communicate()
    return judge.ended(process.returncode, out, err, seconds, limit)


@dataclass(frozen=True, slots=True)
class Calls:
    """How often a start makes each call: the wrapper's first thread, and the one of its children that makes most."""

    wrapper: Counter[str]
    child: Counter[str]


@pytest.fixture(scope="module")
def counts() -> dict[tuple[str, str], Calls]:
    """Remember what each start calls, by its name and its firewall."""
    return {}


def _counted(judge: Judge, start: Start, backend: str, log: str) -> Calls:
    end = started(judge, start, backend, log, calls=[*start.calls, "execve"], children=not start.beside)
    assert (end.status == 0) is not bool(start.beside), end
    with open(log) as file:
        made = calls_made(file.read())
    by: dict[str, Counter[str]] = {}
    for call in made:
        by.setdefault(call.process, Counter())[call.name] += 1
    wrapper, *children = by.values()  # the one that strace is told of is there before all others
    most = {name: max((child[name] for child in children), default=0) for name in start.calls}
    return Calls(wrapper, Counter(most))


def spread(number: int, points: int) -> list[int]:
    """Return so many of the numbers from 1 on, from the whole range, or all of them."""
    step = max(1, number // points)
    return list(range(1 + step // 2, number + 1, step))[: max(points, 1)] if number else []


def _rows() -> list[tuple[str, str, str]]:
    every = [
        (name, call, error)
        for name, start in STARTS.items()
        for call, errors in start.calls.items()
        for error in dict.fromkeys((*ANY, *errors))
    ]
    return every if LONG else every[::37]


@pytest.mark.parametrize(("name", "call", "error"), first_quick(_rows(), 3))
def test_a_call_that_fails(  # noqa: PLR0917  (fixtures)
    judge: Judge, counts: dict[tuple[str, str], Calls], tmp_path: Path, name: str, call: str, error: str
) -> None:
    """It is lived with, or the start ends as all failures do; and the call has failed indeed."""
    start, log = STARTS[name], f"{tmp_path}/log"
    turn = sum(map(ord, call + error))
    hits = played = 0
    for whose in ("wrapper", "child"):
        for point in range(POINTS):
            backend = start.backends[(turn + point) % len(start.backends)]
            if (name, backend) not in counts:
                counts[name, backend] = _counted(judge, start, backend, log)
            made = counts[name, backend]
            assert made.wrapper[call] or made.child[call] or (name, backend, call) in UNUSED, (backend, made)
            numbers = spread(getattr(made, whose)[call], POINTS)
            if point >= len(numbers):
                continue
            played += 1
            # Its children meet it as well, each at its own call of that number.
            children = whose == "child" or call in TOGETHER
            injection = Injection(call, f"error={error}", numbers[point])
            hit = _fail(judge, start, backend, log, injection, children=children)
            assert hit or call in CHANCE or name == LATE, (whose, backend, numbers[point])
            hits += hit
    assert hits or not played


def _fail(judge: Judge, start: Start, backend: str, log: str, injection: Injection, *, children: bool) -> bool:
    """Play a start in which a call fails, and say whether it did."""
    call = injection.call
    # By a futex that fails, libc aborts every program, in whatever state it is.
    aborts = (signal.SIGABRT,) if call == "futex" else ()
    case = Case(slack=SLACK, deaf=call == "write", refused=call in COMMANDS, signals=aborts)
    judge.kept(
        lambda _: started(judge, start, backend, log, injection, children=children),
        case,
        f"{backend} {injection} {children=}",
    )
    with open(log) as file:
        return failed(file.read(), call)


@pytest.mark.slow
@pytest.mark.parametrize("error", ["ENOMEM", "EPERM", "EAGAIN", "EINVAL"])
@pytest.mark.parametrize("call", ["setsockopt", "getsockopt"])
def test_a_call_of_the_helper_that_fails_for_good(judge: Judge, tmp_path: Path, call: str, error: str) -> None:
    """The helper's calls to the firewall fail each time, or each from the second or third on."""
    for when in ("1+", "2+", "3+") if LONG else ("1+",):
        injection = Injection(call, f"error={error}", when)
        assert _fail(judge, STARTS["helpers"], "legacy", f"{tmp_path}/log", injection, children=True)


@pytest.mark.slow
def test_nothing_injected(judge: Judge, tmp_path: Path) -> None:
    """The control: under strace alone each start does what it does without, and nothing is called injected."""
    for start in STARTS.values():
        end = started(judge, replace(start, beside=()), "legacy", f"{tmp_path}/log", calls=["execve"], children=True)
        assert end.status == 0, end
        assert "INJECTED" not in (tmp_path / "log").read_text()
