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


def demo(*command: str, stdin: str | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a demo to its end, with these variables."""
    settings = {**environ(), **variables}
    return subprocess.run(command, env=settings, input=stdin, capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.parametrize("path", [os.environ["PATH"], "/usr/local/bin:/usr/bin:/bin"], ids=["root", "user"])
def test_demo_shows_steps_rule_and_instance_id(path: str) -> None:
    """The demo shows steps, rule and id, for IMDSv1 and IMDSv2, also with a PATH without sbin (a user of Debian)."""
    done = demo(CTL, "demo", PATH=path)
    assert "Traceback" not in done.stderr
    assert "$ iptables-legacy-save\n-A OUTPUT -d 169.254.169.254/32 " in done.stdout
    assert len((done.stdout + done.stderr).splitlines()) < 40
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines().count(INSTANCE) == 2
    assert "-j DNAT --to-destination 10.88.0.3:1338" in done.stdout
    assert "verified IMDSv2" in done.stderr


def test_demo_shows_nftables_rules() -> None:
    """On a kernel without legacy iptables the demo shows the nftables rules and no iptables."""
    done = demo(sys.executable, f"{SUPPORT}/faults/seccomp.py", "legacy", CTL, "demo")
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
    done = demo(CTL, "demo", PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert (done.returncode, "Traceback" in done.stderr) == (125, False), done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("imds-detour: ")
    assert last.endswith(line)


def test_demo_command_has_folder_streams_and_status(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's command reads the mock and the terminal, in the current folder, and its exit status is the demo's."""
    monkeypatch.chdir(tmp_path)
    done = demo(CTL, "demo", "--command", f"pwd; cat; curl -sS {ID_URL}; exit 7", stdin="typed\n")
    assert (done.returncode, done.stdout) == (7, f"{tmp_path}\ntyped\n{INSTANCE}"), done.stderr


@pytest.mark.parametrize("number", first_quick([signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL]))
@pytest.mark.parametrize(
    ("command", "word"), [("echo started; exec sleep 60", "started"), ("true", "waiting")], ids=["app", "wait"]
)
def test_stopped_demo_leaves_nothing(number: signal.Signals, command: str, word: str, tmp_path: pathlib.Path) -> None:
    """After a signal no process, namespace or file of the demo is left, while the app runs or the wrapper waits."""
    words = (CTL, "demo", "--command", command)
    settings = environ(TMPDIR=str(tmp_path))
    with subprocess.Popen(  # in its own process group, as a shell with job control does
        words, env=settings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, process_group=0
    ) as demo:
        assert demo.stdout is not None
        assert any(word in line for line in demo.stdout), f"the demo never said {word!r}"
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
    assert (processes(tmp_path), list(tmp_path.iterdir())) == (set(), [])
