"""The app's PYTHON* variables and modules do not affect imds-detour, and reach the app unchanged."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import imds_detour
from tests.blackbox.test_handover import joined, with_environ
from tests.support.faults.injection import calls_made, strace
from tests.support.hosts.network import DETOUR, MOCK, PORT, SETTINGS, Network

CONSOLE = os.path.join(os.path.dirname(imds_detour.__file__), "bootstrap/pip.py")
NAMES = ("socket", "signal", "errno", "iptc", "dns", "tenacity", "dataclasses", "json", "ctypes", "typing")
"""Modules that the wrapper may import, without those that pip's script imports first, such as re."""
HOSTILE = 'import os; os.write(2, b"hostile {0}\\n"); os._exit(77)\n'
ENVIRON = {"MOCK_HOSTNAME": MOCK, "MOCK_PORT": PORT, "PATH": SETTINGS["PATH"]}
ENTRIES = tuple(f"{name}={value}".encode() for name, value in ENVIRON.items())


def hostile(folder: Path, *names: str) -> str:
    """Write modules that end the process that imports them."""
    for name in names:
        (folder / f"{name}.py").write_text(HOSTILE.format(name))
    return str(folder)


def test_pythonpath_does_not_affect_the_wrapper(running: Network, tmp_path: Path) -> None:
    """Modules in PYTHONPATH do not affect imds-detour, also if PYTHONPATH means the working directory."""
    folder = hostile(tmp_path, *NAMES)
    for path in (folder, f"/nowhere:{folder}", ".", f":{folder}:"):
        script = f'cd {folder} && exec {DETOUR} sh -c "echo started with \\$PYTHONPATH"'
        done = running.raw("sh", "-c", script, environ={**ENVIRON, "PYTHONPATH": path})
        assert (done.returncode, done.stdout) == (0, f"started with {path}\n".encode()), done.stderr
        assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("wrapper", [(), (DETOUR,)], ids=["plain", "app"])
def test_pythonpath_affects_python_and_the_app(running: Network, tmp_path: Path, wrapper: tuple[str, ...]) -> None:
    """The app imports the modules in PYTHONPATH and ends, as does plain Python, the negative control."""
    path = {"PYTHONPATH": hostile(tmp_path, *NAMES)}
    done = running.raw(*wrapper, sys.executable, "-c", "import socket", environ={**ENVIRON, **path})
    *before, last = done.stderr.splitlines()
    assert (done.returncode, len(before), last) == (77, len(wrapper), b"hostile socket")


