"""Find mocks and probe redirects for the sidecar, once each. A stop interrupts every wait for an answer."""

import time
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_address

from imds_detour import verify
from imds_detour.config.services import Service
from imds_detour.ctl.sidecar.reconciler import Reconciler
from imds_detour.ctl.sidecar.signals import Signals
from imds_detour.deadline import FOREVER, Deadline
from imds_detour.discovery.dns.cache import ResolverCache
from imds_detour.discovery.dns.lookup import Resolution, ask_servers, resolution_of
from imds_detour.discovery.mock import Search
from imds_detour.endpoint import Address
from imds_detour.errors import DetourError, NotYetError
from imds_detour.log import Log
from imds_detour.result import Target, targets_of
from imds_detour.system import etc_hosts

LOOKUP_TIMEOUT = 1.0
"""Seconds for one look-up."""
TIMEOUT = 0.7
"""Seconds for one search, and for one probe through a metadata address: other services wait for it."""
REPROBE_TIMEOUT = 2.0
"""Seconds for the second probe, which decides whether a redirect is closed: the machine may be busy."""

MIN_LIFETIME, MAX_LIFETIME, LIFETIME_WITHOUT_TTL = 1.0, 60.0, 2.0
"""Seconds for which an answer is used. Docker's DNS server gives a TTL of 600 to containers that come and go."""
INVALID_LIFETIME = 0.2
"""Seconds between two look-ups while no mock is at the addresses."""


class SidecarCache(ResolverCache):
    """Keeps each answer for its TTL, and the last one while look-ups fail."""

    lookups = failures = 0  # so far, and those of them without an answer

    def __init__(self, hosts: Iterable[str | Address], log: Log) -> None:
        super().__init__(((host, partial(_look_up, host)) for host in hosts), time.monotonic, log.step)
        self._asked = dict(self.due)
        self._errors: dict[str | Address, DetourError] = {}

    def resolve(self, host: str | Address, deadline: Deadline) -> Resolution:
        """Return a host's addresses, looked up if it is time; DetourError while there never were any."""
        now = self._clock()
        if now >= self.due[host]:
            self.lookups += 1
            self._asked[host] = now
            self.due[host] = now + MIN_LIFETIME
            try:
                answer = self._answers[host] = self._look_up(host, deadline)
            except DetourError as error:
                self.failures += 1
                self._errors[host] = error
            else:
                ttl = LIFETIME_WITHOUT_TTL if answer.ttl is None else answer.ttl
                self.due[host] = now + min(max(ttl, MIN_LIFETIME), MAX_LIFETIME)
        if host not in self._answers:
            raise self._errors[host]
        return self._answers[host]

    def invalidate(self, host: str | Address) -> None:
        """Look a host up again soon: no mock is at its addresses."""
        self.due[host] = min(self.due[host], self._asked[host] + INVALID_LIFETIME)


def _look_up(host: str | Address, deadline: Deadline, trace: Callable[[str], None]) -> Resolution:
    """Look a host up in /etc/hosts, then at the DNS servers: libc may hang, and keeps TTLs to itself."""
    if not isinstance(host, str):
        return Resolution(str(host), (host,), "literal", FOREVER)
    if known := _in_hosts_file(host):
        return resolution_of(host, known, f"file {etc_hosts.PATH}")
    return ask_servers(host, deadline, trace)


def _in_hosts_file(name: str) -> list[Address]:
    """Return the addresses of a name in /etc/hosts; none if it cannot be read."""
    addresses = []
    with suppress(OSError):
        for line in etc_hosts.read().splitlines():
            entry = etc_hosts.entry(line)
            if name.lower().rstrip(".") in (word.lower() for word in entry[1:]):
                with suppress(ValueError):
                    addresses.append(ip_address(entry[0]))
    return addresses


@dataclass(slots=True, eq=False)
class Prober:
    """Asks DNS servers and mocks. Every method raises StoppedError when a stop comes."""

    reconciler: Reconciler
    cache: SidecarCache
    signals: Signals
    log: Log
    probes: int = 0  # questions through a metadata address
    certain: set[str] = field(default_factory=set)  # services whose mocks gave an answer without a doubt

    def addresses(self, service: Service) -> Collection[Address]:
        """Return the addresses that the mock's name has now; DetourError when there are none."""
        with self.signals.interruptible():
            return self.cache.resolve(service.mock.host, Deadline(LOOKUP_TIMEOUT)).addresses

    def find(self, service: Service) -> tuple[Target, ...]:
        """Return the service's mocks and redirects; DetourError when its mock does not answer."""
        self.addresses(service)  # with a timeout that is not the search's
        with self.signals.interruptible():
            mocks = Search(service, self.reconciler.environment, self.cache, self.log).attempt(Deadline(TIMEOUT))
        for mock in mocks:
            if mock.identity and mock.identity.doubt and service.preset.name in self.certain:
                raise NotYetError("probe", f"{mock}: {mock.identity.doubt}")  # another server took the mock's place
            if mock.identity and not mock.identity.doubt:
                self.certain.add(service.preset.name)
        return tuple(targets_of(service, mocks))

    def verify(self, targets: Iterable[Target], timeout: float) -> str:
        """Return the mock's answer through its metadata addresses; DetourError when it is not the mock's."""
        seen = ""
        for target in targets:
            self.probes += 1
            with self.signals.interruptible():  # RestartingFirewall is uninterruptible
                seen = str(verify.verify_once(target, self.reconciler.firewall, Deadline(timeout), self.log))
        return seen
