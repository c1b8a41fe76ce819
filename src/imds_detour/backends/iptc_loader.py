"""Import python-iptables without the searches that it makes on its own.

Left alone, the import forks ldconfig and a compiler about ten times (ctypes.util.find_library), which takes 250-380 ms
and on musl can bring a second libc into the process. Told where everything is, it takes 30 ms and forks nothing.
"""

from __future__ import annotations

import ctypes.util
import os
import sys
import sysconfig
import warnings

from imds_detour.errors import DetourError

TYPE_CHECKING = False
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

BUNDLED = f"{sys.prefix}/xtables"
"""Where the bundle, which has an interpreter of its own, keeps the extensions; elsewhere there is no such folder."""
PACKAGES = (
    "install the package that brings libxtables, libip4tc and the extensions: `iptables` on Debian, Ubuntu and Alpine"
)


def load() -> ModuleType:
    """Return the module ``iptc``. Only for a child process: it changes environment, modules and ctypes.util.

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
    ctypes.util.find_library = _soname
    # Its import of distutils is optional, and through setuptools' shim it costs 145 ms; None makes it fail at once.
    sys.modules["distutils"] = None  # type: ignore[assignment]  # documented in importlib: "None in sys.modules"
    warnings.simplefilter("ignore")  # its regular expressions warn on Python 3.12 when they are first compiled
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


def _soname(name: str) -> str | None:
    if name == "c" and "musl" in (sysconfig.get_config_var("SOABI") or ""):
        return f"libc.musl-{os.uname().machine}.so.1"
    return SONAMES.get(name)


def _extensions() -> str:
    triplet = sysconfig.get_config_var("MULTIARCH") or f"{os.uname().machine}-linux-gnu"
    folders = [f"{root}/xtables" for root in (f"/usr/lib/{triplet}", "/usr/lib64", "/usr/lib", "/usr/local/lib")]
    for folder in folders:
        if os.path.isdir(folder):
            return folder
    raise DetourError("firewall", f"no iptables extensions in {', '.join(folders)}", PACKAGES)
