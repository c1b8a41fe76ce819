"""Look a mock's name up.

A start asks libc first: it knows /etc/hosts, search domains, and everything else that the app will see. When libc has
no answer in time, dnspython asks the configured servers, and can tell "no such name" from "no reply". libc's look-up
continues meanwhile.
"""

from __future__ import annotations

from imds_detour.config.mock_address import why_no_mock
from imds_detour.deadline import FOREVER
from imds_detour.discovery.dns.getaddrinfo import SystemResolver
from imds_detour.errors import DetourError
from imds_detour.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from imds_detour.deadline import Deadline
    from imds_detour.endpoint import Address

SYSTEM_TIMEOUT = 0.25
"""Seconds for libc's first answer, before the servers are asked directly. Resolvers abroad take up to 0.1 s."""
LATER_TIMEOUT = 0.02
"""The same from the second attempt on: enough for /etc/hosts and a server nearby."""


class Resolution(Value):
    """The addresses of a mock's name."""

    name: str  # as the user wrote it
    addresses: tuple[Address, ...]  # at least one, in the order in which to try them, which is the same on every start
    source: str  # ``literal``, ``system resolver``, ``DNS server`` and its address, or ``file`` and its path
    ttl: float | None = None  # seconds for which it is valid; None where the source does not say


class Lookup:
    """Attempts to look one host up for a start, which races libc against the DNS servers."""

    def __init__(self, host: str | Address) -> None:
        self._host = host
        self._system: SystemResolver | None = None
        self._attempts = 0

    def start(self) -> None:
        """Let libc look the name up in a thread; nothing to do for an address. Fork before that."""
        self._attempts = 0
        if isinstance(self._host, str):
            self._system = SystemResolver(self._host)
            self._system.start()

    def attempt(self, deadline: Deadline, trace: Callable[[str], None] = lambda _line: None) -> Resolution:
        """Ask libc and then the DNS servers once; ``trace`` receives each query and its outcome.

        Raises DetourError when no mock can be at any of the addresses. Raises NotYetError when there is no answer.
        """
        if not isinstance(self._host, str):
            return Resolution(str(self._host), (self._host,), "literal")
        if self._system is None:
            self.start()
        system = self._system
        assert system is not None  # noqa: S101  (start() has made it)
        timeout = LATER_TIMEOUT if self._attempts else SYSTEM_TIMEOUT + system.extra_timeout()
        self._attempts += 1
        if addresses := system.answer(deadline.within(timeout)):
            resolution = _resolution(self._host, addresses, "system resolver")
        else:
            trace(f"the system resolver has no address for {self._host} within {timeout * 1000:.0f} ms")
            resolution = _ask_servers(self._host, deadline, trace)
        self._system = None  # it would repeat its answer: the next attempt starts another
        return resolution


def lookup_with_ttl(host: str | Address, deadline: Deadline, trace: Callable[[str], None]) -> Resolution:
    """Look a host up once, with the time for which the answer is valid: in /etc/hosts, then at the DNS servers.

    For a caller that tries again later and must not wait for libc, which keeps TTLs to itself.

    Raises DetourError when no mock can be at any of the addresses. Raises NotYetError when there is no answer.
    """
    if not isinstance(host, str):
        return Resolution(str(host), (host,), "literal", FOREVER)
    from imds_detour.system import etc_hosts  # noqa: PLC0415  (a start asks libc, which reads the file)

    if known := etc_hosts.addresses_of(host):
        return _resolution(host, known, f"file {etc_hosts.PATH}")
    return _ask_servers(host, deadline, trace)


def _ask_servers(name: str, deadline: Deadline, trace: Callable[[str], None]) -> Resolution:
    from imds_detour.discovery.dns import nameservers  # noqa: PLC0415  (dnspython is costly to import)

    answer = nameservers.ask(name, deadline, trace)
    return _resolution(name, answer.addresses, f"DNS server {answer.server}", answer.ttl)


def _resolution(name: str, addresses: Iterable[Address], source: str, ttl: float | None = None) -> Resolution:
    # Sorted, because servers rotate their answers; IPv4 before IPv6.
    by_version = sorted(set(addresses), key=lambda address: (address.version, int(address)))
    fit = tuple(address for address in by_version if not why_no_mock(address))
    if not fit:
        reason = f"{name} resolves to {by_version[0]}, and no mock can be there: {why_no_mock(by_version[0])}"
        raise DetourError(
            "lookup", f"{reason} (said the {source})", "look at who answers for that name, and at /etc/hosts"
        )
    return Resolution(name, fit, source, ttl)
