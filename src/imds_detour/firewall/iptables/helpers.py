"""The helpers of legacy iptables: which there are, and the head start that they get.

Loading python-iptables takes as long as everything else that comes before the first rule. So the helpers are forked
before the rest of imds-detour is even imported, and load on another processor meanwhile: a sixth of a start.
"""

from __future__ import annotations

from imds_detour.errors import DetourError
from imds_detour.firewall.iptables.helper import Child

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

WITHOUT_THEM = ("nft", "env")
"""Values of MOCK_BACKEND that need none."""
NO_APP: tuple[list[str], ...] = ([], ["--help"], ["--version"])
"""Arguments after which there is no app to start."""


class HeadStart:
    """Helpers that have been forked in case they are needed.

    Attributes:
        children: by IP version; empty when none will be needed, or none could be started.
        failure: why none could be started.

    """

    __slots__ = ("children", "failure")

    def __init__(self, arguments: Sequence[str], environ: Mapping[str, str]) -> None:
        """Fork them unless it is clear already that nobody will ask for them."""
        self.children: dict[int, Child] = {}
        self.failure: DetourError | None = None
        if list(arguments) in NO_APP or environ.get("MOCK_BACKEND") in WITHOUT_THEM:
            return
        from imds_detour.system import ip_versions  # noqa: PLC0415  (not where there is nothing to fork)

        try:
            self.children = start(ip_versions.here())
        except DetourError as error:
            self.failure = error

    def take(self) -> dict[int, Child]:
        """Return the helpers; from here on they are the caller's.

        Raises:
            DetourError: when they could not be started.

        """
        if self.failure is not None:
            raise self.failure
        children, self.children = self.children, {}
        return children

    def give_up(self) -> None:
        """End those that nobody has taken."""
        for child in self.take().values() if self.failure is None else ():
            child.kill()


def start(versions: Sequence[int]) -> dict[int, Child]:
    """Fork a helper for each IP version, for one can build one version's rules only, and let it load.

    Do it before the first thread is started.

    Raises:
        DetourError: when a helper cannot be started; those that could are ended.

    """
    # What the helpers and we need is loaded before there are two of us: a tenth of a start, on two processors.
    import ctypes  # noqa: F401, PLC0415  (see above)

    from imds_detour import endpoint  # noqa: F401, PLC0415  (see above)
    from imds_detour.firewall import rules  # noqa: F401, PLC0415  (see above)
    from imds_detour.system import capabilities  # noqa: F401, PLC0415  (see above)

    children: dict[int, Child] = {}
    try:
        for version in versions:
            children[version] = Child(_loader(version))
    except DetourError:
        for child in children.values():
            child.close()
        raise
    return children


def _loader(version: int) -> Callable[[], dict[str, Callable[..., object]]]:
    def load() -> dict[str, Callable[..., object]]:
        from imds_detour.firewall.iptables import worker  # noqa: PLC0415  (only the child needs it)

        return worker.load(version)

    return load
