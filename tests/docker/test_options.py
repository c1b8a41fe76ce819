"""What users and hardening guides pass to `docker run`, each with an app behind the detour."""

from __future__ import annotations

import os
import pty
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.docker.images import fetch
from tests.support.hosts.network import ID_URL, INSTANCE

if TYPE_CHECKING:
    from tests.docker.conftest import Scene

NO_NET_ADMIN = (
    "imds-detour: no NET_ADMIN capability;"
    " add it: in Compose `cap_add: [NET_ADMIN]`, with docker run `--cap-add NET_ADMIN`"
)


def test_without_net_admin_the_app_does_not_start(scene: Scene) -> None:
    """One line says what to add, and Docker's own status for a container that could not start."""
    image = scene.images.app("busybox")
    done = scene.lan.run("--env", "MOCK_HOSTNAME=mock_metadata:1338", image, "echo", "started")
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr.startswith(NO_NET_ADMIN)
    assert len(done.stderr.splitlines()) == 1


def test_a_user_without_root_is_told_what_to_do(scene: Scene) -> None:
    """NET_ADMIN added to a container counts for root only."""
    image = scene.images.app("busybox")
    done = scene.lan.run(*scene.options(image, "--user", "1000"), "echo", "started")
    assert (done.returncode, done.stdout) == (125, "")
    assert "NET_ADMIN" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_without_a_mock_the_app_does_not_start(scene: Scene) -> None:
    """The deadline passes, and the line says which name did not resolve."""
    image = scene.images.app("busybox")
    done = scene.lan.run(
        *("--env", "MOCK_HOSTNAME=nobody", "--env", "MOCK_TIMEOUT=2", "--cap-add", "NET_ADMIN"),
        image,
        "echo",
        "started",
    )
    assert (done.returncode, done.stdout) == (125, "")
    assert "nobody" in done.stderr.splitlines()[-1]


HARDENED = {
    "cap-drop": (("--cap-drop", "ALL"), "nftables"),
    "cap-drop, NET_RAW": (("--cap-drop", "ALL", "--cap-add", "NET_RAW"), "legacy iptables"),
    "read-only": (("--read-only",), "legacy iptables"),
    "no-new-privileges": (("--security-opt", "no-new-privileges"), "legacy iptables"),
    "everything": (
        ("--cap-drop", "ALL", "--read-only", "--security-opt", "no-new-privileges", "--pids-limit", "16"),
        "nftables",
    ),
    "IPv6 off": (("--sysctl", "net.ipv6.conf.all.disable_ipv6=1"), "legacy iptables"),
    "small": (("--memory", "64m", "--cpus", "0.5"), "legacy iptables"),
}


@pytest.mark.parametrize("options", HARDENED)
def test_a_hardened_container_works(scene: Scene, options: str) -> None:
    """The firewall is the one that works with what is left, and the app reads the mock."""
    arguments, firewall = HARDENED[options]
    image = scene.images.app("busybox")
    done = scene.lan.run(*scene.options(image, *arguments), *fetch(image, ID_URL))
    assert done.stdout == INSTANCE, done.stderr
    assert firewall in done.stderr.splitlines()[-1]


def test_without_setpcap_no_new_privs_keeps_net_admin_away(scene: Scene) -> None:
    """With every capability dropped but NET_ADMIN the app has none, and our line says how."""
    image = scene.images.app("busybox")
    done = scene.lan.run(
        *scene.options(image, "--cap-drop", "ALL"), "grep", "-E", "^(CapPrm|CapEff|NoNewPrivs)", "/proc/self/status"
    )
    assert done.stdout.split() == ["CapPrm:", "0" * 16, "CapEff:", "0" * 16, "NoNewPrivs:", "1"], done.stderr
    assert "no_new_privs" in done.stderr


def test_behind_an_init(scene: Scene) -> None:
    """With --init the app is the child of Docker's init, and there is nothing between them."""
    app = scene.app("--init")
    assert [line.split()[0].rpartition("/")[2] for line in app.processes()] == ["docker-init", "sleep"]
    assert app.run(*fetch("busybox", ID_URL)).stdout == INSTANCE


def test_stdin_is_the_apps(scene: Scene) -> None:
    """`docker run -i`: not a byte of stdin is read before the app starts."""
    image = scene.images.app("busybox")
    done = scene.lan.run("--interactive", *scene.options(image), "cat", stdin="every\nline\n")
    assert done.stdout == "every\nline\n", done.stderr


def test_a_terminal_is_the_apps(scene: Scene) -> None:
    """`docker run -it`: the app has the terminal as its controlling one, and job control."""
    image = scene.images.app("busybox")
    ours, theirs = pty.openpty()
    command = scene.lan.command(
        "-it", *scene.options(image), "sh", "-c", "tty; echo in the foreground >/dev/tty; read line; echo got $line"
    )
    process = subprocess.Popen(command, env=scene.lan.engine.environ(), stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    os.write(ours, b"a line\n")
    said = b""
    while True:
        try:
            said += os.read(ours, 4096)
        except OSError:  # EIO: the other side is closed
            break
    os.close(ours)
    assert process.wait() == 0, said
    assert b"/dev/pts/0" in said
    assert b"in the foreground" in said
    assert b"got a line" in said


def test_a_terminal_alone(scene: Scene) -> None:
    """`docker run -t`: what the app prints arrives, after our line."""
    image = scene.images.app("busybox")
    done = scene.lan.run("--tty", *scene.options(image), "echo", "started")
    assert done.stdout.splitlines()[-1] == "started", done.stdout
