"""The bundle's content: complete, minimal, documented, and independent of this machine."""

import glob
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.bundle.conftest import MACHINES, PROJECT, build, python

pytestmark = pytest.mark.slow

CEILINGS = {"python3.11": 6_000_000}
"""The maximum of bytes of the .tar.gz, the size of an image layer in a registry, for the Python of Debian 12."""
CEILING = 6_400_000
"""The maximum for later Pythons: Debian 13's interpreter and libraries are larger."""
STATIC = ("bin/imds-detour", "bin/imds-detourctl")
PAGES = {"amd64": 0x1000, "arm64": 0x10000}
"""The largest page of a kernel for the architecture, to which the segments of programs must be aligned."""


def files(folder: str) -> dict[str, str]:
    """Return relative and full path of each file of the bundle, links included."""
    paths = (os.path.join(place, name) for place, _, names in os.walk(folder) for name in names)
    return {os.path.relpath(path, folder): path for path in sorted(paths)}


@pytest.fixture(scope="module", params=MACHINES)
def architecture(request: pytest.FixtureRequest) -> str:
    """Return Debian's name of each architecture."""
    return str(request.param)


@pytest.fixture(scope="module")
def built(architecture: str) -> str:
    """Return the folder of each architecture's bundle."""
    return build(architecture)


def debian_root(built: str) -> str:
    """Return the root file system that a bundle's packages are in: this machine's, or the unpacked packages."""
    unpacked = f"{built}.debian/root"
    return unpacked if os.path.exists(unpacked) else ""


@pytest.fixture(scope="module")
def sbom(built: str) -> dict[str, Any]:
    """Return the bill of materials."""
    with open(f"{built}/imds-detour.cdx.json") as file:
        document: dict[str, Any] = json.load(file)
    return document


def test_archive_is_below_its_ceiling(built: str) -> None:
    """The archive is smaller than its ceiling."""
    (interpreter,) = os.listdir(f"{built}/libexec")
    assert os.stat(f"{built}.tar.gz").st_size <= CEILINGS.get(interpreter, CEILING)


