"""What is asked of others: where a mock is, and who answers. A stop ends each wait for an answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imds_detour.deadline import Deadline
from imds_detour.discovery.mock import Search
from imds_detour.log import Log
from imds_detour.redirect import target as passage_to
from imds_detour.verify import verify_now

if TYPE_CHECKING:
    from collections.abc import Collection

    from imds_detour.config.services import Service
    from imds_detour.ctl.sidecar.names import FollowedNames
    from imds_detour.ctl.sidecar.reconciler import Upkeep
    from imds_detour.ctl.sidecar.signals import Wake
    from imds_detour.endpoint import Address
    from imds_detour.result import Target

TIMEOUT = 0.7
"""Seconds for one search, and for one question through a metadata address: other services wait meanwhile."""


class Questions:
    """Asks once, for one who comes back anyway. All of it raises StoppedError when a stop comes.

    Attributes:
        probes: how many questions went through a metadata address.

    """

    def __init__(self, upkeep: Upkeep, names: FollowedNames, wake: Wake, log: Log) -> None:
        """Know whom to ask; nothing is asked yet."""
        self.probes = 0
        self._upkeep = upkeep
        self._names = names
        self._wake = wake
        self._log = log

    def addresses(self, service: Service) -> Collection[Address]:
        """Return where its name leads by now.

        Raises:
            DetourError: when nobody knows, or no mock can be there.

        """
        with self._wake.breakable():
            return self._names.resolve(service.mock.host).addresses

    def find(self, service: Service) -> Target:
        """Return where its mock is, by name and by answer.

        Raises:
            DetourError: when there is none now.

        """
        environment = self._upkeep.environment
        with self._wake.breakable():
            mocks = Search(service, environment.versions, self._names, self.attempt()).attempt()
        return passage_to(service, mocks, environment)

    def verify(self, target: Target) -> str:
        """Return who answers through the metadata address.

        Raises:
            DetourError: when it is not the mock.

        """
        seen = ""
        for mock, redirect in zip(target.mocks, target.redirects, strict=True):
            assert mock.identity is not None  # noqa: S101  (without probes there is no sidecar)
            self.probes += 1
            with self._wake.breakable():  # the firewall's part of it is not (restarting_firewall.py)
                identity = verify_now(redirect, mock.identity, mock.question, self._upkeep.firewall, self.attempt())
            seen = str(identity)
        return seen

    def attempt(self) -> Log:
        """Return a report for one attempt: with the time that it may take, and heard in debug alone."""
        return Log("debug" if self._log.format == "debug" else "quiet", Deadline(TIMEOUT))
