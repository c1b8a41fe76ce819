"""The first lines of imds-detour as pip installs it: exit on stop signals, and ignore the app's PYTHON* variables.

Nothing is imported here that a folder in PYTHONPATH could replace.
"""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import NoReturn

_NAMES = (
    *("BREAKPOINT", "COERCECLOCALE", "DONTWRITEBYTECODE", "FAULTHANDLER", "HASHSEED", "IOENCODING"),
    *("NOUSERSITE", "SAFEPATH", "STARTUP", "UNBUFFERED", "UTF8"),
)
HARMLESS = frozenset(f"PYTHON{name}" for name in _NAMES)
"""Variables of the interpreter (python(1)) that images often set, and that change nothing for imds-detour."""


def needs_isolation(names: "Iterable[str]") -> bool:
    """Whether one of these variables changes what the interpreter imports or prints: PYTHONPATH, PYTHONWARNINGS, ...

    Makefiles set PYTHON, and Python's images set PYTHON_VERSION and others, which are not the interpreter's. Those of
    its own that begin with PYTHON_ are harmless.
    """
    own = (name for name in names if name.startswith("PYTHON") and name != "PYTHON")
    return any(not name.startswith("PYTHON_") and name not in HARMLESS for name in own)


def main() -> "NoReturn":
    """Run imds-detour; pip's script calls this."""
    if needs_isolation(name for name, value in os.environ.items() if value):
        # Another interpreter that ignores them (-I); the app gets them as they were. Modules imported so far may be
        # the app's (sitecustomize); from now on they are the standard library's.
        standard = os.path.dirname(os.__file__)
        sys.path[:] = [standard, f"{standard}/lib-dynload"]
        from imds_detour.bootstrap import excepthook  # noqa: PLC0415  (see above)
        from imds_detour.process import handover  # noqa: PLC0415  (see above)

        excepthook.install_excepthook()
        handover.relaunch((sys.executable, "-I", os.path.abspath(__file__)), sys.argv[1:])
    if not sys.flags.safe_path:
        del sys.path[0]  # the folder of pip's script, which may contain a socket.py
    from imds_detour.bootstrap import start  # noqa: PLC0415  (sys.path had to be set first)

    start(None)


if __name__ == "__main__":  # by relaunch(), which adds the first argument
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(__file__))))
    from imds_detour.bootstrap import start

    start(sys.argv.pop(1))