@pytest.mark.parametrize("name", ["sitecustomize", "usercustomize"])
def test_sitecustomize_does_not_affect_the_wrapper(running: Network, tmp_path: Path, name: str) -> None:
    """A sitecustomize with a thread and patched modules, like a tracing agent's, does not affect imds-detour."""
    (tmp_path / f"{name}.py").write_text(
        "import os, signal, socket, sys, threading\n"
        "signal.signal(signal.SIGTERM, print)\n"
        "socket.socket = sys.modules['dns'] = None\n"
        "threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    )
    environ = {**ENVIRON, "PYTHONPATH": str(tmp_path)}
    with_agent = running.raw(DETOUR, "grep", "^Sig[BIC]\\|^Threads", "/proc/self/status", environ=environ)
    without = running.raw("grep", "^Sig[BIC]\\|^Threads", "/proc/self/status", environ=environ)
    assert (with_agent.returncode, with_agent.stdout) == (0, without.stdout), with_agent.stderr


def test_script_folder_modules_do_not_affect_the_wrapper(running: Network, tmp_path: Path) -> None:
    """Modules in the folder of pip's script, which Python searches first, do not affect imds-detour."""
    shutil.copy(DETOUR, tmp_path / "imds-detour")
    hostile(tmp_path, *NAMES)
    done = running.raw(str(tmp_path / "imds-detour"), "echo", "started", environ=ENVIRON)
    assert (done.returncode, done.stdout) == (0, b"started\n"), done.stderr


@pytest.mark.parametrize("place", ["entered", "PWD"])
def test_working_directory_modules_do_not_affect_the_wrapper(running: Network, tmp_path: Path, place: str) -> None:
    """Modules in the working directory do not affect imds-detour."""
    folder = hostile(tmp_path, *NAMES, "re", "os", "imds_detour", "sitecustomize", "usercustomize")
    words = ("sh", "-c", f'cd {folder} && exec "$@"', "sh")
    environ = {**ENVIRON, **({"PWD": folder, "HOME": folder} if place == "PWD" else {})}
    done = running.raw(*words, DETOUR, "sh", "-c", "echo started in $PWD", environ=environ)
    assert (done.returncode, done.stdout) == (0, f"started in {folder}\n".encode()), done.stderr
    assert done.stderr.count(b"\n") == 1
    naive = running.raw(*words, sys.executable, "-c", "import socket", environ=environ)  # negative control
    assert (naive.returncode, naive.stderr) == (77, b"hostile socket\n")


def test_pythonhome_stops_a_pip_install_before_any_change(network: Network, tmp_path: Path) -> None:
    """With PYTHONHOME a pip install's interpreter fails with 1 before imds-detour's first line: no app, no rule."""
    network.start_mock("--quiet")
    for home in ("/nowhere", str(tmp_path), hostile(tmp_path, *NAMES)):
        done = network.raw(DETOUR, "echo", "started", environ={**SETTINGS, "PYTHONHOME": home})
        assert (done.returncode, done.stdout) == (1, b"")
        assert b"No module named 'encodings'" in done.stderr
        assert (network.detour_rules(), network.app.run("nft", "list", "ruleset").stdout) == ("", "")
    assert network.raw(DETOUR, "echo", "started", environ=SETTINGS).stdout == b"started\n"


SWITCHES = (
    *("PYTHONASYNCIODEBUG", "PYTHONDEVMODE", "PYTHONDONTWRITEBYTECODE", "PYTHONFAULTHANDLER", "PYTHONINSPECT"),
    *("PYTHONNOUSERSITE", "PYTHONSAFEPATH", "PYTHONUNBUFFERED"),
)
VARIABLES = {
    **dict.fromkeys(SWITCHES, "1"),
    **dict.fromkeys(("PYTHONPYCACHEPREFIX", "PYTHONUSERBASE"), "/nowhere"),
    "PYTHONBREAKPOINT": "no.where",
    "PYTHONHASHSEED": "0",
    "PYTHONIOENCODING": "utf-16",
    "PYTHONMALLOC": "debug",
    "PYTHONOPTIMIZE": "2",
    "PYTHONSTARTUP": "/etc/passwd",
    "PYTHONTRACEMALLOC": "5",
    "PYTHONUTF8": "0",
    "PYTHONWARNINGS": "error",
    "PYTHON_VERSION": "3.11.0",
}


@pytest.mark.parametrize("name", VARIABLES)
def test_interpreter_variable_changes_nothing(running: Network, name: str) -> None:
    """With a PYTHON* variable there is one line on stderr, and the app's environment and limits are unchanged."""
    entries = (f"{name}={VARIABLES[name]}".encode(), b"TWICE=1", b"=x", b"NO_EQUALS", *ENTRIES, b"TWICE=2")
    command = ("/bin/cat", "/proc/self/environ", "/proc/self/limits")
    assert with_environ(running, entries, DETOUR, *command) == with_environ(running, entries, *command)
    done = running.raw(DETOUR, "true", environ={**ENVIRON, name: VARIABLES[name]})
    assert (done.returncode, done.stderr.count(b"\n")) == (0, 1), done.stderr
    # PYTHONINSPECT opens a prompt after any Python program.
    done = running.raw(DETOUR, "--version", environ={name: VARIABLES[name]}, stdin=b"print(1)\n")
    assert (done.returncode, done.stdout) == (0, f"imds-detour {imds_detour.__version__}\n".encode())


@pytest.mark.parametrize("locale", [(), (b"LC_ALL=C",), (b"LC_CTYPE=POSIX", b"LC_CTYPE=C.UTF-8"), (b"LC_CTYPE",)])
def test_locale_survives_a_second_interpreter(running: Network, locale: tuple[bytes, ...]) -> None:
    """The LC_CTYPE that the first interpreter sets does not reach the app through the second one."""
    entries = (b"PYTHONPATH=/nowhere", *locale, *ENTRIES)
    assert with_environ(running, entries, DETOUR, "/bin/cat", "/proc/self/environ") == joined(entries)


IMAGES = {"PYTHON": "python3", "PYTHON_VERSION": "3.11.0", "PYTHONPATH": ""}


@pytest.mark.parametrize(
    ("environ", "interpreters"),
    [
        ({}, 1),
        (dict.fromkeys(("PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"), "1") | IMAGES, 1),
        ({"PYTHONPATH": "/app"}, 2),
    ],
)
def test_second_interpreter_starts_only_if_needed(running: Network, environ: dict[str, str], interpreters: int) -> None:
    """Only a variable that affects the interpreter makes it start again. Those of Python's images do not."""
    trace = strace(log="/run/execs", calls=["execve"], options=("-e", "status=successful"))
    running.raw(*trace, DETOUR, "true", environ={**ENVIRON, **environ})
    assert len(calls_made(running.app.run("cat", "/run/execs").stdout)) == interpreters + 1


@pytest.mark.parametrize("environ", [{}, {"PYTHONPATH": "/nowhere"}], ids=["plain", "PYTHONPATH"])
def test_launched_argument_of_a_user_is_a_command(running: Network, environ: dict[str, str]) -> None:
    """A user's --launched= is a command: the argument is internal to the launcher."""
    done = running.raw(DETOUR, "--launched=0:0", "true", environ={**ENVIRON, **environ})
    assert done.returncode == 127
    assert done.stderr.startswith(b"imds-detour: command not found in PATH: '--launched=0:0'")


MASKS = {"nothing": ((), ()), "some": ((signal.SIGUSR1, signal.SIGRTMIN + 3), (signal.SIGHUP, signal.SIGPIPE))}
LAUNCHER = """
import os, signal, sys
blocked, ignored = ([int(number) for number in words.split()] for words in sys.argv[1:3])
for number in ignored:
    signal.signal(number, signal.SIG_IGN)
for number in {signal.SIGPIPE, signal.SIGXFSZ}.difference(ignored):
    signal.signal(number, signal.SIG_DFL)
signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
if sys.argv[3] != "-":
    stops = {1, 2, 3, 10, 12, 15, *range(signal.SIGRTMIN, signal.SIGRTMAX + 1)}
    signal.pthread_sigmask(signal.SIG_BLOCK, stops)
    masks = (sum(1 << number - 1 for number in numbers) for numbers in (blocked, ignored))
    sys.argv[7:7] = ["--launched=" + ":".join(f"{mask:016x}" for mask in masks)]
    for number in filter(None, sys.argv[3].split(",")):
        os.kill(os.getpid(), int(number))
os.execv(sys.argv[4], sys.argv[4:])
"""
"""The bundle's launcher (bundle/launcher.c) in Python; with "-" it only sets the masks and executes the command."""


def launched(network: Network, masks: str, pending: str, *command: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command with signal masks, by pip.py with a launcher's argument, or alone."""
    blocked, ignored = (" ".join(str(int(number)) for number in numbers) for numbers in MASKS[masks])
    return network.raw(sys.executable, "-c", LAUNCHER, blocked, ignored, pending, *command, environ=ENVIRON)


SHOW = ("/bin/grep", "^Sig[BI]\\|^ShdPnd\\|^SigPnd", "/proc/self/status")


@pytest.mark.parametrize("masks", MASKS)
def test_launcher_hands_its_signal_masks_to_the_app(running: Network, masks: str) -> None:
    """With a launcher the app has exactly the launcher's initial signal masks, SIGPIPE included."""
    done = launched(running, masks, "", sys.executable, "-I", CONSOLE, *SHOW)
    assert (done.returncode, done.stdout) == (0, launched(running, masks, "-", *SHOW).stdout), done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGRTMIN + 5])
