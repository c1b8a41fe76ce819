"""What runs before main(): one module for each way of starting the interpreter, and the start sequence they share."""

import gc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def start(launched: str | None, *, restored: bool = False) -> "NoReturn":
    """Exit on stop signals from now on, and run imds-detour.

    ``launched`` is a launcher's argument (see Inherited), None without a launcher. ``restored`` is whether the launcher
    has undone what starting the interpreter did to the environment.
    """
    # Imported late: sys.path had to be set first.
    from imds_detour.bootstrap import excepthook  # noqa: PLC0415  (see above)

    excepthook.install_excepthook()  # from here on, any failure is one line
    # PID 1 loses a stop signal that comes before its handlers are set, so that comes first.
    from imds_detour.process import handover  # noqa: PLC0415  (see above)

    inherited = handover.Inherited.from_process() if launched is None else handover.Inherited.from_argument(launched)
    handover.install_stop_handlers(inherited)
    gc.set_threshold(handover.GC_THRESHOLD)  # see bench/NOTES.md
    handover.hold_closed_streams()
    from imds_detour.main import main  # noqa: PLC0415  (see above)

    main(inherited, {} if restored else handover.changed_by_python())
