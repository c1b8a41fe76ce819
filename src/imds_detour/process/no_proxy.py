"""HTTP proxies: SDKs would send metadata requests to them, where no firewall rule of ours sees them."""

from __future__ import annotations

from imds_detour.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

PROXIES = ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "https_proxy", "HTTPS_PROXY")
"""curl reads the first, most others the first two; gaxios (Google's for Node) takes HTTPS_PROXY for every request."""
EXEMPTIONS = ("no_proxy", "NO_PROXY")
"""Some read only one of them, and where both are set, which counts differs."""


class Exemption(Value):
    """What to change, so that metadata requests do not go to a proxy.

    Attributes:
        proxy: the variable that sets the proxy.
        hosts: what was not exempt from it.
        changes: the new values of EXEMPTIONS.

    """

    proxy: str
    hosts: tuple[str, ...]
    changes: Mapping[str, str]


def needed(environ: Mapping[str, str], hosts: Iterable[str]) -> Exemption | None:
    """Return what to change so that requests to these hosts go to no proxy, or None when they do not anyway.

    Exact entries alone are understood by everybody: boto ignores networks, and wants IPv6 addresses in brackets, where
    others want them bare. Whatever stood in the two variables stays in both.
    """
    proxy = next((name for name in PROXIES if environ.get(name)), None)
    if proxy is None:
        return None
    wanted = tuple(dict.fromkeys(hosts))
    changes, missing = {}, set()
    for name, other in (EXEMPTIONS, EXEMPTIONS[::-1]):
        present = environ[name] if name in environ else environ.get(other, "")
        entries = [entry.strip() for entry in present.split(",") if entry.strip()]
        lacking = [host for host in wanted if host not in entries and "*" not in entries]
        missing.update(lacking)
        if lacking:
            changes[name] = ",".join((*entries, *lacking))
    return Exemption(proxy, tuple(host for host in wanted if host in missing), changes) if changes else None
