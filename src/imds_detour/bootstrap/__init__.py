"""What runs before main(): one module for each way of starting the interpreter, and the start sequence they share."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from imds_detour.process.handover import Inherited


def start(inherited: "Inherited", changes: "dict[bytes, bytes | None]") -> "NoReturn":
    """Exit on stop signals from now on, and run imds-detour.

    The app gets the inherited signal masks; ``changes`` undoes what starting the interpreter did to the environment.
    """
    # Imported late: PID 1 loses a stop signal that comes before its handlers are set, so that comes first.
    from imds_detour.process import handover  # noqa: PLC0415  (see above)

    handover.install_stop_handlers(inherited)
    handover.raise_gc_threshold()
    handover.hold_closed_streams()
    from imds_detour.main import main  # noqa: PLC0415  (see above)

    main(inherited, changes)
