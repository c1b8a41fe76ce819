"""Start legacy iptables: fork its helpers, which load python-iptables while the parent does other things."""

from __future__ import annotations

from functools import partial
from math import inf

# preflight is for the helpers: what is loaded before the fork is loaded once.
from imds_detour.firewall.iptables import preflight as _preflight  # noqa: F401  (see above)
from imds_detour.firewall.iptables.backend import LegacyFirewall
from imds_detour.firewall.iptables.helper import Child

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def start_legacy(versions: Sequence[int], remaining: Callable[[], float] = lambda: inf) -> LegacyFirewall:
    """Fork a helper for each IP version, for one process can build one version's rules only. Fork before any thread.

    ``remaining`` returns the seconds before the deadline of the whole start.

    Raises:
        DetourError: when the kernel gives no process; helpers that run are ended.

    """
    helpers: dict[int, Child] = {}
    try:
        for version in versions:
            helpers[version] = Child(partial(_load, version))
    except BaseException:
        for helper in helpers.values():
            helper.close()
        raise
    return LegacyFirewall(helpers, remaining)


def _load(version: int) -> dict[str, Callable[..., object]]:
    from imds_detour.firewall.iptables import worker  # noqa: PLC0415  (only the helper needs it)

    return worker.load(version)
