"""Import python-iptables without the searches that it makes on its own, and without what it imports for them.

Left alone, the import forks ldconfig and a compiler about ten times (ctypes.util.find_library), which takes 250-380 ms
and on musl can bring a second libc into the process. Told where everything is, it forks nothing. What it imports in
order to fork, search and look up how Python was built is most of the rest: modules of those names stand in for it.
"""

from __future__ import annotations

import _imp
import _socket
import ctypes
import os
import sys

from imds_detour.errors import DetourError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

SONAMES = {
    "c": "libc.so.6",
    "ip4tc": "libip4tc.so.2",  # since iptables 1.8.3 (2019)
    "ip6tc": "libip6tc.so.2",
    "libxtables.so.12": "libxtables.so.12",  # since iptables 1.6.2 (2018)
}
"""What python-iptables asks ctypes for, and the name under which the dynamic loader has it."""
EXTENSION_SUFFIX = _imp.extension_suffixes()[0]
"""How names of extension modules end: .cpython-311-x86_64-linux-gnu.so (PEP 3149). sysconfig knows it too, for 5 ms."""
PLATFORM = EXTENSION_SUFFIX.removesuffix(".so").split("-", 2)[-1]
"""Debian's multiarch triplet, or x86_64-linux-musl."""

BUNDLED = f"{sys.prefix}/xtables"
"""Where the bundle, which has an interpreter of its own, keeps the extensions; elsewhere there is no such folder."""
PACKAGES = (
    "install the package that brings libxtables, libip4tc and the extensions: `iptables` on Debian, Ubuntu and Alpine"
)


def load() -> ModuleType:
    """Return the module ``iptc``. Only for a child process: it changes the environment and modules of Python's own.

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
        import iptc  # noqa: PLC0415  (must come after the preparations above)
    except ModuleNotFoundError as error:
        raise DetourError(
            "firewall", f"python-iptables cannot be imported: {error}", "pip install python-iptables"
        ) from None
    except Exception as error:  # a missing library shows as XTablesError, AttributeError, TypeError or OSError
        raise DetourError("firewall", f"a library of iptables is missing ({error})", PACKAGES) from None
    module: ModuleType = iptc
    return module


def _stand_in() -> None:
    """Put little modules where python-iptables would import large ones, of which it uses next to nothing here.

    The real ctypes.util brings shutil, subprocess and tempfile, hence bz2, lzma, locale, random and threading with it:
    33 of 65 million instructions, in each child.
    """
    util = _module("ctypes.util", find_library=_soname)
    ctypes.util = util  # type: ignore[attr-defined]  # an import of it would set that
    _module("subprocess", Popen=None, PIPE=None)  # for modprobe, which it never calls of its own accord
    _module("sysconfig", get_config_var={"EXT_SUFFIX": EXTENSION_SUFFIX}.get, get_path=lambda _name: "")
    # It takes constants and address conversion from socket, which are those of _socket; without its enums, 3 ms less.
    sys.modules.setdefault("socket", _socket)
    # Its import of distutils is optional, and through setuptools' shim it costs 145 ms; None makes it fail at once.
    sys.modules["distutils"] = None  # type: ignore[assignment]  # documented in importlib: "None in sys.modules"
    if sys.version_info >= (3, 12):
        import warnings  # noqa: PLC0415  (see below)

        warnings.simplefilter("ignore")  # its regular expressions warn there when they are first compiled


def _module(name: str, **contents: object) -> ModuleType:
    module = sys.modules[name] = type(sys)(name)
    vars(module).update(contents)
    return module


def _soname(name: str) -> str | None:
    if name == "xtwrapper":  # its own extension, beside it
        files = (f"{folder}/lib{name}{EXTENSION_SUFFIX}" for folder in sys.path)
        return next((file for file in files if os.path.exists(file)), None)
    if name == "c" and PLATFORM.endswith("musl"):
        return f"libc.musl-{os.uname().machine}.so.1"
    return SONAMES.get(name)


def _extensions() -> str:
    folders = [f"{root}/xtables" for root in (f"/usr/lib/{PLATFORM}", "/usr/lib64", "/usr/lib", "/usr/local/lib")]
    for folder in folders:
        if os.path.isdir(folder):
            return folder
    raise DetourError("firewall", f"no iptables extensions in {', '.join(folders)}", PACKAGES)
