"""The first lines of Python in the bundle: take over from bundle/launcher.c, and become the program that was asked for.

The launcher has started the interpreter with an empty environment and all stop signals blocked. Here the environment
gets back to what it was, entry by entry, before anything of ours reads it, or is imported that is not in the
interpreter; the signals are let through as soon as there is somebody to act on them.
"""

from __future__ import annotations

import posix
import sys

MANY = 500
"""Entries; putenv(3) looks through all that there are, so that thousands of them would take a second."""


def main() -> None:
    """Run the program that the launcher names, as if it had been started in the ordinary way."""
    program, launched, environ = sys.argv[1:4]
    sys.argv = [program, *sys.argv[5:]]
    _restore_environ(_read(int(environ.removeprefix("--environ="))).split(b"\0")[:-1])
    sys.path[:] = [__file__.rpartition("/imds_detour/")[0]]  # all modules are in one folder: look nowhere else
    from imds_detour.bootstrap import importer  # noqa: PLC0415  (whatever it imports may look at the environment)

    # Before Python's own finder, behind that of what the interpreter has in it.
    sys.meta_path.insert(-1, importer.Bundled(sys.path[0]))
    if program != "imds-detourctl":
        from imds_detour.bootstrap import excepthook  # noqa: PLC0415  (see above)

        excepthook.no_tracebacks()
    import os  # noqa: PLC0415  (see above)

    from imds_detour.process import handover  # noqa: PLC0415  (see above)

    inherited = handover.Inherited.from_argument(launched)
    handover.honour_stops(inherited)
    if program == "imds-detourctl":
        import signal  # noqa: PLC0415  (2 ms that only the tool pays)

        from imds_detour.ctl import main as ctl  # noqa: PLC0415  (one of the two programs)

        if signal.SIGINT not in inherited.ignored:
            signal.signal(signal.SIGINT, signal.default_int_handler)  # verbs end tidily at Ctrl-C
        sys.exit(ctl.main())
    handover.tidy_up_later()
    from imds_detour.firewall.iptables import helpers  # noqa: PLC0415  (before all the rest, which takes its time)

    handover.hold_closed_streams()
    head_start = helpers.HeadStart(sys.argv[1:], os.environ)
    handover.watch_for_stops()
    from imds_detour.main import main as run  # noqa: PLC0415  (the other; from here on a stop is acted on)

    run(inherited, {}, head_start)  # Python's changes of the environment have been taken back already


def _read(file: int) -> bytes:
    text = posix.pread(file, posix.fstat(file).st_size, 0)
    posix.close(file)
    return text


def _restore_environ(entries: list[bytes]) -> None:
    """Make these entries the environment, for Python and for the C library, which hands it on to the app."""
    posix.unsetenv(b"LC_ALL")  # the launcher's one entry
    pairs = [entry.partition(b"=") for entry in entries]
    environ: dict[bytes, bytes] = {}
    for name, equals, value in pairs:
        if equals:
            environ.setdefault(name, value)  # the first one counts, as for getenv(3)
    posix.environ.clear()  # what os.environ is made of, when os is imported
    posix.environ.update(environ)
    if len(environ) == len(entries) <= MANY and b"" not in environ:
        for name, value in environ.items():
            posix.putenv(name, value)
    else:
        _replace_environ(entries)


def _replace_environ(entries: list[bytes]) -> None:
    """Set the C library's environ as a whole: twins, and entries without a name or "=", cannot be put one by one."""
    import ctypes  # noqa: PLC0415  (3 ms that an ordinary environment does not pay)

    vector = (ctypes.c_char_p * (len(entries) + 1))(*entries, None)
    ctypes.c_void_p.in_dll(ctypes.CDLL(None), "environ").value = ctypes.addressof(vector)
    globals()["_kept"] = vector  # for as long as the process lives


main()
