"""The files of a release: wheel, sdist, the bundles with their bills of materials, and the checksums of all."""

from __future__ import annotations

import glob
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile

from release.names import PROJECT, ROOT, SUMS, ReleaseError, archive, bill_of_materials, version

MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
"""The architecture of `make bundle` without ARCH, by the kernel's name of this machine."""
INNER_BILL = f"{PROJECT}/{PROJECT}.cdx.json"
"""The place of the bill of materials in a bundle's archive (bundle/documents.py)."""
LAUNCHER = f"{PROJECT}/bin/{PROJECT}"
ELF_MACHINES = {62: "amd64", 183: "arm64"}
"""The architecture of a program, by e_machine, the 16 bits at byte 18 of an ELF file (linux/elf-em.h)."""
PROGRAMS = ("imds-detour", "imds-detourctl")


def run(*command: str) -> str:
    """Run a command in the project's folder, and return what it prints.

    Raises:
        ReleaseError: it fails; the text has the end of its output.
    """
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise ReleaseError(f"`{' '.join(command)}` failed: {' / '.join(done.stdout.split(chr(10))[-6:]).strip(' /')}")
    return done.stdout


def packages(folder: str) -> tuple[str, str]:
    """Build the sdist, and the wheel from it; let twine check both; return their paths.

    The build backend is the one that is installed beside this Python, so nothing is fetched.
    """
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT)
    (wheel,) = glob.glob(f"{folder}/*-{version()}-*.whl")
    (sdist,) = glob.glob(f"{folder}/*-{version()}.tar.gz")
    run(sys.executable, "-m", "twine", "--no-color", "check", "--strict", wheel, sdist)
    return wheel, sdist


def try_wheel(wheel: str, *pip_options: str) -> None:
    """Install a wheel into an empty environment, and see that both programs print its version.

    Raises:
        ReleaseError: it cannot be installed, or a program prints something else.
    """
    with tempfile.TemporaryDirectory() as place:
        run(sys.executable, "-m", "venv", "--without-pip", place)
        pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", f"{place}/bin/python")
        run(*pip, "install", "--quiet", *pip_options, wheel)
        for program in PROGRAMS:
            said = run(f"{place}/bin/{program}", "--version").strip()
            if said != f"{program} {version()}":
                raise ReleaseError(f"{os.path.basename(wheel)}: {program} --version prints {said!r}")


def bundle(architecture: str) -> str:
    """Build the bundle of an architecture, and return its archive."""
    if architecture == MACHINES.get(os.uname().machine):
        run("make", "--silent", "bundle")
        return f"{ROOT}/build/{PROJECT}.tar.gz"
    run("make", "--silent", "bundle", f"ARCH={architecture}")
    return f"{ROOT}/build/{architecture}/{PROJECT}.tar.gz"


def publish_bundle(built: str, architecture: str, folder: str) -> None:
    """Copy a bundle's archive under its published name, and the bill of materials that is in it.

    Raises:
        ReleaseError: the archive lacks one, or its programs are for another architecture.
    """
    bill, launcher = _inside(built, INNER_BILL), _inside(built, LAUNCHER)
    is_for = ELF_MACHINES.get(int.from_bytes(launcher[18:20], "little"), "no known architecture")
    if is_for != architecture:
        raise ReleaseError(f"the programs in {built} are for {is_for}, not for {architecture}: build it again")
    os.makedirs(folder, exist_ok=True)
    shutil.copyfile(built, f"{folder}/{archive(architecture)}")
    with open(f"{folder}/{bill_of_materials(architecture)}", "wb") as file:
        file.write(bill)


def _inside(built: str, name: str) -> bytes:
    """Return a file of an archive."""
    with tarfile.open(built) as packed:
        try:
            file = packed.extractfile(name)
        except KeyError:
            file = None
        if file is None:
            raise ReleaseError(f"{built} has no {name}: build it again with `make bundle`")
        return file.read()


def write_sums(folder: str) -> None:
    """Write the SHA-256 of each file of a folder, as `sha256sum --check` reads it."""
    lines = []
    for name in sorted(os.listdir(folder)):
        if name != SUMS:
            with open(f"{folder}/{name}", "rb") as file:
                lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {name}\n")
    with open(f"{folder}/{SUMS}", "w") as sums:
        sums.writelines(lines)
