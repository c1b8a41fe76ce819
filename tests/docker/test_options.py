"""Options of `docker run` from users and hardening guides, each with an app and imds-detour."""

import os
import pty
import subprocess

import pytest

from tests.docker.conftest import Scene
from tests.docker.images import fetch
from tests.support.hosts.network import ID_URL, INSTANCE


def test_without_net_admin_the_app_does_not_start(scene: Scene) -> None:
    """Without NET_ADMIN the app does not start, and a line says to add it."""
    done = scene.lan.run("--env", "MOCK_HOSTNAME=mock_metadata:1338", scene.images.app("busybox"), "echo", "started")
    assert (done.returncode, done.stdout) == (125, "")
    (line,) = done.stderr.splitlines()
    add = "add it: in Compose `cap_add: [NET_ADMIN]`, with docker run `--cap-add NET_ADMIN`"
    assert line.startswith(f"imds-detour: no NET_ADMIN capability; {add}")


@pytest.mark.parametrize(
    ("options", "word"),
    [(("--user", "1000"), "NET_ADMIN"), (("--env=MOCK_HOSTNAME=no-such-host", "--env=MOCK_TIMEOUT=2"), "no-such-host")],
)
def test_app_does_not_start_without_root_or_a_mock(scene: Scene, options: tuple[str, ...], word: str) -> None:
    """Another user than root has no NET_ADMIN, and a name is not resolved until the timeout; the last line says so."""
    done = scene.run("echo", "started", options=options)
    assert (done.returncode, done.stdout) == (125, "")
    assert word in done.stderr.splitlines()[-1]
    assert len(done.stderr.splitlines()) == 1 or "--user" not in options


HARDENED = {
    "cap-drop": (("--cap-drop", "ALL"), "nftables"),
    "cap-drop, NET_RAW": (("--cap-drop", "ALL", "--cap-add", "NET_RAW"), "legacy iptables"),
    "read-only": (("--read-only",), "legacy iptables"),
    "no-new-privileges": (("--security-opt", "no-new-privileges"), "legacy iptables"),
    "everything": (
        ("--cap-drop", "ALL", "--read-only", "--security-opt=no-new-privileges", "--pids-limit=16"),
        "nftables",
    ),
    "IPv6 off": (("--sysctl", "net.ipv6.conf.all.disable_ipv6=1"), "legacy iptables"),
    "small": (("--memory", "64m", "--cpus", "0.5"), "legacy iptables"),
}


@pytest.mark.parametrize("options", HARDENED)
def test_app_in_a_hardened_container_reads_the_mock(scene: Scene, options: str) -> None:
    """With hardening options the app reads the mock, by the backend that still works."""
    arguments, firewall = HARDENED[options]
    done = scene.run(*fetch("busybox", ID_URL), options=arguments)
    assert done.stdout == INSTANCE, done.stderr
    assert firewall in done.stderr.splitlines()[-1]


def test_no_new_privs_replaces_a_missing_setpcap(scene: Scene) -> None:
    """With all capabilities but NET_ADMIN dropped, no_new_privs keeps NET_ADMIN from the app, and a line names it."""
    read = ("grep", "-E", "^(CapPrm|CapEff|NoNewPrivs)", "/proc/self/status")
    done = scene.run(*read, options=("--cap-drop", "ALL"))
    assert done.stdout.split() == ["CapPrm:", "0" * 16, "CapEff:", "0" * 16, "NoNewPrivs:", "1"], done.stderr
    assert "no_new_privs" in done.stderr


def test_app_is_the_child_of_dockers_init(scene: Scene) -> None:
    """With --init the app is the direct child of Docker's init."""
    app = scene.app("--init")
    assert [line.split()[0].rpartition("/")[2] for line in app.processes()] == ["docker-init", "sleep"]
    assert app.run(*fetch("busybox", ID_URL)).stdout == INSTANCE


def test_stdin_reaches_the_app_and_its_output_a_terminal(scene: Scene) -> None:
    """With `docker run -i` the app reads all of stdin, and with -t its output follows imds-detour's line."""
    done = scene.run("cat", options=("--interactive",), stdin="every\nline\n")
    assert done.stdout == "every\nline\n", done.stderr
    done = scene.run("echo", "started", options=("--tty",))
    assert done.stdout.splitlines()[-1] == "started", done.stdout


def test_app_has_a_controlling_terminal(scene: Scene) -> None:
    """With `docker run -it` the app has a controlling terminal and job control."""
    image = scene.images.app("busybox")
    own, other = pty.openpty()
    command = scene.lan.command(
        "-it", *scene.options(image), "sh", "-c", "tty; echo in the foreground >/dev/tty; read line; echo got $line"
    )
    process = subprocess.Popen(command, env=scene.lan.engine.environ(), stdin=other, stdout=other, stderr=other)
    os.close(other)
    os.write(own, b"a line\n")
    said = b""
    while True:
        try:
            said += os.read(own, 4096)
        except OSError:  # EIO: the other side is closed
            break
    os.close(own)
    assert process.wait() == 0, said
    assert b"/dev/pts/0" in said
    assert b"in the foreground" in said
    assert b"got a line" in said
