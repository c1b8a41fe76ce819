"""The first lines of Python in the bundle: undo what bundle/launcher.c did, and run the program that was asked for.

The launcher starts the interpreter with an empty environment and all stop signals blocked. Here the environment is
restored entry by entry, before any module reads it that is not built into the interpreter.
"""

from __future__ import annotations

import posix
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

MANY = 500
"""Entries. Each putenv(3) searches all of them, so a large environment is set as a whole."""


def main() -> NoReturn:
    """Run the program that the launcher names, as if it had been started without it."""
    program, launched, environ = sys.argv[1:4]
    sys.argv = [program, *sys.argv[5:]]
    file = int(environ.removeprefix("--environ="))
    _restore_environ(posix.pread(file, posix.fstat(file).st_size, 0).split(b"\0")[:-1])
    posix.close(file)
    sys.path[:] = [__file__.rpartition("/imds_detour/")[0]]  # all modules are in one folder
    if program == "imds-detourctl":
        _run_ctl(launched)
    from imds_detour.bootstrap import start  # noqa: PLC0415  (the environment had to be restored first)

    start(launched, restored=True)


def _run_ctl(launched: str) -> NoReturn:
    from imds_detour.process import handover  # noqa: PLC0415  (see main())

    inherited = handover.Inherited.from_argument(launched)
    handover.install_stop_handlers(inherited)
    import signal  # noqa: PLC0415  (only this program needs it)

    from imds_detour.ctl import main as ctl  # noqa: PLC0415  (only this program needs it)

    if signal.SIGINT not in inherited.ignored:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # verbs clean up on Ctrl-C
    sys.exit(ctl.main())


def _restore_environ(entries: list[bytes]) -> None:
    """Make these entries the environment of Python and of the C library, from which the app gets it."""
    posix.unsetenv(b"LC_ALL")  # the launcher sets this entry only
    pairs = [entry.partition(b"=") for entry in entries]
    environ: dict[bytes, bytes] = {}
    for name, equals, value in pairs:
        if equals:
            environ.setdefault(name, value)  # the first entry counts, as for getenv(3)
    posix.environ.clear()  # os.environ is made from it when os is imported
    posix.environ.update(environ)
    if len(environ) == len(entries) <= MANY and b"" not in environ:
        for name, value in environ.items():
            posix.putenv(name, value)
    else:
        _replace_environ(entries)


def _replace_environ(entries: list[bytes]) -> None:
    """Set the C library's environ as a whole: putenv(3) takes no duplicates, and no entry without a name or "="."""
    import ctypes  # noqa: PLC0415  (costly to import; an ordinary environment does without)

    vector = (ctypes.c_char_p * (len(entries) + 1))(*entries, None)
    ctypes.c_void_p.in_dll(ctypes.CDLL(None), "environ").value = ctypes.addressof(vector)
    globals()["_kept"] = vector  # until the process ends


main()
