"""The package of each file: Debian packages and Python distributions, with version and licence."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from functools import cache
from importlib.metadata import Distribution, distributions
from typing import TYPE_CHECKING

from bundle.contents import LICENCES
from bundle.programs import BundleError, run

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from bundle.target import Target


@dataclass(frozen=True, slots=True, order=True)
class Package:
    """The origin of a file of the bundle.

    Attributes:
        name: the name of the Debian package or Python distribution.
        version: its version in Debian or PyPI.
        licence: an SPDX expression.
        url: its purl, for scanners (github.com/package-url/purl-spec).
        source: the place of its source, for people.
        texts: the files with its licence.

    """

    name: str
    version: str
    licence: str
    url: str
    source: str
    texts: tuple[str, ...]


@cache
def debian_package(target: Target, name: str) -> Package:
    """Return a Debian package of the target."""
    fields = "${Package}|${Version}|${Architecture}|${source:Package}|${source:Version}"
    shown = run(*_query(target), "--show", f"--showformat={fields}", name)
    package, version, architecture, source, source_version = shown.split("|")
    return _debian(package, version, architecture, f"{source} {source_version}", _copyright(target, package))


@cache
def debian_source(target: Target, name: str) -> Package:
    """Return the source package of one of the target's Debian packages, of which a part is linked into a file."""
    fields = "${Package}|${source:Package}|${source:Version}"
    package, source, version = run(*_query(target), "--show", f"--showformat={fields}", name).split("|")
    return _debian(source, version, "source", f"{source} {version}", _copyright(target, package))


def _query(target: Target) -> tuple[str, str]:
    return "dpkg-query", f"--admindir={target.root}/var/lib/dpkg"


def _copyright(target: Target, package: str) -> str:
    return f"{target.root}/usr/share/doc/{package}/copyright"


def _debian(name: str, version: str, architecture: str, source: str, text: str) -> Package:
    vendor = _vendor()
    return Package(
        name,
        version,
        _licence(re.sub(r"(python3|gcc)[.-]\d+", r"\1", name)),
        f"pkg:deb/{vendor}/{name}@{version.replace('+', '%2B').replace(':', '%3A')}?arch={architecture}",
        f"{vendor} source package {source}",
        (text,),
    )


def debian_owners(target: Target, paths: Iterable[str]) -> dict[str, Package]:
    """Return the Debian package of each of these files of the target."""
    return {path: debian_package(target, name) for path, name in _owners(target, paths).items()}


def linked_sources(target: Target, paths: Iterable[str]) -> set[Package]:
    """Return the source packages of these objects and archives of the target."""
    return {debian_source(target, name) for name in _owners(target, paths).values()}


def _owners(target: Target, paths: Iterable[str]) -> dict[str, str]:
    """Return the name of the Debian package of each of these files."""
    # Where /lib is a link to /usr/lib, dpkg may know a file under either name; and links may be made at set-up.
    names = {path: _names(target, path) for path in paths}
    asked = [name for several in names.values() for name in several]
    command = [*_query(target), "--search", *asked]
    shown = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    owners = {}
    for line in shown.splitlines():
        package, _, name = line.rpartition(": ")
        if not line.startswith("diversion by "):  # Debian 13 has these for the loader, in addition to its package
            owners[name] = package.split(",")[0]
    packages = {path: next((owners[name] for name in several if name in owners), "") for path, several in names.items()}
    if unowned := [path for path, owner in packages.items() if not owner]:
        raise BundleError(f"no Debian package brings {unowned[0]}, nor {len(unowned) - 1} other files")
    return packages


def _names(target: Target, path: str) -> tuple[str, ...]:
    names = [name.removeprefix(target.root) for name in (path, os.path.realpath(path))]
    return tuple(dict.fromkeys((*names, *(name.removeprefix("/usr") for name in reversed(names)))))


def python_distribution(name: str, folder: str) -> Package:
    """Return a Python distribution installed in a folder."""
    wanted = _canonical(name)
    for distribution in distributions(path=[folder]):
        if _canonical(distribution.metadata["Name"]) == wanted:
            version = distribution.version
            return Package(
                wanted,
                version,
                _licence(wanted),
                f"pkg:pypi/{wanted}@{version}",
                f"PyPI distribution {wanted} {version}",
                tuple(_texts(distribution)),
            )
    raise BundleError(f"{name} is not installed in {folder}")


def python_owners(folder: str) -> dict[str, str]:
    """Return the distribution of each file in a folder, by path relative to it."""
    return {
        str(file): _canonical(distribution.metadata["Name"])
        for distribution in distributions(path=[folder])
        for file in distribution.files or ()
    }


def _texts(distribution: Distribution) -> Iterator[str]:
    for file in distribution.files or ():
        if ".dist-info" in str(file) and re.match(r"(?i)licen[cs]e|notice|copying", file.name):
            yield str(distribution.locate_file(file))


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _licence(name: str) -> str:
    if name not in LICENCES:
        raise BundleError(f"what is the licence of {name}? Add it to LICENCES in bundle/contents.py")
    return LICENCES[name]


@cache
def _vendor() -> str:
    with open("/etc/os-release") as file:
        names = dict(line.strip().split("=", 1) for line in file if "=" in line)
    return names["ID"].strip('"')
