"""Find mocks and probe redirects for the sidecar, once each. A stop interrupts every wait for an answer."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from imds_detour import verify
from imds_detour.config.services import Service
from imds_detour.ctl.sidecar.reconciler import Reconciler
from imds_detour.ctl.sidecar.signals import Signals
from imds_detour.deadline import Deadline
from imds_detour.discovery.dns.cache import ResolverCache
from imds_detour.discovery.mock import Search
from imds_detour.endpoint import Address
from imds_detour.log import Log
from imds_detour.result import Target, targets_of

LOOKUP_TIMEOUT = 1.0
"""Seconds for one look-up."""
TIMEOUT = 0.7
"""Seconds for one search, and for one probe through a metadata address: other services wait for it."""
REPROBE_TIMEOUT = 2.0
"""Seconds for the second probe, which decides whether a redirect is closed: the machine may be busy."""


@dataclass(slots=True, eq=False)
class Prober:
    """Asks DNS servers and mocks. Every method raises StoppedError when a stop comes."""

    reconciler: Reconciler
    cache: ResolverCache
    signals: Signals
    log: Log
    probes: int = 0  # questions through a metadata address

    def addresses(self, service: Service) -> Collection[Address]:
        """Return the addresses that the mock's name has now; DetourError when there are none."""
        with self.signals.interruptible():
            return self.cache.resolve(service.mock.host, Deadline(LOOKUP_TIMEOUT)).addresses

    def find(self, service: Service) -> tuple[Target, ...]:
        """Return the service's mocks and redirects; DetourError when its mock does not answer."""
        self.addresses(service)  # with a timeout that is not the search's
        with self.signals.interruptible():
            mocks = Search(service, self.reconciler.environment, self.cache, self.log).attempt(Deadline(TIMEOUT))
        return tuple(targets_of(service, mocks))

    def verify(self, targets: Iterable[Target], timeout: float) -> str:
        """Return the mock's answer through its metadata addresses; DetourError when it is not the mock's."""
        seen = ""
        for target in targets:
            self.probes += 1
            with self.signals.interruptible():  # RestartingFirewall is uninterruptible
                seen = str(verify.verify_once(target, self.reconciler.firewall, Deadline(timeout), self.log))
        return seen
