"""An app that inspects its own process sees the same with and without imds-detour."""

import json
import os
import pty
import select
import subprocess
import sys
import termios
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from imds_detour.system.capabilities import NET_ADMIN
from tests.support import SUPPORT
from tests.support.hosts.network import DETOUR, SETTINGS, Network

INSPECTOR = (sys.executable, "-I", "-S", f"{SUPPORT}/clients/inspector.py", "", "two words", "-x", "$HOME")
SETUP = """
import ctypes, os, resource, signal, sys
libc = ctypes.CDLL(None)
PR_SET_PDEATHSIG, PR_SET_TIMERSLACK, PR_SET_CHILD_SUBREAPER, PR_SET_THP_DISABLE = 1, 29, 36, 41
libc.prctl(PR_SET_PDEATHSIG, signal.SIGUSR1)
libc.prctl(PR_SET_TIMERSLACK, 70_000)
libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
libc.prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)
libc.personality(0x0040000)  # ADDR_NO_RANDOMIZE
libc.syscall(251 if os.uname().machine == "x86_64" else 30, 1, 0, 2 << 13 | 6)  # ioprio_set: best effort, 6
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
os.nice(2)
os.umask(0o037)
with open("/proc/self/oom_score_adj", "w") as file:
    file.write("500")
with open("/proc/self/coredump_filter", "w") as file:
    file.write("0x1")
resource.setrlimit(resource.RLIMIT_NOFILE, (120, 130))
resource.setrlimit(resource.RLIMIT_STACK, (4 << 20, 64 << 20))
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, 2 << 30))
signal.setitimer(signal.ITIMER_REAL, 10_000)
signal.setitimer(signal.ITIMER_PROF, 10_000)
for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGTTOU):
    signal.signal(number, signal.SIG_IGN)
for number in (signal.SIGPIPE, signal.SIGXFSZ):
    signal.signal(number, signal.SIG_DFL)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGALRM, signal.SIGRTMIN + 7])
os.kill(os.getpid(), signal.SIGRTMIN + 7)
os.setpgid(0, 0)
os.chdir("/usr/share")
os.dup2(os.open("/etc/hostname", os.O_RDONLY), 9)
os.execvp(sys.argv[1], sys.argv[1:])
"""
"""Set all attributes that survive exec."""
CARELESS = """
import os, signal, sys
os.set_inheritable(os.open("/etc/passwd", os.O_RDONLY), True)
signal.setitimer(signal.ITIMER_REAL, 5)
os.set_blocking(0, False)
os.fork() or os._exit(0)
os.umask(0o077)
os.execvp(sys.argv[1], sys.argv[1:])
"""
"""A careless wrapper, the negative control."""


