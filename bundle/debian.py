"""Debian packages of another architecture: downloaded by apt with its own lists, and unpacked into a folder."""

from __future__ import annotations

import glob
import os
import re
import shutil
from typing import TYPE_CHECKING

from bundle.programs import BundleError, run

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SOURCES = ("sources.list", "sources.list.d/*debian.*", "sources.list.d/*ubuntu.*")
"""This machine's sources of its distribution, below /etc/apt. Other vendors' may lack the architecture."""
MERGED = ("bin", "lib", "lib64", "sbin")
"""Folders that are links to those in /usr, in every Debian since 12."""
OPTIONS = ("APT::Sandbox::User=root", "Acquire::Languages=none", "Dir::Etc::SourceList=/dev/null")
"""Options of apt: it writes into a folder of any user, and reads no list but those named here."""


class Archive:
    """The packages of one architecture in this machine's distribution; apt's own state is not touched."""

    def __init__(self, architecture: str, folder: str, source: str = "") -> None:
        """Use a folder for apt's lists and for packages; ``source`` is a line of sources.list, if not the machine's."""
        self._architecture = architecture
        self._apt = os.path.join(folder, "apt")
        self._packages = os.path.join(folder, "packages")
        self._source = source

    def download(self, names: Sequence[str]) -> list[str]:
        """Download the packages with these names, and return their files. Those of the last call are a cache."""
        stamp, contents = os.path.join(self._packages, "names"), "\n".join((self._architecture, self._source, *names))
        try:
            with open(stamp) as file:
                cached = file.read() == contents
        except FileNotFoundError:
            cached = False
        if not cached:
            shutil.rmtree(self._packages, ignore_errors=True)
            os.makedirs(self._packages)
            self._update()
            try:
                self._get("download", *names)
            except BundleError:  # the lists may be older than the mirror
                self._update(again=True)
                self._get("download", *names)
            with open(stamp, "w") as file:
                file.write(contents)
        return sorted(glob.glob(f"{glob.escape(self._packages)}/*.deb"))

    def dependency(self, name: str, pattern: str) -> str:
        """Return the dependency of a package that matches a pattern, such as a kernel of its metapackage."""
        self._update()
        shown = run("apt-cache", *self._options(), "depends", "--important", name)
        found = re.search(rf"Depends: ({pattern})$", shown, re.MULTILINE)
        if not found:
            raise BundleError(f"the package {name} for {self._architecture} depends on no {pattern}")
        return found[1]

    def _update(self, *, again: bool = False) -> None:
        """Read the lists, once for this folder's life unless ``again``."""
        if os.path.exists(f"{self._apt}/pkgcache.bin") and not again:
            return
        for folder in ("lists/partial", "archives/partial", "sources"):
            os.makedirs(f"{self._apt}/{folder}", exist_ok=True)
        if self._source:
            with open(f"{self._apt}/sources/own.list", "w") as file:
                file.write(f"{self._source}\n")
        for path in () if self._source else _sources("/etc/apt"):
            shutil.copy(path, f"{self._apt}/sources")
        self._get("update")

    def _get(self, *words: str) -> None:
        os.makedirs(self._packages, exist_ok=True)
        run("apt-get", *self._options(), "--quiet=2", *words, folder=self._packages)

    def _options(self) -> list[str]:
        own = (
            f"APT::Architecture={self._architecture}",
            f"APT::Architectures={self._architecture}",
            f"Dir::State={self._apt}",
            "Dir::State::status=/dev/null",
            f"Dir::Cache={self._apt}",
            f"Dir::Etc::SourceParts={self._apt}/sources",
        )
        return [word for option in (*OPTIONS, *own) for word in ("-o", option)]


def _sources(folder: str) -> list[str]:
    """Return the files of SOURCES, or all of apt's if none has such a name."""
    named = [path for pattern in SOURCES for path in glob.glob(f"{folder}/{pattern}") if os.path.getsize(path)]
    return named or glob.glob(f"{folder}/sources.list.d/*.*")


def unpack(packages: Iterable[str], root: str) -> str:
    """Unpack packages into an empty folder, with a database for dpkg-query --admindir, and return its real path."""
    shutil.rmtree(root, ignore_errors=True)
    for folder in MERGED:
        os.makedirs(f"{root}/usr/{folder}")
        os.symlink(f"usr/{folder}", f"{root}/{folder}")
    database = f"{root}/var/lib/dpkg"
    os.makedirs(f"{database}/info")
    with open(f"{database}/info/format", "w") as file:
        file.write("1\n")
    status = []
    for package in packages:
        run("dpkg-deb", "--extract", package, root)
        fields = run("dpkg-deb", "--field", package)
        status.append(f"{fields.rstrip()}\nStatus: install ok installed\n")
        name, architecture, multi = (_field(fields, field) for field in ("Package", "Architecture", "Multi-Arch"))
        contents = re.findall(r" \.(/.*?)/?(?: ->.*)?$", run("dpkg-deb", "--contents", package), re.MULTILINE)
        with open(f"{database}/info/{name}{f':{architecture}' * (multi == 'same')}.list", "w") as file:
            file.write("".join("/.\n" if path == "/" else f"{path}\n" for path in contents))
    with open(f"{database}/status", "w") as file:
        file.write("\n".join(status))
    return os.path.realpath(root)


def _field(fields: str, name: str) -> str:
    found = re.search(rf"^{name}: (.*)$", fields, re.MULTILINE)
    return found[1] if found else ""
