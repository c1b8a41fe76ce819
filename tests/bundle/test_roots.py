"""The bundle works in root file systems without Python, libc or shell."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bundle.conftest import PLACE, Root, add_busybox, compile_c, make_root
from tests.support.hosts.network import INSTANCE, SETTINGS, Network

pytestmark = pytest.mark.slow

BACKENDS = ("legacy", "nft")


def run(
    network: Network, root: Root, *words: str, place: str = PLACE, **settings: str
) -> subprocess.CompletedProcess[str]:
    """Run a command with the bundle in a root on the app's host; DNS has the mock's name."""
    environ = network.settings(None, **settings)
    return network.app.run(*root.command(f"/{place}/bin/imds-detour", *words), environ=environ, check=False)


def empty(path: Path, bundle: str) -> Root:
    """Create a root like an image FROM scratch, with a static program."""
    return make_root(path, bundle)


def busybox(path: Path, bundle: str) -> Root:
    """Create a root with a static busybox."""
    root = make_root(path, bundle)
    add_busybox(root)
    return root


def musl(path: Path, bundle: str) -> Root:
    """Create a root with an app that is linked to musl, as in Alpine."""
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
    """Create a read-only root, as for ``docker run --read-only``."""
    return Root(make_root(path, bundle).path, writable=False)


def services(path: Path, bundle: str) -> Root:
    """Create a root whose nsswitch.conf names services without a library in the bundle."""
    root = make_root(path, bundle)
    (root.path / "etc/nsswitch.conf").write_text("hosts: mymachines mdns4_minimal [NOTFOUND=return] files dns\n")
    return root


@pytest.fixture
def root(tmp_path: Path, bundle: str) -> Root:
    """Return a root like an image FROM scratch."""
    return empty(tmp_path / "root", bundle)


ROOTS = (empty, busybox, musl, read_only, services)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", ROOTS, ids=[kind.__name__ for kind in ROOTS])
def test_app_in_any_root_reads_the_mock(
    clean: Network, bundle: str, tmp_path: Path, kind: Callable[[Path, str], Root], backend: str
) -> None:
    """In each root the mock is looked up, redirected to and verified, and the app reads its answer."""
    done = run(clean, kind(tmp_path / "root", bundle), "/app", "one", "", "two words", MOCK_BACKEND=backend)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{INSTANCE}\n/app\0one\0\0two words\0")
    name = {"legacy": "legacy iptables", "nft": "nftables"}[backend]
    assert f", {name}, verified IMDSv2 {INSTANCE}, " in done.stderr
    assert done.stderr.count("\n") == 1


def test_app_without_the_bundle_gets_no_answer(clean: Network, root: Root) -> None:
    """Negative control: the same app in the same root without the bundle gets no answer."""
    assert INSTANCE not in clean.app.run(*root.command("/app"), environ=SETTINGS, check=False).stdout


@pytest.mark.parametrize("place", ["imds-detour", "a b/ü/$x", "usr"], ids=ascii)
def test_bundle_runs_from_any_folder(clean: Network, bundle: str, tmp_path: Path, place: str) -> None:
    """The bundle works in any folder, also by a link of any name to one of the programs."""
    root = make_root(tmp_path / "root", bundle, place=place)
    done = run(clean, root, "/app", place=place)
    assert (done.returncode, done.stdout[: len(INSTANCE)]) == (0, INSTANCE), done.stderr
    (root.path / "bin").mkdir()
    (root.path / "bin/entrypoint").symlink_to(f"../{place}/bin/imds-detour")
    done = clean.app.run(*root.command("/bin/entrypoint", "--version"), environ=SETTINGS)
    assert done.stdout.startswith("imds-detour ")


def test_name_in_etc_hosts_is_resolved(clean: Network, root: Root) -> None:
    """A name in /etc/hosts, as from Compose's extra_hosts, is resolved without DNS."""
    clean.app.write("hosts", "127.0.0.1 localhost\n10.88.0.3 only_in_hosts\n")
    done = run(clean, root, "/app", MOCK_HOSTNAME="only_in_hosts")
    assert done.returncode == 0, done.stderr


def test_imds_detourctl_runs_in_an_empty_root(clean: Network, root: Root) -> None:
    """Each verb that needs only the kernel works in an empty root."""
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


def test_mock_runs_in_an_empty_root(clean: Network, root: Root) -> None:
    """The mock works in an empty root with its data, and SIGTERM ends it."""
    command = root.command(f"/{PLACE}/bin/imds-detourctl", "mock", "--listen", "127.0.0.1:8338")
    with clean.app.popen(*command, environ=SETTINGS, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as mock:
        assert mock.stdout is not None
        assert mock.stdout.readline()
        url = "http://127.0.0.1:8338/latest/meta-data/instance-id"
        assert clean.app.run("curl", "-sS", "--fail", url).stdout == INSTANCE
        mock.terminate()
        assert mock.wait(timeout=20) == 0
