"""Find mocks and probe redirects for the sidecar, once each. A stop interrupts every wait for an answer."""

from __future__ import annotations

from collections.abc import Collection, Iterable

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
"""Seconds for one search, and for one probe through a metadata address: other services wait meanwhile."""


class Prober:
    """Asks DNS servers and mocks. Every method raises StoppedError when a stop comes."""

    def __init__(self, reconciler: Reconciler, cache: ResolverCache, signals: Signals, log: Log) -> None:
        self.probes = 0  # questions through a metadata address
        self._reconciler = reconciler
        self._cache = cache
        self._signals = signals
        self._log = log

    def addresses(self, service: Service) -> Collection[Address]:
        """Return the addresses that the mock's name has now; DetourError when there are none."""
        with self._signals.interruptible():
            return self._cache.resolve(service.mock.host, Deadline(LOOKUP_TIMEOUT)).addresses

    def find(self, service: Service) -> tuple[Target, ...]:
        """Return where the service leads now; DetourError when its mock does not answer."""
        environment = self._reconciler.environment
        self.addresses(service)  # with a timeout that is not the search's
        with self._signals.interruptible():
            mocks = Search(service, environment.versions, self._cache, self._log).attempt(Deadline(TIMEOUT))
        return tuple(targets_of(service, mocks, environment))

    def verify(self, targets: Iterable[Target]) -> str:
        """Return the mock's answer through its metadata addresses; DetourError when it is not the mock's."""
        seen = ""
        for target in targets:
            self.probes += 1
            with self._signals.interruptible():  # RestartingFirewall is uninterruptible
                identity = verify.verify_once(target, self._reconciler.firewall, Deadline(TIMEOUT), self._log)
            seen = str(identity)
        return seen
