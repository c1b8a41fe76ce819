"""System calls that fail, from the first line of imds-detour to the first of the app: strace replaces the result.

A start stops before its first line until strace is attached. strace counts the calls of each thread and process by
name. With children, the call of that number fails in each child, as in the wrapper.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from tests.chaos.cases import RIGHT, Case
from tests.chaos.contract import ANY_USERS_APP, Ended, Judge
from tests.chaos.test_campaign import server
from tests.support.faults.injection import Injection, calls_made, failed, strace
from tests.support.hosts.cloud import BACKENDS, LONG
from tests.support.hosts.network import FAULTY_DNS, MOCK, NAME
from tests.support.marks import first_quick

ANY = ("ENOMEM", "EMFILE", "ENOSPC", "EPERM", "EINTR")
"""Errors for every call: the kernel does not return all of them, but a seccomp filter can."""


@dataclass(frozen=True, slots=True)
class Start:
    """A start that makes certain calls.

    Attributes:
        calls: the calls that fail, and their errors in addition to ANY.
        settings: MOCK_* and other variables.
        backends: the firewalls with which it makes these calls.
        prefix: a command that runs it.
        also: injections without which it would not make these calls.
        dns: the plan of the DNS server (tests/support/servers/faulty_dns.py); empty for no server.

    """

    calls: Mapping[str, tuple[str, ...]]
    settings: Mapping[str, str] = field(default_factory=dict)
    backends: tuple[str, ...] = BACKENDS
    prefix: tuple[str, ...] = ()
    also: tuple[Injection, ...] = ()
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
"""Calls of the helpers of legacy iptables, or to start them."""
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
    **dict.fromkeys(("prctl", "capget", "capset", "rt_sigaction", "rt_sigprocmask"), ("EINVAL",)),
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
"""Calls of libc's resolver, in a thread."""
LATE = "a name that comes late"
WITHOUT_GUARD = {"MOCK_HOSTNAME": MOCK, "MOCK_GUARD": "off"}
FIRST_REPLY = 3
"""The number of the message between a start without a guard and its helper; two go to nftables before."""
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
            **dict.fromkeys(("getgroups", "getresuid", "getresgid"), ("EFAULT",)),
            **dict.fromkeys(("prctl", "capget", "capset"), ("EINVAL",)),
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
    "a helper whose reply is lost": Start(
        {"kill": ("ESRCH",)}, WITHOUT_GUARD, ("legacy",), also=(Injection("recvfrom", "error=EIO", FIRST_REPLY),)
    ),
    "a helper that is gone": Start(
        {"pread64": ("EIO",)}, WITHOUT_GUARD, ("legacy",), also=(Injection("sendto", "error=EPIPE", FIRST_REPLY),)
    ),
    "a PYTHONPATH": Start(
        {"execve": ("EACCES", "E2BIG", "EAGAIN")}, {"MOCK_HOSTNAME": MOCK, "PYTHONPATH": "/none"}, ("nft",)
    ),
}
"""The starts, by their subject."""
UNUSED = frozenset({("an address", "nft", "flock")})
"""Start, firewall and call, for calls that a start does not make, for example with another libc."""
CHANCE = frozenset({"futex", "poll", "mmap", "munmap", "mprotect", "madvise", "mremap", "clock_nanosleep"})
"""Calls whose number varies between runs. All calls of LATE vary. At least one injection of a row must happen."""
TOGETHER = frozenset({"setgroups", "setresgid", "setresuid"})
"""Calls that libc makes in every thread. It aborts if their results differ, which a kernel never does."""
COMMANDS = frozenset({"access", "newfstatat", "execve", "openat", "read"})
"""Calls that find and execute the app's file. If they fail, the status is 126 or 127."""
POINTS = 3 if LONG else 1
"""The number of calls at which each failure is tried, spread over the start, with the firewalls in turn."""
SETTINGS = {"MOCK_ENDPOINTS": "aws,gcp", "MOCK_TIMEOUT": "6"}
LAUNCH = (
    "import os; from imds_detour.bootstrap import excepthook, pip;"
    f" os.kill(os.getpid(), {signal.SIGSTOP:d}); pip.main()"
)
"""The script that pip installs, with a stop before it."""
LOST_WAKE = re.compile(r"FUTEX_WAKE.* \(INJECTED\)")
"""A lost wake-up on a lock of libc or Python: no program survives it, and no kernel does it. The test ends the start by
SIGABRT, as libc does, and checks the guard."""
SLACK = 4.0
"""Seconds that strace may add."""


