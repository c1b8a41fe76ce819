"""One folder, copied into any image, is all that it needs: the main job in roots without Python, libc or shell."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.bundle.conftest import PLACE, Root, add_busybox, compile_c, make_root
from tests.support.hosts.network import INSTANCE, SETTINGS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.hosts.network import Network

pytestmark = pytest.mark.slow

BACKENDS = ("legacy", "nft")


def run(
    network: Network, root: Root, *words: str, place: str = PLACE, **settings: str
) -> subprocess.CompletedProcess[str]:
    """Run a command behind the bundle in a root on the app's host; the mock is found by its name, in DNS."""
    environ = network.settings(None, **settings)
    return network.app.run(*root.command(f"/{place}/bin/imds-detour", *words), environ=environ, check=False)


def empty(path: Path, bundle: str) -> Root:
    """Make an image FROM scratch, with a static program."""
    return make_root(path, bundle)


def busybox(path: Path, bundle: str) -> Root:
    """Make one with a static busybox."""
    root = make_root(path, bundle)
    add_busybox(root)
    return root


def musl(path: Path, bundle: str) -> Root:
    """Make one in which the app is linked to musl, as in Alpine."""
    root = make_root(path, bundle)
    add_busybox(root)
    os.unlink(root.path / "app")
    compiler = shutil.which("musl-gcc") or pytest.skip("no musl: apt-get install musl-tools")
    compile_c("app.c", root.path / "app", compiler=compiler)
    (root.path / "lib").mkdir()
    loader = f"ld-musl-{os.uname().machine}.so.1"
    shutil.copy(os.path.realpath(f"/lib/{loader}"), root.path / "lib" / loader)
    return root


def read_only(path: Path, bundle: str) -> Root:
    """Make one that nobody can write to, as by ``docker run --read-only``."""
    return Root(make_root(path, bundle).path, writable=False)


def services(path: Path, bundle: str) -> Root:
    """Make one whose nsswitch.conf names services that the bundle has no library of, as on desktops."""
    root = make_root(path, bundle)
    (root.path / "etc/nsswitch.conf").write_text("hosts: mymachines mdns4_minimal [NOTFOUND=return] files dns\n")
    return root


ROOTS = (empty, busybox, musl, read_only, services)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", ROOTS, ids=[kind.__name__ for kind in ROOTS])
def test_the_main_job_is_done_in_any_root(
    clean: Network, bundle: str, tmp_path: Path, kind: Callable[[Path, str], Root], backend: str
) -> None:
    """The name is looked up in DNS, the rules are made, the mock is verified, and the app reads the mock's answer."""
    root = kind(tmp_path / "root", bundle)
    done = run(clean, root, "/app", "one", "", "two words", MOCK_BACKEND=backend)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{INSTANCE}\n/app\0one\0\0two words\0")
    name = {"legacy": "legacy iptables", "nft": "nftables"}[backend]
    assert f", {name}, verified IMDSv2 {INSTANCE}, " in done.stderr
    assert done.stderr.count("\n") == 1


def test_without_the_bundle_the_app_does_not_reach_the_mock(clean: Network, bundle: str, tmp_path: Path) -> None:
    """Negative control: the same app in the same root, started directly."""
    root = make_root(tmp_path / "root", bundle)
    done = clean.app.run(*root.command("/app"), environ=SETTINGS, check=False)
    assert INSTANCE not in done.stdout


@pytest.mark.parametrize("place", ["imds-detour", "a b/ü/$x", "usr"], ids=ascii)
def test_it_runs_from_wherever_it_is_copied_to(clean: Network, bundle: str, tmp_path: Path, place: str) -> None:
    """The path is not written into it anywhere."""
    root = make_root(tmp_path / "root", bundle, place=place)
    done = run(clean, root, "/app", place=place)
    assert (done.returncode, done.stdout[: len(INSTANCE)]) == (0, INSTANCE), done.stderr


def test_it_may_be_called_by_a_link(clean: Network, bundle: str, tmp_path: Path) -> None:
    """Links on PATH, of either program and by any name, lead to the folder."""
    root = make_root(tmp_path / "root", bundle)
    (root.path / "bin").mkdir()
    (root.path / "bin/entrypoint").symlink_to(f"../{PLACE}/bin/imds-detour")
    done = clean.app.run(*root.command("/bin/entrypoint", "--version"), environ=SETTINGS)
    assert done.stdout.startswith("imds-detour ")


def test_the_name_may_stand_in_etc_hosts(clean: Network, bundle: str, tmp_path: Path) -> None:
    """Compose's extra_hosts, with no DNS server that knows the name."""
    root = make_root(tmp_path / "root", bundle)
    clean.app.write("hosts", "127.0.0.1 localhost\n10.88.0.3 only_in_hosts\n")
    done = run(clean, root, "/app", MOCK_HOSTNAME="only_in_hosts")
    assert done.returncode == 0, done.stderr


def test_the_tool_runs_in_an_empty_root(clean: Network, bundle: str, tmp_path: Path) -> None:
    """Each verb that needs nothing but the kernel."""
    root = make_root(tmp_path / "root", bundle)
    for word, says in {
        "--help": "usage: imds-detourctl",
        "--version": "imds-detourctl ",
        "plan": "10.88.0.3:1338",
        "init": "",
        "status": "169.254.169.254",
        "remove": "removed",
    }.items():
        command = root.command(f"/{PLACE}/bin/imds-detourctl", word)
        done = clean.app.run(*command, environ=clean.settings(), check=False)
        assert done.returncode == 0, done.stderr
        assert says in done.stdout


def test_the_mock_runs_in_an_empty_root(clean: Network, bundle: str, tmp_path: Path) -> None:
    """As the mock image does, its data included; SIGTERM ends it."""
    root = make_root(tmp_path / "root", bundle)
    command = root.command(f"/{PLACE}/bin/imds-detourctl", "mock", "--listen", "127.0.0.1:8338")
    with clean.app.popen(*command, environ=SETTINGS, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as mock:
        assert mock.stdout is not None
        assert mock.stdout.readline()
        url = "http://127.0.0.1:8338/latest/meta-data/instance-id"
        assert clean.app.run("curl", "-sS", "--fail", url).stdout == INSTANCE
        mock.terminate()
        assert mock.wait(timeout=20) == 0
