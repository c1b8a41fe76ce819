"""The bundle's content: complete, minimal, documented, and independent of this machine."""

import hashlib
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.bundle.conftest import PROJECT, python

pytestmark = pytest.mark.slow

CEILING = 6_000_000
"""The maximum of bytes of the .tar.gz, the size of an image layer in a registry."""
STATIC = ("bin/imds-detour", "bin/imds-detourctl")


def files(folder: str) -> dict[str, str]:
    """Return relative and full path of each file of the bundle, links included."""
    paths = (os.path.join(place, name) for place, _, names in os.walk(folder) for name in names)
    return {os.path.relpath(path, folder): path for path in sorted(paths)}


def test_two_builds_are_the_same_bytes(bundle: str, tmp_path: Path) -> None:
    """A second build in another folder and locale gives the same bytes, below the archive's ceiling."""
    assert os.stat(f"{bundle}.tar.gz").st_size <= CEILING
    shutil.copytree(f"{bundle}.dependencies", tmp_path / "imds-detour.dependencies", symlinks=True)
    environ = {**os.environ, "TZ": "Asia/Kathmandu", "LC_ALL": "C", "COLUMNS": "40"}
    subprocess.run(
        [f"{PROJECT}/scripts/bundle", str(tmp_path / "imds-detour")], check=True, env=environ, capture_output=True
    )
    different = [name for name, path in files(bundle).items() if not _same(path, f"{tmp_path}/imds-detour/{name}")]
    assert not different
    assert _same(f"{bundle}.tar.gz", f"{tmp_path}/imds-detour.tar.gz")


def output(*command: str) -> str:
    """Return a command's output."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _same(one: str, other: str) -> bool:
    with open(one, "rb") as first, open(other, "rb") as second:
        return first.read() == second.read()


def test_bill_of_materials_and_notice_are_complete(bundle: str) -> None:
    """The bill of materials has each file with its hash, and each package with version, licence and purl.

    NOTICE has each package, and its licence texts are in the bundle.
    """
    with open(f"{bundle}/imds-detour.cdx.json") as document, open(f"{bundle}/NOTICE") as text:
        sbom, notice = json.load(document), text.read()
    listed = {file["name"]: file["hashes"][0]["content"] for part in sbom["components"] for file in part["components"]}
    there = files(bundle)
    del there["imds-detour.cdx.json"]  # it cannot hold its own hash
    assert sorted(listed) == sorted(there)
    for name, path in there.items():
        with open(path, "rb") as file:
            assert hashlib.sha256(file.read()).hexdigest() == listed[name], name
    for part in sbom["components"]:
        assert re.fullmatch(r"pkg:(deb|pypi)/\S+@\S+", part["purl"])
        assert part["version"]
        assert part["licenses"][0]["expression"]
        assert f"{part['name']} {part['version']}" in notice
        assert os.listdir(f"{bundle}/share/licences/{part['name']}")


def test_file_modes_are_fixed_and_no_file_has_a_build_path(bundle: str) -> None:
    """Files are readable for all users, independent of the umask, and only programs are executable.

    No file contains a path of the build.
    """
    for name, path in files(bundle).items():
        with open(path, "rb") as file:
            assert PROJECT.encode() not in file.read(), name
    modes = {name: oct(os.stat(path).st_mode & 0o7777) for name, path in files(bundle).items()}
    programs = {name for name, mode in modes.items() if mode == "0o755"}
    assert programs == {*STATIC, *(name for name in modes if re.match(r"libexec/python|lib/ld-", name))}
    assert {mode for name, mode in modes.items() if name not in programs} == {"0o644"}


def test_needed_libraries_are_included_and_the_launcher_is_static(bundle: str) -> None:
    """Each library that a file needs is in the bundle. Both programs are the same static launcher."""
    there = {os.path.basename(name) for name in files(bundle)}
    for name, path in files(bundle).items():
        if ".so" in name or name.startswith("libexec"):
            assert set(re.findall(r"\(NEEDED\).*\[(.*)\]", output("readelf", "-d", path))) <= there, name
    for name in STATIC:
        assert "INTERP" not in output("readelf", "-lW", f"{bundle}/{name}")
    assert _same(f"{bundle}/{STATIC[0]}", f"{bundle}/{STATIC[1]}")


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


def test_every_module_can_be_imported_and_programs_print_the_version(bundle: str) -> None:
    """Each module can be imported, so no late import fails. Both programs print the version of the checkout."""
    done = subprocess.run([*python(bundle), "-c", IMPORT_ALL], capture_output=True, text=True, check=False, env={})
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    for name, words in ((STATIC[0], "imds-detour"), (STATIC[1], "imds-detourctl")):
        shown = output(f"{bundle}/{name}", "--version")
        with open(f"{PROJECT}/src/imds_detour/__init__.py") as file:
            assert f'"{shown.removeprefix(words).strip()}"' in file.read()
