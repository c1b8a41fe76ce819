"""Images with the COPY line: Debian, busybox, and an image with only the app."""

import re

import pytest

from tests.docker.conftest import Scene
from tests.docker.images import BASES, PREFIX, fetch
from tests.support.hosts.network import ID_URL, INSTANCE, METADATA

NET_ADMIN = 1 << 12


@pytest.mark.parametrize("base", BASES)
def test_app_in_any_image_reads_the_mock(scene: Scene, base: str) -> None:
    """An app in any image reads the mock, and stderr has one line. Negative control: without imds-detour, no answer."""
    image = scene.images.app(base)
    done = scene.lan.run(*scene.options(image), *fetch(image, ID_URL))
    assert done.stdout == INSTANCE, done.stderr
    (line,) = (line for line in done.stderr.splitlines() if "waiting" not in line)
    assert f"verified IMDSv2 {INSTANCE}" in line
    assert done.returncode == 0
    plain = scene.lan.run("--entrypoint", "", image, *fetch(image, ID_URL))
    assert plain.returncode != 0
    assert INSTANCE not in plain.stdout


@pytest.mark.parametrize("base", BASES)
def test_other_port_of_the_metadata_address_is_refused(scene: Scene, base: str) -> None:
    """Another port of the metadata address is refused at once, so an SDK does not hang."""
    image = scene.images.app(base)
    done = scene.lan.run(*scene.options(image), *fetch(image, f"http://{METADATA}:8080/"))
    assert done.returncode != 0
    assert re.search("refused|Couldn't connect", done.stderr), done.stderr


def test_app_is_pid_1_and_loses_only_net_admin(scene: Scene) -> None:
    """`docker top` shows only the app, as process 1. Its capabilities are those of a container without NET_ADMIN."""
    app = scene.app()
    assert (app.processes(), app.reads("/proc/1/comm")) == (["sleep 3600"], "sleep")
    image = scene.images.app("busybox")
    read = ("grep", "-E", "^(Cap|NoNewPrivs|Seccomp|Sig[A-Z][a-z]|Uid|Gid|Groups)", "/proc/self/status")
    wrapped = scene.run(*read)
    plain = scene.lan.run("--entrypoint", "", image, *read)
    assert wrapped.stdout == plain.stdout, wrapped.stderr
    assert scene.lan.run("--cap-add", "NET_ADMIN", "--entrypoint", "", image, *read).stdout != plain.stdout


def test_app_cannot_remove_the_rules(scene: Scene) -> None:
    """`imds-detourctl remove` fails in the app, and works with NET_ADMIN kept."""
    remove = ("/opt/imds-detour/bin/imds-detourctl", "remove")
    assert scene.run(*remove).returncode == 125
    kept = scene.run(*remove, options=("--env", "MOCK_KEEP_NET_ADMIN=1"))
    assert kept.returncode == 0, kept.stderr


@pytest.mark.parametrize("base", ["busybox", "debian"])
def test_environment_and_folder_are_the_images(scene: Scene, base: str) -> None:
    """The app's environment and working directory are the same without imds-detour."""
    image = scene.images.app(base)
    look = ("sh", "-c", "tr '\\0' '\\n' </proc/self/environ | sort; pwd; umask; ls -l /proc/self/fd | wc -l")
    common = ("--env", "MOCK_HOSTNAME=mock_metadata:1338", "--hostname", "app", "--env", "LD_LIBRARY_PATH=/nowhere")
    wrapped = scene.lan.run(*common, "--cap-add", "NET_ADMIN", image, *look)
    assert wrapped.stdout == scene.lan.run(*common, "--entrypoint", "", image, *look).stdout, wrapped.stderr


def test_arguments_and_exit_status_are_kept(scene: Scene) -> None:
    """The app gets the exact arguments, and its exit status is the container's."""
    done = scene.run("sh", "-c", 'printf "<%s>" "$@"; exit 7', "sh", "", "a b", "$HOME", "*")
    assert (done.returncode, done.stdout, scene.run("no-such-program").returncode) == (7, "<><a b><$HOME><*>", 127)


def test_image_adds_only_the_folder(scene: Scene) -> None:
    """The example's image adds only /opt/imds-detour to its base."""
    listing = "find / -xdev -type f ! -path '/opt/*' ! -path '/proc/*' ! -path '/sys/*' ! -path '/etc/*'"
    wrapped = scene.lan.run("--entrypoint", "", scene.images.app("busybox"), "sh", "-c", listing)
    assert wrapped.stdout == scene.lan.run(f"{PREFIX}/busybox", "sh", "-c", listing).stdout
