"""The app's process has the signals, limits, descriptors and streams with which imds-detour was started."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from signal import SIGCHLD, SIGHUP, SIGINT, SIGPIPE, SIGQUIT, SIGRTMIN, SIGTERM, SIGUSR1, SIGUSR2, SIGXFSZ

import pytest

from tests.blackbox.test_handover import NAIVE
from tests.support.hosts.network import BUNDLED, DETOUR, SETTINGS, Network
from tests.support.marks import first_quick

PREPARED = """
import ctypes, os, resource, signal, sys
for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT):
    signal.signal(number, signal.SIG_DFL)
for name in sys.argv[1].split():
    kind, _, number = name.partition(":")
    if kind == "ignore":
        signal.signal(int(number), signal.SIG_IGN)
    elif kind == "block":
        signal.pthread_sigmask(signal.SIG_BLOCK, [int(number)])
    elif kind == "block-raw":  # by the kernel, since libc reserves 32 and 33
        mask = ctypes.c_uint64(1 << int(number) - 1)
        rt_sigprocmask = 14 if os.uname().machine == "x86_64" else 135
        ctypes.CDLL(None).syscall(rt_sigprocmask, signal.SIG_BLOCK, ctypes.byref(mask), None, 8)
    elif kind == "send":
        os.kill(os.getpid(), int(number))
os.umask(0o027)
os.nice(3)
resource.setrlimit(resource.RLIMIT_NOFILE, (200, 300))
resource.setrlimit(resource.RLIMIT_CORE, (0, 4096))
os.chdir("/usr/share")
os.execvp(sys.argv[2], sys.argv[2:])
"""
"""Set attributes that survive exec, and execute the command."""
LOOK = ("cat", "/proc/self/status", "/proc/self/limits", "/proc/self/stat")
"""A program that shows its own process; unlike a shell, cat changes no signal mask."""
VARYING = (
    *("Cap", "Cpus_", "HugetlbPages", "Mems_", "NSpid", "NStgid", "Ngid", "Pid", "Rss", "SigQ", "Tgid", "Vm"),
    *("nonvoluntary", "voluntary"),
)
"""Fields that differ between processes, and capabilities (tests/netns/test_privileges.py)."""
STAT = {"ppid": 4, "pgrp": 5, "session": 6, "tty": 7, "priority": 18, "nice": 19, "policy": 41}
"""Fields of /proc/pid/stat (proc(5)) that status does not have."""


def look(network: Network, preparation: str, *wrapper: str) -> list[str]:
    """Return the process state that an app sees."""
    done = network.raw(sys.executable, "-c", PREPARED, preparation, *wrapper, *LOOK, environ=SETTINGS)
    assert done.returncode == 0, done.stderr
    *lines, stat = done.stdout.decode().splitlines()
    fields = stat.split()
    return [
        *(line for line in lines if not line.startswith(VARYING)),
        *(f"{name} {fields[number - 1]}" for name, number in STAT.items()),
    ]


@pytest.mark.parametrize(
    "preparation",
    [
        "",
        f"ignore:{SIGHUP:d} ignore:{SIGINT:d} ignore:{SIGTERM:d} ignore:{SIGCHLD:d}",
        f"block:{SIGTERM:d} block:{SIGUSR1:d} block:{SIGCHLD:d} block:{SIGRTMIN + 3:d}",
        f"block:{SIGTERM:d} send:{SIGTERM:d} block:{SIGUSR2:d} send:{SIGUSR2:d}",
        f"block:{SIGQUIT:d} block-raw:33",
    ],
    ids=["plain", "ignored", "blocked", "pending", "reserved"],
)
def test_process_state_is_kept(running: Network, preparation: str) -> None:
    """Signal masks, umask, limits, niceness, group, session, parent and threads are the same without imds-detour."""
    assert look(running, preparation, DETOUR) == look(running, preparation)


def test_only_the_bundle_keeps_an_ignored_sigpipe(running: Network) -> None:
    """The bundle keeps an ignored SIGPIPE or SIGXFSZ; with pip, whose Python ignores both first, it is the default."""
    preparation = f"ignore:{SIGPIPE:d} ignore:{SIGXFSZ:d}"
    plain, wrapped = look(running, preparation), look(running, preparation, DETOUR)
    (before,), (after,) = (
        [int(line.split()[1], 16) for line in lines if line.startswith("SigIgn:")] for lines in (plain, wrapped)
    )
    both = 1 << SIGPIPE - 1 | 1 << SIGXFSZ - 1
    assert (before & both, after) == (both, before if BUNDLED else before & ~both)
    assert [line for line in wrapped if "SigIgn" not in line] == [line for line in plain if "SigIgn" not in line]


def test_plain_python_changes_the_process(running: Network) -> None:
    """Negative control: plain Python leaves SIGPIPE and SIGXFSZ ignored, and the comparison shows it."""
    naive, plain = look(running, "", sys.executable, "-c", NAIVE), look(running, "")
    ((was, now),) = [(old, new) for old, new in zip(plain, naive, strict=True) if old != new]
    assert was.startswith("SigIgn:")
    # The runner of the tests may ignore other signals, which programs inherit.
    assert int(now.split()[1], 16) ^ int(was.split()[1], 16) == 1 << SIGPIPE - 1 | 1 << SIGXFSZ - 1


def test_app_keeps_process_id_and_standard_input(running: Network) -> None:
    """The app has imds-detour's process id, for signals and waits of the parent, and reads all of its input."""
    text = b"first\nsecond\0" * 1000
    done = running.raw("sh", "-c", f"echo $$; exec {DETOUR} sh -c 'echo $$; cat'", environ=SETTINGS, stdin=text)
    first, second, rest = done.stdout.split(b"\n", 2)
    assert (first, rest) == (second, text)


