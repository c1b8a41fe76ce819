"""Find the mock: look its name up, and take the first address at which something answers as a metadata service."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from imds_detour.endpoints import Endpoint
from imds_detour.errors import DetourError, NotYetError
from imds_detour.lookup import Lookup, Resolution
from imds_detour.probe import Identity, identify
from imds_detour.waiting import Deadline, until_ready

if TYPE_CHECKING:
    from collections.abc import Mapping

    from imds_detour.endpoints import Address
    from imds_detour.probe import Question
    from imds_detour.report import Report
    from imds_detour.settings import Settings

FIRST_PATIENCE, LONGEST_PATIENCE = 1.0, 10.0
"""Seconds for one address to answer: twice as long each time they run out, since some mocks load for seconds."""
BESIDE_PATIENCE = 0.25
"""Seconds for the mock to answer over IPv6 as well, once it has answered over IPv4."""
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


def find(settings: Settings, questions: Mapping[int, Question], report: Report) -> tuple[Mock, ...]:
    """Wait until the mock is there, by name and by answer.

    Args:
        settings: where to look.
        questions: what to ask over each IP version; the others are of no use.
        report: told what is being waited for.

    Returns:
        Where it answers, at most once over each IP version: over IPv4, if it has such an address at all, and over
        IPv6 as well, if it answers there at the same time.

    Raises:
        DetourError: when it cannot be there, or is not by the deadline; says what was seen last.

    """
    search = _Search(settings, questions, report)
    try:
        return until_ready(search.attempt, report.deadline, on_failure=report.waiting)
    except NotYetError as error:
        where = "start it, or correct MOCK_HOSTNAME" if error.step == "lookup" else "start it, or correct MOCK_PORT"
        reason = f"no mock after {report.deadline.limit:g} s: {error.reason}"
        raise DetourError(error.step, reason, f"{where}; MOCK_TIMEOUT is how long to wait") from None


class _Search:
    """The attempts of one search, and what they have learnt so far."""

    def __init__(self, settings: Settings, questions: Mapping[int, Question], report: Report) -> None:
        self._settings = settings
        self._questions = questions
        self._report = report
        self._lookup = Lookup(settings.host)
        self._resolution: Resolution | None = None
        self._fresh_until = 0.0
        self._answered = False
        self._patience = FIRST_PATIENCE

    def attempt(self) -> tuple[Mock, ...]:
        resolution = self._resolve()
        by_version = {
            version: [address for address in resolution.addresses if address.version == version]
            for version in self._questions
        }
        first = next((version for version in (4, 6) if by_version.get(version)), None)
        if first is None:
            self._of_no_use(resolution)
        if first == 6:
            self._fresh_until = 0.0  # should nobody answer, its IPv4 address may be known by the next attempt
        found = self._first_to_answer(resolution.name, by_version[first], self._patience)
        if first == 6 or not by_version.get(6):
            return (found,)
        try:
            return (found, self._first_to_answer(resolution.name, by_version[6], BESIDE_PATIENCE))
        except NotYetError as error:
            self._report.step(f"no mock over IPv6: {error.reason}")
            return (found,)

    def _first_to_answer(self, name: str, addresses: list[Address], limit: float) -> Mock:
        failures, stalled = [], False
        for position, address in enumerate(addresses):
            endpoint = Endpoint(address, self._settings.port)
            if not self._settings.probe:
                return Mock(name, endpoint, None)
            # A share of what is left, so that a silent first address leaves time for the next.
            share = self._report.deadline.remaining() / (len(addresses) - position)
            patience = Deadline(min(limit, share))
            try:
                identity = identify(endpoint, self._questions[address.version], patience)
            except NotYetError as error:
                stalled = stalled or patience.remaining() <= 0
                failures.append(f"{Mock(name, endpoint, None)}: {error.reason}")
            else:
                self._report.step(f"the mock answers: {identity}, asked at {endpoint}")
                return Mock(name, endpoint, identity)
        if stalled:
            self._patience = min(self._patience * 2, LONGEST_PATIENCE)
        raise NotYetError("probe", "; ".join(failures))

    def _of_no_use(self, resolution: Resolution) -> NoReturn:
        if not isinstance(self._settings.host, str):
            raise DetourError(
                "lookup",
                f"{resolution.name} is an IPv6 address, and there is no IPv6 in this network namespace",
                "set MOCK_HOSTNAME to an IPv4 one, or enable IPv6 on the network",
            )
        self._fresh_until = 0.0  # this answer is of no use: look again at once
        first = resolution.addresses[0]
        raise NotYetError("lookup", f"{resolution.name} has IPv6 addresses only ({first}), and there is no IPv6 here")

    def _resolve(self) -> Resolution:
        if self._resolution is not None and self._report.deadline.elapsed() < self._fresh_until:
            return self._resolution
        if self._answered:
            # One that has answered would repeat itself; one that has not keeps trying, and keeps its threads few.
            self._lookup, self._answered = Lookup(self._settings.host), False
        try:
            found = self._lookup.attempt(self._report.deadline)
        except NotYetError as error:
            raise NotYetError(error.step, f"cannot resolve {self._settings.host}: {error.reason}") from None
        self._answered = True
        if found != self._resolution and isinstance(self._settings.host, str):
            addresses = ", ".join(map(str, found.addresses))
            self._report.step(f"{found.name} is at {addresses}, says the {found.source}")
        self._resolution, self._fresh_until = found, self._report.deadline.elapsed() + FRESH
        return found