def started(
    judge: Judge,
    start: Start,
    backend: str,
    log: str,
    *injections: Injection,
    calls: Iterable[str] = (),
    children: bool = False,
) -> Ended:
    """Start under strace from the first line on, with these injections; it logs them and these calls."""
    judge.clean()
    tracer = strace(*injections, *start.also, log=log, calls=calls, children=children, options=("--detach-on=execve",))
    environ = judge.cloud.settings(None, MOCK_BACKEND=backend, **{**SETTINGS, **start.settings})
    limit = float(environ["MOCK_TIMEOUT"])
    command = (*start.prefix, sys.executable, "-c", LAUNCH, *ANY_USERS_APP)
    with server(judge, FAULTY_DNS, MOCK, *start.dns) if start.dns else nullcontext(), ExitStack() as stack:
        process = stack.enter_context(
            judge.cloud.app.popen(*command, environ=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        )
        stack.callback(process.kill)
        stopped = os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        assert stopped is not None
        assert stopped.si_code == os.CLD_STOPPED, process.communicate()
        tracing = stack.enter_context(
            subprocess.Popen([*tracer, "-p", str(process.pid)], stderr=subprocess.PIPE, text=True)
        )
        stack.callback(tracing.kill)
        assert tracing.stderr is not None
        line = tracing.stderr.readline()
        assert "attached" in line, line
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
        tracing.communicate()
    return judge.ended(process.returncode, out, err, seconds, limit)


@dataclass(frozen=True, slots=True)
class Calls:
    """The number of each call in a start: of the wrapper's first thread, and of the child that makes it most often."""

    wrapper: Counter[str]
    child: Counter[str]


@pytest.fixture(scope="module")
def counts() -> dict[tuple[str, str], Calls]:
    """Give a cache of the calls of each start, by its name and firewall."""
    return {}


def _counted(judge: Judge, start: Start, backend: str, log: str) -> Calls:
    end = started(judge, start, backend, log, calls=[*start.calls, "execve"], children=not start.also)
    assert (end.status == 0) is not bool(start.also), end
    with open(log) as file:
        made = calls_made(file.read())
    by: dict[str, Counter[str]] = {}
    for call in made:
        by.setdefault(call.process, Counter())[call.name] += 1
    wrapper, *children = by.values()  # strace attaches to the wrapper first
    return Calls(wrapper, Counter({name: max((child[name] for child in children), default=0) for name in start.calls}))


def spread(number: int, points: int) -> list[int]:
    """Return some numbers from 1 to ``number``, spread over the range, or all of them."""
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
def test_failed_call_keeps_the_contract(  # noqa: PLR0917  (fixtures)
    judge: Judge, counts: dict[tuple[str, str], Calls], tmp_path: Path, name: str, call: str, error: str
) -> None:
    """A start survives a failed system call, or ends as the contract says; and the call did fail."""
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
            # The call fails in its children too, at their own call of that number.
            children = whose == "child" or call in TOGETHER
            injection = Injection(call, f"error={error}", numbers[point])
            hit = _fail(judge, start, backend, log, injection, children=children)
            assert hit or call in CHANCE or name == LATE, (whose, backend, numbers[point])
            hits += hit
    assert hits or not played


def _fail(judge: Judge, start: Start, backend: str, log: str, injection: Injection, *, children: bool) -> bool:
    """Play a start in which a call fails, and return whether the call failed."""
    call = injection.call
    # When a futex fails, libc aborts the program.
    aborts = (signal.SIGABRT,) if call == "futex" else ()
    case = Case(slack=SLACK, muted=call == "write", refused=call in COMMANDS, signals=aborts)
    judge.until_kept(
        lambda _: started(judge, start, backend, log, injection, children=children),
        case,
        f"{backend} {injection} {children=}",
    )
    with open(log) as file:
        return failed(file.read(), call)


@pytest.mark.slow
@pytest.mark.parametrize("error", ["ENOMEM", "EPERM", "EAGAIN", "EINVAL"])
@pytest.mark.parametrize("call", ["setsockopt", "getsockopt"])
def test_repeated_failures_in_the_helper_keep_the_contract(judge: Judge, tmp_path: Path, call: str, error: str) -> None:
    """The helper's calls to the firewall fail every time, or from the second or third on."""
    for when in ("1+", "2+", "3+") if LONG else ("1+",):
        injection = Injection(call, f"error={error}", when)
        assert _fail(judge, STARTS["helpers"], "legacy", f"{tmp_path}/log", injection, children=True)


@pytest.mark.slow
def test_starts_without_injections_succeed(judge: Judge, tmp_path: Path) -> None:
    """Negative control: under strace without injections each start succeeds, and the log shows no injected call."""
    for start in STARTS.values():
        end = started(judge, replace(start, also=()), "legacy", f"{tmp_path}/log", calls=["execve"], children=True)
        assert end.status == 0, end
        assert "INJECTED" not in (tmp_path / "log").read_text()