def test_two_builds_are_the_same_bytes(built: str, architecture: str, tmp_path: Path) -> None:
    """A second build is the same, with another folder, HOME, umask and locale, and another build's wheels in caches."""
    target, other = tmp_path / "a folder/imds-detour", f"{tmp_path}/other/bin/python"
    packages = f"{target}.dependencies/packages"  # pip's cache knows a wheel by the path of its source
    shutil.copytree(f"{built}.dependencies/packages", packages)
    shutil.copytree(packages, tmp_path / "packages")
    if debian_root(built):
        shutil.copytree(f"{built}.debian/packages", f"{target}.debian/packages")
    environ = {**os.environ, "HOME": str(tmp_path), "PIP_CACHE_DIR": f"{tmp_path}/cache", "PIP_NO_INDEX": "1"}
    flags = {"CFLAGS": "-g", "LDFLAGS": f"-Wl,-rpath,{tmp_path},--build-id"}
    build = (other, "-m", "pip", "wheel", "--quiet", "--use-pep517", f"--find-links={packages}", "--wheel-dir")
    for *command, environment in (
        ("/usr/bin/python3", "-m", "venv", f"{tmp_path}/other", environ),
        (*build, f"{tmp_path}/packages", "python-iptables", {**environ, **flags}),
        (*build, f"{tmp_path}/again", "python-iptables", environ),
    ):
        subprocess.run(command, check=True, env=environment, capture_output=True)
    (wheel,) = glob.glob(f"{tmp_path}/again/*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".so"))
        traces = own_traces(archive.extract(name, tmp_path), str(tmp_path))
    assert len(traces) == 3, f"negative control: pip takes the wheel of the other build from its cache: {traces}"

    environ |= {"TZ": "Asia/Kathmandu", "LC_ALL": "C", "COLUMNS": "40", "LD_RUN_PATH": str(tmp_path), "CPPFLAGS": "-g"}
    environ["PIP_FIND_LINKS"] = f"{tmp_path}/packages"
    command = [f"{PROJECT}/scripts/bundle", str(target), architecture]
    subprocess.run(command, check=True, env=environ, umask=0o77, capture_output=True)
    different = [name for name, path in files(built).items() if not _same(path, f"{target}/{name}")]
    assert not different
    assert _same(f"{built}.tar.gz", f"{target}.tar.gz")


def own_traces(path: str, *folders: str) -> list[str]:
    """Return what an ELF file tells of the machine that built it: paths in it, and its build id."""
    shown = output("readelf", "--wide", "--dynamic", "--notes", path)
    with open(path, "rb") as file:
        content = file.read()
    return re.findall(r"R(?:UN)?PATH.*|Build ID.*", shown) + [name for name in folders if name.encode() in content]


def test_compiled_files_have_no_trace_of_the_machine(built: str) -> None:
    """The launchers and python-iptables' wrapper have no RUNPATH, build id or path; Debian's files have no RUNPATH."""
    folders = (PROJECT, os.path.expanduser("~"), sys.base_prefix, tempfile.gettempdir())
    for name, path in files(built).items():
        with open(path, "rb") as file:
            if file.read(4) != b"\x7fELF":
                continue
        own = name in STATIC or "libxtwrapper" in name
        traces = own_traces(path, *folders if own else (PROJECT,))
        assert [trace for trace in traces if own or "Build ID" not in trace] == [], name


def output(*command: str) -> str:
    """Return a command's output."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _same(one: str, other: str) -> bool:
    with open(one, "rb") as first, open(other, "rb") as second:
        return first.read() == second.read()


def test_bill_of_materials_lists_every_file(built: str, sbom: dict[str, Any]) -> None:
    """The bill of materials has each file with its hash, and each package with version, licence and purl."""
    listed = {file["name"]: file["hashes"][0]["content"] for part in sbom["components"] for file in part["components"]}
    there = files(built)
    del there["imds-detour.cdx.json"]  # it cannot hold its own hash
    assert sorted(listed) == sorted(there)
    for name, path in there.items():
        with open(path, "rb") as file:
            assert hashlib.sha256(file.read()).hexdigest() == listed[name], name
    for part in sbom["components"]:
        assert re.fullmatch(r"pkg:(deb|pypi)/\S+@\S+", part["purl"])
        assert part["version"]
        assert part["licenses"][0]["expression"]


def test_bill_of_materials_has_what_is_linked_statically(built: str, architecture: str, sbom: dict[str, Any]) -> None:
    """Each launcher names the source packages of which it holds a part; Debian's files and the wrapper hold none."""
    linked: dict[str, set[str]] = {}
    for part in sbom["components"]:
        for name in part["properties"]:
            linked.setdefault(os.path.basename(name["value"]).split(".")[0], set()).add(part["name"].split("-")[0])
            assert "?arch=source" in part["purl"]
    parts = {"musl"} if architecture == "amd64" else {"gcc", "musl"}  # libgcc calculates arm64's long double
    assert linked == dict.fromkeys(("imds-detour", "imds-detourctl"), parts)
    debian = [part["name"] for part in sbom["components"] if "pkg:deb" in part["purl"] and not part["properties"]]
    fields = "--showformat=${Built-Using}${Static-Built-Using}"
    database = f"--admindir={debian_root(built)}/var/lib/dpkg"
    assert output("dpkg-query", database, "--show", fields, *debian) == ""


def test_notice_names_every_package(built: str, sbom: dict[str, Any]) -> None:
    """NOTICE has each package, and its licence texts are in the bundle."""
    with open(f"{built}/NOTICE") as file:
        notice = file.read()
    for part in sbom["components"]:
        assert f"{part['name']} {part['version']}" in notice
        texts = os.listdir(f"{built}/share/licences/{part['name']}")
        assert all(os.stat(f"{built}/share/licences/{part['name']}/{text}").st_size for text in texts)
        assert texts == ["NOTICE"] if part["name"] == "python-iptables" else texts


def test_no_file_has_a_build_path(built: str) -> None:
    """No file contains a path of the build."""
    named = []
    for name, path in files(built).items():
        with open(path, "rb") as file:
            if PROJECT.encode() in file.read():
                named.append(name)
    assert not named


def test_file_modes_are_fixed(built: str) -> None:
    """Files are readable for all users, independent of the umask, and only programs are executable."""
    modes = {name: oct(os.stat(path).st_mode & 0o7777) for name, path in files(built).items()}
    programs = {name for name, mode in modes.items() if mode == "0o755"}
    assert programs == {*STATIC, *(name for name in modes if re.match(r"libexec/python|lib/ld-", name))}
    assert {mode for name, mode in modes.items() if name not in programs} == {"0o644"}


def test_needed_libraries_are_included(built: str) -> None:
    """Each library that a file needs is in the bundle."""
    there = {os.path.basename(name) for name in files(built)}
    for name, path in files(built).items():
        if ".so" in name or name.startswith("libexec"):
            assert set(re.findall(r"\(NEEDED\).*\[(.*)\]", output("readelf", "-d", path))) <= there, name


def test_segments_are_aligned_for_the_largest_pages(built: str, architecture: str) -> None:
    """Every program and library can be loaded by a kernel with the architecture's largest pages, and is for it."""
    machines = set()
    for name, path in files(built).items():
        with open(path, "rb") as file:
            if file.read(4) == b"\x7fELF":
                shown = output("readelf", "--file-header", "--program-headers", "--wide", path)
                alignments = [int(number, 16) for number in re.findall(r"^  LOAD .* (0x\w+)$", shown, re.MULTILINE)]
                assert min(alignments) >= PAGES[architecture], name
                machines |= set(re.findall(r"Machine: +(.*)", shown))
    assert machines == {{"amd64": "Advanced Micro Devices X86-64", "arm64": "AArch64"}[architecture]}


def test_architectures_have_the_same_files() -> None:
    """Both bundles have the same files, except for the names of machine and loader and the licence of libgcc."""
    names = [
        {
            re.sub(rf"{machine}|{machine.replace('_', '-')}", "MACHINE", name).replace(".so.1", ".so.2")
            for name in files(build(architecture))
            if "licences/gcc" not in name
        }
        for architecture, machine in MACHINES.items()
    ]
    assert names[0] == names[1]


def test_launcher_is_static(built: str) -> None:
    """The launcher is static, and both programs are the same file."""
    for name in STATIC:
        assert "INTERP" not in output("readelf", "-lW", f"{built}/{name}")
    assert _same(f"{built}/{STATIC[0]}", f"{built}/{STATIC[1]}")


IMPORT_ALL = """
import os, sys
(folder,) = [folder for folder in sys.path if os.path.isdir(folder) and "encodings" in os.listdir(folder)]
for place, _, names in os.walk(folder):
    for name in names:
        path = os.path.relpath(os.path.join(place, name), folder)
        # imds-detour replaces a part of iptc first; bundle.pyc runs the program
        if name.endswith(".pyc") and name != "bundle.pyc" and not path.startswith("iptc/"):
            module = path.removesuffix(".pyc").replace("/", ".").removesuffix(".__init__")
            try:
                __import__(module)
            except ImportError as error:
                print(module, error)
"""


def test_every_module_can_be_imported(bundle: str) -> None:
    """Each module of the bundle can be imported, so no late import fails."""
    done = subprocess.run([*python(bundle), "-c", IMPORT_ALL], capture_output=True, text=True, check=False, env={})
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_programs_print_the_checkouts_version(bundle: str) -> None:
    """Both programs print the version of the checkout."""
    for name, words in ((STATIC[0], "imds-detour"), (STATIC[1], "imds-detourctl")):
        shown = output(f"{bundle}/{name}", "--version")
        with open(f"{PROJECT}/src/imds_detour/__init__.py") as file:
            assert f'"{shown.removeprefix(words).strip()}"' in file.read()
