"""The demo of the main job without Docker. It removes all it made, however it ends."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from imds_detour.ctl.lab.hosts import environ
from tests.support import SUPPORT
from tests.support.hosts.network import CTL, ID_URL, INSTANCE
from tests.support.marks import first_quick

COMMANDS = {
    "the app runs": (CTL, "demo", "--command", "echo started; exec sleep 60"),
    "the wrapper waits": (CTL, "demo", "--command", "true"),
}


def processes(folder: pathlib.Path) -> set[str]:
    """Return the command lines of the demo's processes, which have its TMPDIR in their environment."""
    commands = set()
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if f"TMPDIR={folder}\0".encode() in (entry / "environ").read_bytes():
                commands.add((entry / "cmdline").read_text(errors="replace").replace("\0", " "))
        except OSError:
            continue  # it has just ended
    return commands


def start(*command: str, folder: pathlib.Path) -> subprocess.Popen[str]:
    """Start a demo in its own process group, as a shell with job control does."""
    return subprocess.Popen(
        command,
        env=environ(TMPDIR=str(folder)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0,
    )


def until(demo: subprocess.Popen[str], word: str) -> None:
    """Read the demo's output until a line contains the word."""
    assert demo.stdout is not None
    assert any(word in line for line in demo.stdout), f"the demo never said {word!r}"


def test_demo_shows_steps_rule_and_instance_id() -> None:
    """The demo shows steps, rule and instance id, for IMDSv1 and IMDSv2."""
    done = subprocess.run((CTL, "demo"), env=environ(), capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines().count(INSTANCE) == 2
    assert "-j DNAT --to-destination 10.88.0.3:1338" in done.stdout
    assert "verified IMDSv2" in done.stderr


def test_demo_works_without_sbin_on_path() -> None:
    """The demo works with the PATH of an ordinary user of Debian, which has no sbin folders."""
    command = (CTL, "demo")
    settings = {**environ(), "PATH": "/usr/local/bin:/usr/bin:/bin"}
    done = subprocess.run(command, env=settings, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    assert "$ iptables-legacy-save\n*nat\n" in done.stdout or "$ iptables-legacy-save\n*filter\n" in done.stdout


def test_demo_shows_nftables_rules() -> None:
    """On a kernel without legacy iptables the demo shows the nftables rules and no iptables."""
    command = (sys.executable, f"{SUPPORT}/faults/seccomp.py", "legacy", CTL, "demo")
    done = subprocess.run(command, env=environ(), capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, "nftables, verified" in done.stderr) == (0, True), done.stderr
    assert "$ nft list table ip imds_detour\ntable ip imds_detour {\n" in done.stdout
    assert "dnat to 10.88.0.3:1338" in done.stdout
    assert "iptables" not in done.stdout


@pytest.mark.parametrize(
    ("tool", "line"),
    [
        ("readlink", "imds-detour: a network namespace could not be made; the error is above"),
        ("nsenter", "failed: no such luck"),
    ],
)
def test_demo_setup_failure_is_one_line(tool: str, line: str, tmp_path: pathlib.Path) -> None:
    """If a tool fails during the setup, the last line quotes it and the status is 125."""
    (tmp_path / tool).write_text("#!/bin/sh\necho no such luck >&2\nexit 1\n")
    (tmp_path / tool).chmod(0o755)
    settings = environ(PATH=f"{tmp_path}:{os.environ['PATH']}")
    done = subprocess.run((CTL, "demo"), env=settings, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (125, False), done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("imds-detour: ")
    assert last.endswith(line)


def test_demo_command_has_streams_and_exit_status() -> None:
    """The user's command reads the mock, has the terminal's streams, and its exit status is the demo's."""
    done = subprocess.run(
        (CTL, "demo", "--command", f"cat; curl -sS {ID_URL}; exit 7"),
        env=environ(),
        input="typed\n",
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout) == (7, f"typed\n{INSTANCE}")


def test_demo_command_runs_in_the_current_folder(tmp_path: pathlib.Path) -> None:
    """The user's command runs in the current folder, as in ``make demo CMD='python app.py'``."""
    call = (CTL, "demo", "--command", "pwd")
    done = subprocess.run(call, cwd=tmp_path, env=environ(), capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout == f"{tmp_path}\n", done.stderr


@pytest.mark.parametrize("number", first_quick([signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL]))
@pytest.mark.parametrize(("moment", "word"), [("the app runs", "started"), ("the wrapper waits", "waiting")])
def test_stopped_demo_leaves_nothing(number: signal.Signals, moment: str, word: str, tmp_path: pathlib.Path) -> None:
    """After a signal no process, namespace or file of the demo is left."""
    with start(*COMMANDS[moment], folder=tmp_path) as demo:
        until(demo, word)
        assert processes(tmp_path), "the check would see what is left"
        if number == signal.SIGINT:
            os.killpg(demo.pid, number)  # a terminal sends it to the whole foreground group
        else:
            demo.send_signal(number)
        rest, _ = demo.communicate(timeout=5)
    assert "Traceback" not in rest
    give_up = time.monotonic() + 2
    while processes(tmp_path) and time.monotonic() < give_up:
        time.sleep(0.01)  # the kernel is still ending the namespace's processes: nothing to shake hands with
    assert processes(tmp_path) == set()
    assert list(tmp_path.iterdir()) == []