NAIVE_SOCKET = "import socket, sys; sys.exit(socket.socket().fileno())"
SHOW_OPEN_STREAMS = "open=0; for fd in 0 1 2; do [ -e /proc/$$/fd/$fd ] && open=$((open | 1 << fd)); done; exit $open"
"""Return the open standard streams as a bit mask in the exit status, since there may be no stream."""


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1), (0, 1, 2)])
def test_closed_streams_stay_closed(running: Network, closed: tuple[int, ...]) -> None:
    """A closed stream stays closed, and no file takes its number. Negative control: a new socket would take it."""
    redirect = " ".join(f"{number}>&-" for number in closed)
    for wrapper in ("", DETOUR):
        done = running.raw("sh", "-c", f"exec {wrapper} sh -c '{SHOW_OPEN_STREAMS}' {redirect}", environ=SETTINGS)
        assert done.returncode == 7 - sum(1 << number for number in closed), done.stderr
    command = ("sh", "-c", f'exec "$@" {redirect}', "sh", sys.executable, "-c", NAIVE_SOCKET)
    assert running.raw(*command, environ=SETTINGS).returncode == closed[0]


def test_standard_output_has_only_the_apps_bytes(running: Network) -> None:
    """With MOCK_LOG=debug stdout has only the app's bytes."""
    done = running.raw(DETOUR, "printf", "x", environ={**SETTINGS, "MOCK_LOG": "debug"})
    assert done.stdout == b"x"
    assert done.stderr.count(b"\n") > 3


STUCK = """
import os, pty, signal, socket, sys
kind = sys.argv[1]
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
if kind == "/dev/full":
    reader, end = 0, os.open(kind, os.O_WRONLY)
elif kind == "fifo":
    os.mkfifo(f"/run/fifo{os.getpid()}")
    reader = end = os.open(f"/run/fifo{os.getpid()}", os.O_RDWR)
elif kind == "terminal":
    reader, end = pty.openpty()
elif kind.startswith("socket"):
    reader, end = (side.detach() for side in socket.socketpair())
else:
    reader, end = os.pipe()
os.set_blocking(end, False)
try:
    while kind not in ("/dev/full", "socket, closed"):
        os.write(end, bytes(4096) if kind != "terminal" else b"0" * 100)
except BlockingIOError:
    os.set_inheritable(reader, True)  # it stays open, and no process reads it
os.set_blocking(end, kind != "pipe, O_NONBLOCK")
os.dup2(end, 2)
os.execvp(sys.argv[2], sys.argv[2:])
"""
"""Execute a command whose stderr takes nothing."""
FLAGS = "import fcntl; print(fcntl.fcntl(2, fcntl.F_GETFL))"
STUCK_KINDS = pytest.mark.parametrize(
    "kind", first_quick(["pipe", "pipe, O_NONBLOCK", "fifo", "terminal", "socket", "socket, closed", "/dev/full"])
)


@contextmanager
def stuck(network: Network, kind: str, *command: str, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start a command on the app's host whose stderr takes nothing."""
    start = network.app.inside(sys.executable, "-c", STUCK, kind, *command)
    with subprocess.Popen(start, env={**SETTINGS, **settings}, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


@STUCK_KINDS
def test_stuck_stderr_does_not_stop_a_start(running: Network, kind: str) -> None:
    """With a stderr that takes nothing the lines are lost after a second in all, and the app has it unchanged."""
    outputs = []
    for wrapper in ((), (DETOUR,)):
        begin = time.monotonic()
        with stuck(running, kind, *wrapper, sys.executable, "-c", FLAGS, MOCK_LOG="debug") as process:
            outputs.append(process.communicate(timeout=10)[0])
        assert time.monotonic() - begin < 5
    assert outputs[0] == outputs[1] != b""


def test_stuck_stderr_blocks_a_plain_write(running: Network) -> None:
    """Negative control: a write to the full pipe does not return."""
    with stuck(running, "pipe", "timeout", "0.5", "sh", "-c", "echo line >&2") as process:
        assert process.wait(timeout=10) == 124


@STUCK_KINDS
def test_stuck_stderr_does_not_hold_a_stop(running: Network, kind: str) -> None:
    """A stop ends a waiting start at once, and a failed start ends with 125."""
    with stuck(running, kind, DETOUR, "true", MOCK_HOSTNAME="10.88.0.9", MOCK_TIMEOUT="20") as process:
        time.sleep(0.7)
        process.terminate()
        assert process.wait(timeout=1) == 128 + SIGTERM
    with stuck(running, kind, DETOUR, "true", MOCK_HOSTNAME="10.88.0.9", MOCK_TIMEOUT="0.1") as process:
        assert process.wait(timeout=5) == 125
