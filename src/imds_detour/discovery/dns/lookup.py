"""From the mock's name to its addresses.

The system resolver comes first: it knows /etc/hosts, search domains, and whatever else the app itself will see. It runs
in a thread, because a stop signal cannot interrupt libc; when it has no answer, dnspython asks the configured servers
again and again and can tell "no such name" from "no reply". The thread stays in the race all the while.
"""

from __future__ import annotations

from ipaddress import ip_address
from math import inf

from imds_detour.config.mock_address import unfit_for_mock
from imds_detour.discovery.dns.getaddrinfo import SystemResolver
from imds_detour.errors import DetourError
from imds_detour.system import etc_hosts
from imds_detour.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from imds_detour.deadline import Deadline
    from imds_detour.endpoint import Address

SYSTEM_TIMEOUT = 0.25
"""Seconds before the servers are asked directly. A resolver that works answers in 1 ms here, in 100 ms abroad."""
LATER_TIMEOUT = 0.02
"""The same from the second time on: enough to hear what /etc/hosts says, and a server next door."""


class Resolution(Value):
    """Where the mock may be.

    Attributes:
        name: as the user wrote it.
        addresses: at least one, in the order in which to try them: the same on every start.
        source: who said so: ``literal``, ``system resolver``, ``DNS server`` and its address, or ``file`` and its path.
        ttl: seconds for which it holds; None where nobody says.

    """

    name: str
    addresses: tuple[Address, ...]
    source: str
    ttl: float | None = None


class Lookup:
    """Look one name up, as often as need be."""

    def __init__(self, host: str | Address) -> None:
        """Set out at once, in a thread, unless ``host`` is an address. Whoever forks does so before."""
        self._host = host
        self._system = SystemResolver(host) if isinstance(host, str) else None
        self._attempts = 0

    def attempt(self, deadline: Deadline, trace: Callable[[str], None] = lambda _line: None) -> Resolution:
        """Ask once, everyone who may know; ``trace`` is told what each says.

        Raises:
            DetourError: when no mock can be at any of the addresses.
            NotYetError: when nobody has an answer.

        """
        if self._system is None:
            return Resolution(str(self._host), (ip_address(str(self._host)),), "literal")
        name = str(self._host)
        timeout = LATER_TIMEOUT if self._attempts else SYSTEM_TIMEOUT + self._system.worth_waiting()
        self._attempts += 1
        found = self._system.answer(deadline.within(timeout))
        if found:
            return _resolution(name, found, "system resolver")
        trace(f"the system resolver has no address for {name} within {timeout * 1000:.0f} ms")
        # Imported when the system resolver has no answer: 100 ms that a start with everything in place does not pay.
        from imds_detour.discovery.dns import nameservers  # noqa: PLC0415  (see above)

        answer = nameservers.ask(name, deadline, trace)
        return _resolution(name, answer.addresses, f"DNS server {answer.server}", answer.ttl)


def dated(host: str | Address, deadline: Deadline, trace: Callable[[str], None]) -> Resolution:
    """Ask once, in a way that tells for how long the answer holds: /etc/hosts, then the DNS servers themselves.

    For one who comes back and must not wait: libc keeps TTLs to itself.

    Raises:
        DetourError: when no mock can be at any of the addresses.
        NotYetError: when nobody has an answer.

    """
    if not isinstance(host, str):
        return Resolution(str(host), (host,), "literal", inf)
    if known := etc_hosts.addresses_of(host):
        return _resolution(host, known, f"file {etc_hosts.PATH}")
    from imds_detour.discovery.dns import nameservers  # noqa: PLC0415  (as above)

    answer = nameservers.ask(host, deadline, trace)
    return _resolution(host, answer.addresses, f"DNS server {answer.server}", answer.ttl)


def _resolution(name: str, addresses: Iterable[Address], source: str, ttl: float | None = None) -> Resolution:
    # Sorted, because servers rotate their answers; IPv4 before IPv6.
    found = sorted(set(addresses), key=lambda address: (address.version, int(address)))
    fit = tuple(address for address in found if not unfit_for_mock(address))
    if not fit:
        reason = f"{name} resolves to {found[0]}, and no mock can be there: {unfit_for_mock(found[0])}"
        raise DetourError(
            "lookup", f"{reason} (said the {source})", "look at who answers for that name, and at /etc/hosts"
        )
    return Resolution(name, fit, source, ttl)
