"""One COPY line into an image: what the app sees, in Debian, in a busybox image and in one that holds the app alone."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.docker.images import BASES, PREFIX, fetch
from tests.support.hosts.network import ID_URL, INSTANCE, METADATA

if TYPE_CHECKING:
    from tests.docker.conftest import Scene

NET_ADMIN = 1 << 12


@pytest.mark.parametrize("base", BASES)
def test_an_app_of_any_image_reads_the_mock_at_the_metadata_address(scene: Scene, base: str) -> None:
    """The app's stdout is its own, our one line goes to stderr, and the exit status is the app's."""
    image = scene.images.app(base)
    done = scene.lan.run(*scene.options(image), *fetch(image, ID_URL))
    assert done.stdout == INSTANCE, done.stderr
    lines = [line for line in done.stderr.splitlines() if "waiting" not in line]
    assert len(lines) == 1, done.stderr
    assert f"verified IMDSv2 {INSTANCE}" in lines[0]
    assert done.returncode == 0


@pytest.mark.parametrize("base", BASES)
def test_without_us_nothing_answers_there(scene: Scene, base: str) -> None:
    """The control: in the same place the same app reaches nothing."""
    image = scene.images.app(base)
    done = scene.lan.run("--entrypoint", "", image, *fetch(image, ID_URL))
    assert done.returncode != 0
    assert INSTANCE not in done.stdout


@pytest.mark.parametrize("base", BASES)
def test_what_is_not_redirected_is_refused_at_once(scene: Scene, base: str) -> None:
    """An SDK that asks for another port moves on instead of hanging."""
    image = scene.images.app(base)
    done = scene.lan.run(*scene.options(image), *fetch(image, f"http://{METADATA}:8080/"))
    assert done.returncode != 0
    assert re.search("refused|Couldn't connect", done.stderr), done.stderr


def test_the_app_is_alone_and_pid_1(scene: Scene) -> None:
    """`docker top` shows the app and nothing of ours."""
    app = scene.app()
    assert app.processes() == ["sleep 3600"]
    assert app.reads("/proc/1/comm") == "sleep"


def test_the_app_has_lost_net_admin_and_nothing_else(scene: Scene) -> None:
    """Every set of capabilities is that of a container without NET_ADMIN."""
    image = scene.images.app("busybox")
    read = ("grep", "-E", "^(Cap|NoNewPrivs|Seccomp|Sig[A-Z][a-z]|Uid|Gid|Groups)", "/proc/self/status")
    ours = scene.lan.run(*scene.options(image), *read)
    plain = scene.lan.run("--entrypoint", "", image, *read)
    assert ours.stdout == plain.stdout, ours.stderr
    granted = scene.lan.run("--cap-add", "NET_ADMIN", "--entrypoint", "", image, *read)
    assert granted.stdout != plain.stdout


def test_the_app_cannot_take_the_rules_out(scene: Scene) -> None:
    """Our own remover fails in the app's place, where it works with NET_ADMIN kept."""
    image = scene.images.app("busybox")
    remove = ("/opt/imds-detour/bin/imds-detourctl", "remove")
    assert scene.lan.run(*scene.options(image), *remove).returncode == 125
    kept = scene.lan.run(*scene.options(image, "--env", "MOCK_KEEP_NET_ADMIN=1"), *remove)
    assert kept.returncode == 0, kept.stderr


@pytest.mark.parametrize("base", ["busybox", "debian"])
def test_environment_and_folder_are_those_of_the_image(scene: Scene, base: str) -> None:
    """The app sees what it would see without us. Docker's order of variables is chance."""
    image = scene.images.app(base)
    look = ("sh", "-c", "tr '\\0' '\\n' </proc/self/environ | sort; pwd; umask; ls -l /proc/self/fd | wc -l")
    common = ("--env", "MOCK_HOSTNAME=mock_metadata:1338", "--hostname", "app", "--env", "LD_LIBRARY_PATH=/nowhere")
    ours = scene.lan.run(*common, "--cap-add", "NET_ADMIN", image, *look)
    plain = scene.lan.run(*common, "--entrypoint", "", image, *look)
    assert ours.stdout == plain.stdout, ours.stderr


def test_exit_status_and_arguments_pass_through(scene: Scene) -> None:
    """As if the container had been started with the command itself."""
    image = scene.images.app("busybox")
    done = scene.lan.run(*scene.options(image), "sh", "-c", 'printf "<%s>" "$@"; exit 7', "sh", "", "a b", "$HOME", "*")
    assert done.stdout == "<><a b><$HOME><*>"
    assert done.returncode == 7
    assert scene.lan.run(*scene.options(image), "no-such-program").returncode == 127


def test_the_image_holds_no_more_than_the_folder(scene: Scene) -> None:
    """The example adds /opt/imds-detour to its base, and nothing else."""
    listing = "find / -xdev -type f ! -path '/opt/*' ! -path '/proc/*' ! -path '/sys/*' ! -path '/etc/*'"
    ours = scene.lan.run("--entrypoint", "", scene.images.app("busybox"), "sh", "-c", listing)
    base = scene.lan.run(f"{PREFIX}/busybox", "sh", "-c", listing)
    assert ours.stdout == base.stdout