def test_stop_before_the_interpreter_ends_the_start(running: Network, number: int) -> None:
    """A stop signal that the launcher blocked ends the start as soon as the handlers are installed."""
    done = launched(running, "nothing", str(int(number)), sys.executable, "-I", CONSOLE, "/bin/echo", "started")
    assert (done.returncode, done.stdout, done.stderr) == (128 + number, b"", b"")


def test_signal_blocked_by_the_parent_stays_pending_for_the_app(running: Network) -> None:
    """A signal that the parent blocked stays pending for the app. An ignored one is discarded."""
    done = launched(running, "some", "10,1", sys.executable, "-I", CONSOLE, *SHOW)
    assert done.returncode == 0, done.stderr
    pending = next(line for line in done.stdout.splitlines() if line.startswith(b"ShdPnd"))
    assert int(pending.split()[1], 16) == 1 << signal.SIGUSR1 - 1


@pytest.mark.parametrize("path", [None, "", "/nowhere"])
def test_start_needs_no_path_home_or_locale(running: Network, path: str | None) -> None:
    """A start works without PATH, HOME, locale and terminal."""
    environ = {"MOCK_HOSTNAME": MOCK, "MOCK_PORT": PORT, **({} if path is None else {"PATH": path})}
    done = running.raw(DETOUR, "/bin/cat", "/proc/self/environ", environ=environ)
    assert done.stdout == joined([f"{name}={value}".encode() for name, value in environ.items()]), done.stderr


INTERRUPTED_EARLY = """
import os, signal, sys
from imds_detour.bootstrap import excepthook
if sys.argv[1] == "installed":
    excepthook.install_excepthook()
os.kill(os.getpid(), signal.SIGINT)
"""


@pytest.mark.parametrize(("hook", "status", "says"), [("installed", 130, b""), ("absent", -2, b"KeyboardInterrupt")])
def test_early_interrupt_has_no_traceback(running: Network, hook: str, status: int, says: bytes) -> None:
    """An interrupt before the signal handlers ends with status 130 and no traceback. The control is plain Python."""
    done = running.raw(sys.executable, "-c", INTERRUPTED_EARLY, hook, environ={"PATH": SETTINGS["PATH"]})
    assert done.returncode == status
    assert (done.stderr == b"") is (says == b"")
    assert says in done.stderr
