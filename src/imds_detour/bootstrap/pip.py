"""The first lines of imds-detour as pip installs it: hear stop signals, and heed none of the app's PYTHON* variables.

Nothing is imported here that a folder in PYTHONPATH could stand in for.
"""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import NoReturn

HARMLESS = frozenset(
    {
        "PYTHONBREAKPOINT",
        "PYTHONCOERCECLOCALE",
        "PYTHONDONTWRITEBYTECODE",
        "PYTHONFAULTHANDLER",
        "PYTHONHASHSEED",
        "PYTHONIOENCODING",
        "PYTHONNOUSERSITE",
        "PYTHONSAFEPATH",
        "PYTHONSTARTUP",
        "PYTHONUNBUFFERED",
        "PYTHONUTF8",
    }
)
"""Variables of the interpreter (python(1)) that images often set, and that change nothing here."""


def heeded(names: "Iterable[str]") -> bool:
    """Whether the interpreter heeds one of these variables in a way that matters to us: PYTHONPATH, PYTHONWARNINGS, ...

    Makefiles set PYTHON, Python's images PYTHON_VERSION and others, which are not the interpreter's; those few of its
    own that begin with PYTHON_ change nothing here.
    """
    ours = (name for name in names if name.startswith("PYTHON") and name != "PYTHON")
    return any(not name.startswith("PYTHON_") and name not in HARMLESS for name in ours)


def main() -> "NoReturn":
    """Run imds-detour, as pip's script of that name calls it."""
    if heeded(name for name, value in os.environ.items() if value):
        # 10 ms for an interpreter that does not look at them (-I); the app gets them as they were. What has been
        # imported so far may be anybody's (sitecustomize), what comes now is the standard library's.
        sys.path[:] = [os.path.dirname(os.__file__)]
        from imds_detour.bootstrap import excepthook  # noqa: PLC0415  (see above)
        from imds_detour.process import handover  # noqa: PLC0415  (see above)

        excepthook.no_tracebacks()
        handover.relaunch(sys.executable, "-I", os.path.abspath(__file__), *sys.argv[1:])
    if not sys.flags.safe_path:
        del sys.path[0]  # the folder of pip's script, where a socket.py may stand
    _run(None)


def _run(launched: str | None) -> "NoReturn":
    from imds_detour.bootstrap import excepthook  # noqa: PLC0415  (not before sys.path is as it should be)

    excepthook.no_tracebacks()  # 0.1 ms, and whatever is refused from here on is one line
    from imds_detour.process import handover  # noqa: PLC0415  (see above)

    # First of all: PID 1 has no default actions, so a stop that comes before this is lost, unless it was blocked.
    inherited = handover.Inherited.here() if launched is None else handover.Inherited.from_argument(launched)
    handover.honour_stops(inherited)
    handover.tidy_up_later()
    from imds_detour.firewall.iptables import helpers  # noqa: PLC0415  (before all the rest, which takes its time)

    handover.hold_closed_streams()
    head_start = helpers.HeadStart(sys.argv[1:], os.environ)
    handover.watch_for_stops()
    from imds_detour.main import main as run  # noqa: PLC0415  (see above)

    run(inherited, handover.changed_by_python(), head_start)


if __name__ == "__main__":  # by relaunch(): the first argument is its
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(__file__))))
    _run(sys.argv.pop(1))
