"""The build of the bundle knows Debian 13's packages. CONTRIBUTING.md describes a real build."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from bundle.packages import debian_owners, debian_package, debian_source
from bundle.programs import BundleError
from bundle.target import Target, prepare

from bundle import debian, native, packages

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LOADER = "/lib64/ld-linux-x86-64.so.2"
DIVERTED = f"diversion by libc6 from: {LOADER}\ndiversion by libc6 to: {LOADER}.usr-is-merged\n"
"""What dpkg-query of Debian 13 prints in addition, since its libc6 moves the loader to /usr."""
BUILD = {
    *("python3", "iptables", "musl-tools", "binutils", "python3-venv", "gcc", "libc6-dev", "python3-dev"),
    *("gcc-aarch64-linux-gnu", "gcc-x86-64-linux-gnu"),
}
"""The packages of Debian 13 that a build of the bundle installs there."""
BINARIES = (
    *("iptables", "libc6", "libexpat1", "libffi8", "libgcc-s1", "libip4tc2", "libip6tc2", "libxtables12", "zlib1g"),
    *("libpython3.13-minimal", "libpython3.13-stdlib", "python3.13-minimal"),
)
"""The packages of Debian 13 in its bundle."""
SOURCES = ("gcc-14", "glibc", "musl")
"""The source packages of Debian 13 that are linked statically."""
TARGET = Target("amd64", "x86_64-linux-gnu", "")


@pytest.mark.parametrize(("extra", "owned"), [("", True), (DIVERTED, True), (DIVERTED, False)])
def test_owner_of_a_diverted_file_is_its_package(extra: str, owned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A diversion is not the owner of a file. The control is a file without an owner."""
    shown = extra + f"libc6:amd64: {LOADER}\n" * owned
    done = subprocess.CompletedProcess((), 0, shown)
    monkeypatch.setattr("bundle.packages.subprocess.run", lambda *_command, **_options: done)
    monkeypatch.setattr(packages, "debian_package", lambda _target, name: name)
    if owned:
        assert str(debian_owners(TARGET, [LOADER])[LOADER]) == "libc6:amd64"
    else:
        with pytest.raises(BundleError, match=f"no Debian package brings {LOADER}"):
            debian_owners(TARGET, [LOADER])


def test_packages_of_debian_13_have_a_licence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each package of a bundle from Debian 13 has a licence and a purl; the control is a package that is not known."""
    monkeypatch.setattr(packages, "run", lambda *command: f"{command[-1]}|1:2+3|amd64|x|2")
    for name in BINARIES:
        assert debian_package.__wrapped__(TARGET, name).url.endswith(f"/{name}@1%3A2%2B3?arch=amd64")
    for name in SOURCES:
        monkeypatch.setattr(packages, "run", lambda *command: f"{command[-1]}-dev|{command[-1]}|2")
        assert debian_source.__wrapped__(TARGET, name).url.endswith(f"/{name}@2?arch=source")
    monkeypatch.setattr(packages, "run", lambda *_command: "unknown-dev|unknown|2")
    with pytest.raises(BundleError, match="what is the licence of unknown"):
        debian_source.__wrapped__(TARGET, "unknown")


def test_setup_for_the_bundle_needs_only_packages_of_debian_13() -> None:
    """scripts/setup names for the bundle only packages that Debian 13 has too."""
    with open(f"{ROOT}/scripts/setup") as file:
        common, _, _ = file.read().partition('if [ "$purpose" = arm64 ]; then')
    assert set(re.findall(r"\bneed ([a-z0-9-]+)", common)) - {"iproute2", "curl"} == BUILD


@pytest.mark.parametrize(
    ("files", "used"),
    [
        (("sources.list", "sources.list.d/google.list"), ["sources.list"]),
        (("sources.list.d/debian.sources", "sources.list.d/node.sources"), ["sources.list.d/debian.sources"]),
        (("sources.list.d/0000debian.sources",), ["sources.list.d/0000debian.sources"]),
        (("sources.list.d/mirror.list",), ["sources.list.d/mirror.list"]),
    ],
)
def test_packages_come_from_the_distributions_sources(tmp_path: Path, files: tuple[str, ...], used: list[str]) -> None:
    """Other vendors' sources, which may lack the architecture, are left out if the distribution's are known by name."""
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").touch()  # as Debian 13 has it, empty
    for name in files:
        (tmp_path / name).write_text("deb http://mirror stable main\n")
    assert debian._sources(str(tmp_path)) == [f"{tmp_path}/{name}" for name in used]  # noqa: SLF001  (no network)


def test_map_of_the_linker_tells_what_is_linked_statically(tmp_path: Path) -> None:
    """Objects and needed members of archives count; the project's own objects and archives without a part do not."""
    (tmp_path / "map").write_text(
        "Archive member included\n\nusr/lib/libc.a(exit.lo)\n              usr/lib/crt1.o (exit)\n"
        "\nMemory Configuration\n\nLOAD usr/lib/crt1.o\nLOAD /tmp/cc1.o\nLOAD build/x.o\nLOAD usr/lib/libgcc.a\n"
        "LOAD usr/lib/libc.so.6\n .text usr/lib/libother.a(x.o)\n"
    )
    for root in ("", "/a root"):
        target = Target("arm64", "aarch64-linux-gnu", root)
        assert native.linked_statically(target, f"{tmp_path}/map") == {
            f"{root}/usr/lib/{x}" for x in ("libc.a", "crt1.o")
        }


def test_target_is_this_machine_or_one_that_can_be_cross_built(tmp_path: Path) -> None:
    """No architecture is this machine's, with its installed packages; another than amd64 and arm64 is refused."""
    own = prepare("", str(tmp_path))
    assert (own.root, own.machine, own) == ("", os.uname().machine, prepare(own.architecture, str(tmp_path)))
    with pytest.raises(BundleError, match=r"ARCH=riscv64 .*use amd64 or arm64"):
        prepare("riscv64", str(tmp_path))
    assert list(tmp_path.iterdir()) == []
