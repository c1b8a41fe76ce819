"""Import python-iptables without its searches for libraries.

Its import runs ldconfig and a compiler several times (ctypes.util.find_library). That is slow (bench/NOTES.md), and on
musl it can load a second libc into the process. The module iptc.util, which searches, is replaced by functions that
know the libraries. So its imports (shutil, subprocess, tempfile, sysconfig, distutils) are not loaded either.
"""

from __future__ import annotations

import _imp
import ctypes
import os
import sys

from imds_detour.errors import DetourError
from imds_detour.lean import socket
from imds_detour.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

SONAMES = {
    "libxtables.so.12": ("libxtables.so.12", 12),  # since iptables 1.6.2 (2018)
    "ip4tc": ("libip4tc.so.2", 2),  # since iptables 1.8.3 (2019)
    "ip6tc": ("libip6tc.so.2", 2),
}
"""The soname and the major version of a library, by the name that python-iptables searches for."""
EXTENSION_SUFFIX = _imp.extension_suffixes()[0]
"""The suffix of extension modules, such as .cpython-311-x86_64-linux-gnu.so (PEP 3149)."""
PLATFORM = EXTENSION_SUFFIX.removesuffix(".so").split("-", 2)[-1]
"""Debian's multiarch triplet, or x86_64-linux-musl."""
LIBC = f"libc.musl-{os.uname().machine}.so.1" if PLATFORM.endswith("musl") else "libc.so.6"

BUNDLED = f"{sys.prefix}/xtables"
"""The extensions of libxtables in the bundle. A pip installation has no such folder."""
INSTALL = "pip install python-iptables"
PACKAGES = (
    "install the package that brings libxtables, libip4tc and the extensions: `iptables` on Debian, Ubuntu and Alpine"
)


class Library(Value):
    """The classes of python-iptables for one IP version."""

    table: Any  # Table or Table6
    rule: Any  # Rule or Rule6
    chain: Any  # Chain
    refused: type[Exception]  # raised when the kernel refuses
    missing: type[Exception]  # raised when an extension is missing, or of another version

    def delete(self, table: Any, chain: str, position: int) -> None:  # noqa: ANN401  (python-iptables has no types)
        """Delete an entry by its position. Deleting it as a rule would need the extensions of its matches."""
        if not table._iptc.iptc_delete_num_entry(chain.encode(), position, table._handle):  # noqa: SLF001  (see above)
            raise self.refused(f"can't delete entry {position} of {chain}: {table.strerror()}")


def load(version: int) -> Library:
    """Load python-iptables. Use it in a helper only: it changes os.environ and sys.modules."""
    os.environ["PYTHON_IPTABLES_XTABLES_VERSION"] = "12"
    if os.path.isdir(BUNDLED):
        # The libraries and extensions of the image are of another version.
        os.environ.pop("IPTABLES_LIBDIR", None)
        os.environ["XTABLES_LIBDIR"] = BUNDLED
    elif "XTABLES_LIBDIR" not in os.environ:
        folders = [f"{root}/xtables" for root in (f"/usr/lib/{PLATFORM}", "/usr/lib64", "/usr/lib", "/usr/local/lib")]
        extensions = next(filter(os.path.isdir, folders), None)
        if extensions is None:
            raise DetourError("firewall", f"no iptables extensions in {', '.join(folders)}", PACKAGES)
        os.environ["XTABLES_LIBDIR"] = extensions
    _replace_modules()
    try:
        from iptc import ip4tc  # noqa: PLC0415  (after the preparations above)

        if version == 6:
            from iptc import ip6tc  # noqa: PLC0415  (the helper for IPv4 does without)

            return Library(ip6tc.Table6, ip6tc.Rule6, ip4tc.Chain, ip4tc.IPTCError, ip4tc.XTablesError)
        return Library(ip4tc.Table, ip4tc.Rule, ip4tc.Chain, ip4tc.IPTCError, ip4tc.XTablesError)
    except ImportError as error:
        raise DetourError("firewall", f"python-iptables cannot be imported: {error}", INSTALL) from None
    except Exception as error:  # a missing library shows as XTablesError, AttributeError, TypeError or OSError
        raise DetourError("firewall", f"a library of iptables is missing ({error})", PACKAGES) from None


def _replace_modules() -> None:
    """Register small modules in place of large ones that python-iptables imports and hardly uses."""
    # iptc/__init__.py would import both IP versions and a module for scripts.
    spec = next(filter(None, (finder.find_spec("iptc", None) for finder in sys.meta_path)), None)
    if spec is None:
        raise DetourError("firewall", "python-iptables is not installed", INSTALL)
    _module("iptc", __path__=spec.submodule_search_locations)
    _module("iptc.util", find_library=_find_library, find_libc=lambda: _open(LIBC), load_kernel=lambda _name: None)
    # python-iptables uses constants and address conversions, which the C half of socket has.
    sys.modules.setdefault("socket", socket)
    # python-iptables compiles regular expressions for functions that imds-detour does not call.
    _module("re", compile=lambda *_: _UnusedPattern, ASCII=0)
    # libxtables quotes words in foreign comments only. In pieces, they still differ from imds-detour's.
    _module("shlex", split=str.split)


class _UnusedPattern:
    search = None


def _module(name: str, **contents: object) -> ModuleType:
    module = sys.modules[name] = type(sys)(name)
    vars(module).update(contents)
    return module


def _find_library(name: str, *_older: str) -> tuple[ctypes.CDLL, int]:
    """Load a library and return it with its major version, as iptc.util.find_library does."""
    if name == "xtwrapper":  # python-iptables' own extension
        file = f"lib{name}{EXTENSION_SUFFIX}"
        paths = (f"{folder}/{file}" for folder in sys.path if os.path.exists(f"{folder}/{file}"))
        return _open(next(paths, file)), 0
    soname, major = SONAMES[name]
    folders = os.environ.get("IPTABLES_LIBDIR", "").split(":")
    paths = (f"{folder}/{soname}" for folder in folders if folder and os.path.exists(f"{folder}/{soname}"))
    return _open(next(paths, soname)), major


def _open(name: str) -> ctypes.CDLL:
    return ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
