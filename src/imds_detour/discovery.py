"""Find the mock: look its name up, and take the first address at which something answers as a metadata service."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from imds_detour.endpoints import Endpoint
from imds_detour.errors import DetourError, NotYetError
from imds_detour.lookup import Lookup, Resolution
from imds_detour.probe import Identity, identify
from imds_detour.waiting import Deadline, until_ready

if TYPE_CHECKING:
    from imds_detour.probe import Question
    from imds_detour.report import Report
    from imds_detour.settings import Settings

FIRST_PATIENCE, LONGEST_PATIENCE = 1.0, 10.0
"""Seconds for one address to answer: twice as long each time, since some mocks load for seconds at first."""
FRESH = 2.0
"""Seconds for which an answer of DNS is used; then, while nobody answers there, the name is looked up again."""


@dataclass(frozen=True, slots=True)
class Mock:
    """The mock as found.

    Attributes:
        name: as the user wrote it.
        endpoint: where it answers.
        identity: who it says it is; None when it was not asked.

    """

    name: str
    endpoint: Endpoint
    identity: Identity | None

    def __str__(self) -> str:
        return str(self.endpoint) if self.name == str(self.endpoint.address) else f"{self.name} ({self.endpoint})"


def find(settings: Settings, question: Question, report: Report) -> Mock:
    """Wait until the mock is there, by name and by answer.

    Raises:
        DetourError: when it cannot be there, or is not by the deadline; says what was seen last.

    """
    search = _Search(settings, question, report)
    try:
        return until_ready(search.attempt, report.deadline, on_failure=report.waiting)
    except NotYetError as error:
        where = "start it, or correct MOCK_HOSTNAME" if error.step == "lookup" else "start it, or correct MOCK_PORT"
        reason = f"no mock after {report.deadline.limit:g} s: {error.reason}"
        raise DetourError(error.step, reason, f"{where}; MOCK_TIMEOUT is how long to wait") from None


class _Search:
    """The attempts of one search, and what they have learnt so far."""

    def __init__(self, settings: Settings, question: Question, report: Report) -> None:
        self._settings = settings
        self._question = question
        self._report = report
        self._lookup = Lookup(settings.host)
        self._resolution: Resolution | None = None
        self._resolved_at = 0.0
        self._patience = FIRST_PATIENCE

    def attempt(self) -> Mock:
        resolution = self._resolve()
        addresses = [address for address in resolution.addresses if address.version == 4]
        if not addresses:
            raise NotYetError(
                "lookup",
                f"{resolution.name} has IPv6 addresses only ({resolution.addresses[0]}); this needs an IPv4 one",
            )
        failures = []
        for address in addresses:
            endpoint = Endpoint(address, self._settings.port)
            if not self._settings.probe:
                return Mock(resolution.name, endpoint, None)
            patience = Deadline(self._report.deadline.within(self._patience))
            try:
                identity = identify(endpoint, self._question, patience)
            except NotYetError as error:
                failures.append(f"{Mock(resolution.name, endpoint, None)}: {error.reason}")
            else:
                self._report.step(f"the mock answers: {identity}, asked at {endpoint}")
                return Mock(resolution.name, endpoint, identity)
        self._patience = min(self._patience * 2, LONGEST_PATIENCE)
        raise NotYetError("probe", "; ".join(failures))

    def _resolve(self) -> Resolution:
        now = self._report.deadline.elapsed()
        if self._resolution is not None and now - self._resolved_at < FRESH:
            return self._resolution
        if self._resolution is not None:
            self._lookup = Lookup(self._settings.host)  # the last one has its answer, and would repeat it
        try:
            found = self._lookup.attempt(self._report.deadline)
        except NotYetError as error:
            raise NotYetError(error.step, f"cannot resolve {self._settings.host}: {error.reason}") from None
        if found != self._resolution:
            addresses = ", ".join(map(str, found.addresses))
            self._report.step(f"{found.name} is at {addresses}, says the {found.source}")
        self._resolution, self._resolved_at = found, now
        return found
