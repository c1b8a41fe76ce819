"""System calls that fail, one at a time, from our first line to the app's: strace answers in the kernel's place."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.chaos.cases import Case
from tests.stage import LONG
from tests.world import MOCK

if TYPE_CHECKING:
    from tests.chaos.contract import Ended, Judge

CALLS = {
    "openat": ("EMFILE", "ENFILE", "ENOMEM", "EPERM", "EACCES", "EINTR", "ENOENT"),
    "read": ("EIO", "EINTR", "ENOMEM"),
    "pread64": ("EIO",),
    "write": ("ENOSPC", "EPIPE", "EINTR", "EIO"),
    "close": ("EIO", "EINTR"),
    "mmap": ("ENOMEM",),
    "brk": ("ENOMEM",),
    "munmap": ("ENOMEM",),
    "clone,clone3,fork,vfork": ("EAGAIN", "ENOMEM"),
    "socket": ("EMFILE", "ENOBUFS", "EPERM", "EAFNOSUPPORT"),
    "socketpair": ("EMFILE", "ENOMEM"),
    "memfd_create": ("EMFILE", "ENOSYS"),
    "bind": ("EADDRINUSE", "EPERM"),
    "connect": ("ECONNREFUSED", "EPERM", "ENETUNREACH", "EINTR", "EADDRNOTAVAIL", "ENOMEM"),
    "sendto": ("EPERM", "ENOBUFS", "EINTR", "ENOMEM", "EPIPE"),
    "sendmmsg": ("EPERM", "ENOBUFS"),
    "recvfrom": ("ENOMEM", "EINTR", "ENOBUFS", "ECONNRESET"),
    "setsockopt": ("ENOMEM", "EPERM", "EINVAL"),
    "getsockopt": ("EPERM", "ENOPROTOOPT"),
    "getsockname": ("ENOBUFS",),
    "poll,ppoll": ("EINTR", "ENOMEM"),
    "ioctl": ("EPERM", "ENOTTY"),
    "newfstatat,fstat,stat,statx": ("EIO", "ENOENT", "EACCES"),
    "getdents64": ("EIO",),
    "lseek": ("ESPIPE",),
    "prctl": ("EPERM", "EINVAL"),
    "capget": ("EPERM",),
    "capset": ("EPERM",),
    "rt_sigprocmask": ("EINVAL",),
    "futex": ("EINTR",),
    "getrandom": ("EINTR", "ENOSYS"),
    "wait4": ("ECHILD", "EINTR"),
    "kill,tgkill": ("EPERM",),
    "statfs": ("EIO",),
    "faccessat,faccessat2,access": ("EACCES",),
    "pwrite64": ("ENOSPC", "EIO", "EPERM"),
    "ftruncate": ("EIO",),
}
"""Each class of system call that a start makes, and what it may fail with."""
POINTS = 3 if LONG else 1
"""At how many of its calls each failure is tried, spread over the whole of the start."""
SETTINGS = {"MOCK_HOSTNAME": MOCK, "MOCK_ENDPOINTS": "aws,gcp", "MOCK_TIMEOUT": "6"}
FIRST, LAST = "rt_sigaction(SIGHUP, {sa_handler=0x", "execve("
"""Our first system call, which is to honour a stop; and the last, which is the second of its kind."""
SLACK = 4.0
"""Seconds that strace adds at most."""


@pytest.fixture(scope="module")
def counts() -> dict[tuple[str, str], tuple[int, int]]:
    """Remember, for each class and backend, which of its calls are ours."""
    return {}


def _ours(judge: Judge, call: str, backend: str) -> tuple[int, int]:
    """Return how many calls of a class come before our first line, and before the app takes over."""
    judge.clean()
    log = "/run/strace.log"
    kinds = f"{call},rt_sigaction,execve"
    script = ("strace", "-o", log, "-e", f"trace={kinds}")
    end = judge.start(*script, MOCK_BACKEND=backend, **SETTINGS)
    assert end.status == 0, end
    lines = judge.stage.app.run("cat", log).stdout.splitlines()
    names = re.compile(rf"({call.replace(',', '|')})\(")
    first = next(number for number, line in enumerate(lines) if line.startswith(FIRST))
    last = max(number for number, line in enumerate(lines[:-1]) if line.startswith(LAST))
    return tuple(sum(1 for line in lines[:end] if names.match(line)) for end in (first, last))  # type: ignore[return-value]  # two of them


def _chosen() -> list[tuple[str, str, str]]:
    every = [(call, error) for call, errors in CALLS.items() for error in errors]
    if LONG:
        return [(call, error, backend) for call, error in every for backend in ("legacy", "nft")]
    return [(call, error, ("legacy", "nft")[number % 2]) for number, (call, error) in enumerate(every[::16])]


@pytest.mark.parametrize(("call", "error", "backend"), _chosen())
def test_a_call_that_fails(
    judge: Judge, counts: dict[tuple[str, str], tuple[int, int]], call: str, error: str, backend: str
) -> None:
    """It is lived with, or the start ends as all failures do."""
    before, all_of_them = counts.get((call, backend)) or _ours(judge, call, backend)
    counts[call, backend] = before, all_of_them
    step = max(1, (all_of_them - before) // POINTS)
    for number in range(before + 1 + step // 2, all_of_them + 1, step):
        _fail(judge, backend, f"{call}:error={error}:when={number}")


def _fail(judge: Judge, backend: str, what: str, *flags: str) -> Ended:
    judge.clean()

    def play(_longer: float) -> Ended:
        trace = f"trace={what.partition(':')[0]}"
        command = ("strace", *flags, "-o", "/dev/null", "-e", trace, "-e", f"inject={what}")
        return judge.start(*command, MOCK_BACKEND=backend, **SETTINGS)

    refused = what.startswith("faccessat")  # by which a command's file is looked at: the end is the command's
    return judge.kept(play, Case(slack=SLACK, deaf=what.startswith("write"), refused=refused), what)


@pytest.mark.parametrize("error", ["ENOMEM", "EPERM", "EAGAIN", "EINVAL"])
@pytest.mark.parametrize("call", ["setsockopt", "getsockopt"])
def test_a_call_of_the_helper_that_fails(judge: Judge, call: str, error: str) -> None:
    """The same in the process that holds the firewall library, each time or once."""
    for when in ("1+", "1", "2", "3") if LONG else ("1+",):
        end = _fail(judge, "legacy", f"{call}:error={error}:when={when}", "-f", "--detach-on=execve")  # not in the app
        assert end.status in (0, 125), end


def test_nothing_injected(judge: Judge) -> None:
    """The control: under strace alone, the app starts."""
    judge.clean()
    assert judge.start("strace", "-f", "-o", "/dev/null", "-e", "trace=setsockopt", **SETTINGS).status == 0
