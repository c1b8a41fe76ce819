"""Import python-iptables without the searches that it makes on its own, and without what it imports for them.

Left alone, the import forks ldconfig and a compiler about ten times (ctypes.util.find_library), which takes 250-380 ms
and on musl can bring a second libc into the process. Its module for searching is replaced by one that knows where
everything is; that saves what it would import for it as well: shutil, subprocess, tempfile, sysconfig, distutils.
"""

from __future__ import annotations

import _imp
import _socket
import ctypes
import os
import sys

from imds_detour.errors import DetourError
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
"""What python-iptables asks for, the name under which the dynamic loader has it, and its major version."""
EXTENSION_SUFFIX = _imp.extension_suffixes()[0]
"""How names of extension modules end: .cpython-311-x86_64-linux-gnu.so (PEP 3149). sysconfig knows it too, for 5 ms."""
PLATFORM = EXTENSION_SUFFIX.removesuffix(".so").split("-", 2)[-1]
"""Debian's multiarch triplet, or x86_64-linux-musl."""
LIBC = f"libc.musl-{os.uname().machine}.so.1" if PLATFORM.endswith("musl") else "libc.so.6"

BUNDLED = f"{sys.prefix}/xtables"
"""Where the bundle, which has an interpreter of its own, keeps the extensions; elsewhere there is no such folder."""
INSTALL = "pip install python-iptables"
PACKAGES = (
    "install the package that brings libxtables, libip4tc and the extensions: `iptables` on Debian, Ubuntu and Alpine"
)


class Library(Value):
    """What python-iptables has for one IP version.

    Attributes:
        table: its class Table or Table6.
        rule: its class Rule or Rule6.
        chain: its class Chain.
        refused: its exception for what the kernel refuses.
        missing: its exception for an extension that is not there, or of another version.

    """

    table: Any
    rule: Any
    chain: Any
    refused: type[Exception]
    missing: type[Exception]


def load(version: int) -> Library:
    """Load it. Only for a child process: it changes the environment and modules of Python's own.

    Raises:
        DetourError: when python-iptables or a library that it needs is missing.

    """
    os.environ["PYTHON_IPTABLES_XTABLES_VERSION"] = "12"
    if os.path.isdir(BUNDLED):
        # Whatever the image says: its libraries and extensions are of another version.
        os.environ.pop("IPTABLES_LIBDIR", None)
        os.environ["XTABLES_LIBDIR"] = BUNDLED
    elif "XTABLES_LIBDIR" not in os.environ:
        os.environ["XTABLES_LIBDIR"] = _extensions()
    _stand_in()
    try:
        from iptc import ip4tc  # noqa: PLC0415  (must come after the preparations above)

        if version == 6:
            from iptc import ip6tc  # noqa: PLC0415  (2 ms that the child for IPv4 does not pay)

            return Library(ip6tc.Table6, ip6tc.Rule6, ip4tc.Chain, ip4tc.IPTCError, ip4tc.XTablesError)
        return Library(ip4tc.Table, ip4tc.Rule, ip4tc.Chain, ip4tc.IPTCError, ip4tc.XTablesError)
    except ImportError as error:
        raise DetourError("firewall", f"python-iptables cannot be imported: {error}", INSTALL) from None
    except Exception as error:  # a missing library shows as XTablesError, AttributeError, TypeError or OSError
        raise DetourError("firewall", f"a library of iptables is missing ({error})", PACKAGES) from None


def _stand_in() -> None:
    """Put little modules where python-iptables would import large ones, of which it uses next to nothing here."""
    # The package itself imports both IP versions and a module for scripts.
    found = next(filter(None, (finder.find_spec("iptc", None) for finder in sys.meta_path)), None)
    if found is None:
        raise DetourError("firewall", "python-iptables is not installed", INSTALL)
    _module("iptc", __path__=found.submodule_search_locations)
    _module("iptc.util", find_library=_find_library, find_libc=lambda: _open(LIBC), load_kernel=lambda _name: None)
    # It takes constants and address conversion from socket, which are those of _socket; without its enums, 3 ms less.
    sys.modules.setdefault("socket", _socket)
    # It compiles regular expressions that we never need, for 3 ms, and for 3 more where re is not loaded yet.
    _module("re", compile=_Unused, ASCII=0)


class _Unused:
    """A regular expression for which nobody has any use: of those who read rules we call the one without."""

    def __init__(self, _pattern: str, _flags: int = 0) -> None:
        self.search = None


def _module(name: str, **contents: object) -> ModuleType:
    module = sys.modules[name] = type(sys)(name)
    vars(module).update(contents)
    return module


def _find_library(name: str, *_older: str) -> tuple[ctypes.CDLL, int]:
    """Do what iptc.util.find_library does: return a library and its major version."""
    if name == "xtwrapper":  # its own extension, beside it
        file = f"lib{name}{EXTENSION_SUFFIX}"
        found = (f"{folder}/{file}" for folder in sys.path if os.path.exists(f"{folder}/{file}"))
        return _open(next(found, file)), 0
    soname, major = SONAMES[name]
    folders = os.environ.get("IPTABLES_LIBDIR", "").split(":")
    given = (f"{folder}/{soname}" for folder in folders if folder and os.path.exists(f"{folder}/{soname}"))
    return _open(next(given, soname)), major


def _open(name: str) -> ctypes.CDLL:
    return ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)


def _extensions() -> str:
    folders = [f"{root}/xtables" for root in (f"/usr/lib/{PLATFORM}", "/usr/lib64", "/usr/lib", "/usr/local/lib")]
    for folder in folders:
        if os.path.isdir(folder):
            return folder
    raise DetourError("firewall", f"no iptables extensions in {', '.join(folders)}", PACKAGES)