def inspected(
    network: Network, *wrapper: str, setup: bool = True, environ: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return the app's view of its process."""
    start = (sys.executable, "-c", SETUP) if setup else ()
    done = network.raw(*start, *wrapper, *INSPECTOR, environ=environ or SETTINGS, stdin=b"x")
    assert done.returncode == 0, done.stderr
    view: dict[str, Any] = json.loads(done.stdout)
    return view


def without_net_admin(view: dict[str, Any]) -> dict[str, Any]:
    """Return a view without NET_ADMIN in the capability sets."""
    status = view["status"]
    sets = {name: f"\t{int(mask, 16) & ~NET_ADMIN:016x}" for name, mask in status.items() if name.startswith("Cap")}
    return {**view, "status": {**status, **sets}}


@pytest.mark.parametrize("setup", [False, True], ids=["plain", "set up"])
@pytest.mark.parametrize("backend", ["legacy", "nft"])
def test_process_is_the_same_with_the_wrapper(running: Network, backend: str, setup: bool) -> None:
    """Arguments, environment, files, signals, limits, timers, scheduling, children and memory are the same."""
    environ = {**SETTINGS, "MOCK_BACKEND": backend, "PYTHONPATH": "/nowhere"}
    plain = inspected(running, setup=setup, environ=environ)
    assert inspected(running, DETOUR, setup=setup, environ=environ) == without_net_admin(plain)
    kept = environ | {"MOCK_KEEP_NET_ADMIN": "1"}
    assert inspected(running, DETOUR, setup=setup, environ=kept) == inspected(running, setup=setup, environ=kept)


def test_inspection_detects_the_setup_and_a_careless_wrapper(running: Network) -> None:
    """Negative control: the inspection shows a careless wrapper's descriptor, timer, zombie and umask."""
    view, plain = inspected(running), inspected(running, setup=False)
    assert view["prctl"] | {"pdeathsig": 10, "subreaper": 1, "thp": 1, "timerslack": 70_000} == view["prctl"]
    assert (view["timers"], view["descriptors"]["9"][0]) == ([True, False, True], "/etc/hostname")
    same = {"argv", "environ", "children", "terminal", "controlling", "namespaces", "mapped"}
    assert {name for name in view if view[name] == plain[name]} <= same
    careless = inspected(running, sys.executable, "-c", CARELESS, setup=False)
    assert {name for name in plain if plain[name] != careless[name]} >= {"descriptors", "timers", "children", "status"}


INTERACTIVE = ("bash", "--norc", "-ic")
ON_A_TERMINAL = {
    "the session's first": ("sh", "-c", 'exec "$@"', "sh"),
    "a job in the foreground": (*INTERACTIVE, '"$@"; true', "bash"),
    "a job in the background": (*INTERACTIVE, 'exec 2> /dev/null; "$@" & wait', "bash"),
}
"""How a shell starts a program; the shell's own messages go to /dev/null."""


@contextmanager
def started_on(terminal: int, network: Network, *words: str, environ: Mapping[str, str], status: int) -> Iterator[None]:
    """Start a program as the first of a session on a terminal, and check its exit status at the end."""
    start = network.app.inside("setsid", "--ctty", "--wait", *words)
    streams = {"stdin": terminal, "stdout": terminal, "stderr": terminal}
    with subprocess.Popen(start, env=environ, executable="/usr/bin/nsenter", **streams) as app:  # type: ignore[call-overload]  # streams
        try:
            yield
            assert app.wait(timeout=30) == status
        finally:
            app.kill()


def inspected_on(
    terminal: tuple[int, int], network: Network, *words: str, environ: Mapping[str, str]
) -> dict[str, Any]:
    """Return the app's view of its process on a terminal, without its parent's id, which differs each time."""
    reader, theirs = terminal
    said, view = b"", None
    with started_on(theirs, network, *words, environ=environ, status=0):
        while view is None:
            said += read_to(reader, b"")
            with suppress(ValueError):  # not all of it is there yet
                view, _ = json.JSONDecoder().raw_decode(said.decode()[said.decode().index('{"argv"') :])
    del view["status"]["PPid"], view["group"][2]
    seen: dict[str, Any] = view
    return seen


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """Yield both ends of a terminal with settings other than the defaults."""
    reader, theirs = pty.openpty()
    settings = termios.tcgetattr(theirs)
    settings[3] &= ~termios.ECHOE
    termios.tcsetattr(theirs, termios.TCSANOW, settings)
    termios.tcsetwinsize(theirs, (33, 77))
    yield reader, theirs
    os.close(reader)
    os.close(theirs)


@pytest.mark.parametrize("start", ON_A_TERMINAL)
def test_terminal_is_the_same_with_the_wrapper(running: Network, terminal: tuple[int, int], start: str) -> None:
    """On a terminal, the device, its settings, the session and the foreground group are the same."""
    environ = {**SETTINGS, "MOCK_LOG": "quiet", "TERM": "dumb"}
    # env, so that the variable _ of a shell names the same program both times
    plain, wrapped = (
        inspected_on(terminal, running, *ON_A_TERMINAL[start], "/usr/bin/env", *wrapper, *INSPECTOR, environ=environ)
        for wrapper in ((), (DETOUR,))
    )
    assert wrapped == without_net_admin(plain)
    controlling = plain["controlling"]
    assert (controlling["foreground"], controlling["size"]) == (start != "a job in the background", [77, 33])


DISTURBS = """
import os, sys, termios
own = os.open("/dev/tty", os.O_RDONLY)
settings = termios.tcgetattr(own)
settings[3] |= termios.ECHOE
termios.tcsetattr(own, termios.TCSANOW, settings)
if os.fork():
    sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
os.setpgid(0, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""
"""A wrapper that stays as the parent of an app in another process group, the negative control."""


def test_inspection_detects_a_changed_terminal(running: Network, terminal: tuple[int, int]) -> None:
    """Negative control: the inspection shows changed settings and an app in the background."""
    shell = (*INTERACTIVE, '"$@"; true', "bash", "/usr/bin/env")
    environ = {**SETTINGS, "TERM": "dumb"}
    plain, other = (
        inspected_on(terminal, running, *shell, *wrapper, *INSPECTOR, environ=environ)
        for wrapper in ((), (sys.executable, "-c", DISTURBS))
    )
    assert {name for name in plain["controlling"] if plain["controlling"][name] != other["controlling"][name]} == {
        "foreground",
        "settings",
    }


JOB = (
    f"""{sys.executable} -c 'import os, signal; say = lambda *_: os.write(1, b"go" + b"ing on")\n"""
    """signal.signal(signal.SIGCONT, say); os.write(1, b"run" + b"ning")\n"""
    """while True: signal.pause()'\n"""
).encode()
"""The terminal echoes the input, so the input has the words in halves, unlike the output."""


def test_terminal_keys_reach_the_app(running: Network, terminal: tuple[int, int]) -> None:
    """Ctrl-C and Ctrl-Z reach the app, and the terminal's settings stay."""
    reader, theirs = terminal
    before = termios.tcgetattr(theirs)
    environ = {**SETTINGS, "MOCK_LOG": "quiet", "PS1": "> ", "TERM": "dumb"}
    with started_on(theirs, running, DETOUR, "bash", "--norc", "-i", environ=environ, status=7):
        assert b"no job control" not in read_to(reader, b"> ")
        for send, answer in (
            (JOB, b"running"),
            (b"\x1a", b"Stopped"),
            (b"fg\n", b"going on"),  # said when it is in the foreground again, and not before
            (b"\x03", b"> "),
            (b"echo status $?\n", b"status 130"),
            (b"stty -a | md5sum; exit 7\n", b"exit"),
        ):
            os.write(reader, send)
            read_to(reader, answer)
    assert termios.tcgetattr(theirs) == before


def read_to(terminal: int, end: bytes) -> bytes:
    """Read a terminal's output up to this text, or what is there."""
    said = b""
    while not said or end not in said:
        assert select.select([terminal], [], [], 30)[0], said
        said += os.read(terminal, 4096)
    return said
