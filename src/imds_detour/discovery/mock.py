"""Find the mocks: of the addresses that a name has, the first at which the service in question is answered for."""

from __future__ import annotations

from imds_detour.deadline import MIN_ATTEMPT, Deadline, until_ready
from imds_detour.discovery.probe import Identity, Question, identify
from imds_detour.endpoint import Endpoint
from imds_detour.errors import DetourError, NotYetError
from imds_detour.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn, Protocol

    from imds_detour.config.services import Service
    from imds_detour.discovery.dns.lookup import Resolution
    from imds_detour.endpoint import Address
    from imds_detour.log import Log

    class Resolver(Protocol):
        """Whoever knows where a host is."""

        def resolve(self, host: str | Address) -> Resolution:
            """Return where it is; raises DetourError when no mock can be there, NotYetError when nobody knows."""

        def invalidate(self, host: str | Address) -> None:
            """Look it up again at the next attempt: what was found was of no use."""


FIRST_TIMEOUT, MAX_TIMEOUT = 1.0, 10.0
"""Seconds for one address to answer: twice as long each time they run out, since some mocks load for seconds."""
BESIDE_TIMEOUT = 0.25
"""Seconds for the mock to answer over IPv6 as well, once it has answered over IPv4."""
MAX_TOLD = 4
"""How many addresses of one name a line speaks of."""


class Mock(Value):
    """A mock as found, over one IP version.

    Attributes:
        name: as the user wrote it.
        endpoint: where it answers.
        question: what it was asked, and what to ask through the metadata address.
        identity: who it says it is; None when it was not asked.

    """

    name: str
    endpoint: Endpoint
    question: Question
    identity: Identity | None

    def __str__(self) -> str:
        return _named(self.name, self.endpoint)


def find(
    service: Service, versions: tuple[int, ...], names: Resolver, log: Log, *, probe: bool = True
) -> tuple[Mock, ...]:
    """Wait until a service's mock is there, by name and by answer.

    Args:
        service: whose mock.
        versions: the IP versions that are of use, 4 and perhaps 6.
        names: where its host is.
        report: told what is being waited for; its deadline is ours.
        probe: whether to ask the mock anything at all.

    Returns:
        Where it answers, at most once over each IP version: over IPv4, if it has such an address at all, and over
        IPv6 as well, if it answers there at the same time.

    Raises:
        DetourError: when it cannot be there, or is not by the deadline; says what was seen last.

    """
    search = Search(service, versions, names, log, probe=probe)
    try:
        return until_ready(search.attempt, log.deadline, on_failure=log.waiting)
    except NotYetError as error:
        where = "name in MOCK_HOSTNAME" if error.step == "lookup" else "port in MOCK_PORT"
        where = f"start it, or correct its {where} or MOCK_ENDPOINTS"
        reason = f"no mock after {log.deadline.limit:g} s: {error.reason}"
        raise DetourError(error.step, reason, f"{where}; MOCK_TIMEOUT is how long to wait") from None


class Search:
    """The attempts to find one service's mock, and what they have learnt so far."""

    def __init__(
        self, service: Service, versions: tuple[int, ...], names: Resolver, log: Log, *, probe: bool = True
    ) -> None:
        """Take the same as find()."""
        self._service = service
        self._questions: dict[int, Question] = {
            at.address.version: Question(service.preset.name, at.host, service.proof)
            for at in service.preset.endpoints
            if at.address.version in versions
        }
        self._names = names
        self._log = log
        self._probe = probe
        self._timeout = FIRST_TIMEOUT

    def attempt(self) -> tuple[Mock, ...]:
        """Look once; as find(), which does so until its deadline.

        Raises:
            DetourError: when no mock can be there.
            NotYetError: when there is none now.

        """
        host = self._service.mock.host
        resolution = self._names.resolve(host)
        by_version: dict[int, list[Address]] = {
            version: [address for address in resolution.addresses if address.version == version]
            for version in self._questions
        }
        first = next((version for version in (4, 6) if by_version.get(version)), None)
        if first is None:
            self._of_no_use(resolution)
        if first == 6:
            self._names.invalidate(host)  # should nobody answer, its IPv4 address may be known by the next attempt
        found = self._first_to_answer(resolution.name, by_version[first], self._timeout)
        if first == 6 or not by_version.get(6):
            return (found,)
        try:
            return (found, self._first_to_answer(resolution.name, by_version[6], BESIDE_TIMEOUT))
        except NotYetError as error:
            self._log.step(f"no mock over IPv6: {error.reason}")
            return (found,)

    def _first_to_answer(self, name: str, addresses: list[Address], limit: float) -> Mock:
        failures: list[str] = []
        stalled = False
        for position, address in enumerate(addresses):
            if failures and self._log.deadline.remaining() < MIN_ATTEMPT:
                break  # a name may have thousands of addresses
            endpoint = Endpoint(address, self._service.mock.port)
            question = self._questions[address.version]
            if not self._probe:
                return Mock(name, endpoint, question, None)
            # A share of what is left, so that a silent first address leaves time for the next.
            share = self._log.deadline.remaining() / (len(addresses) - position)
            timeout = Deadline(max(MIN_ATTEMPT, min(limit, share)))
            try:
                identity = identify(endpoint, question, timeout, self._log.step)
            except NotYetError as error:
                stalled = stalled or timeout.remaining() <= 0
                failures.append(f"{_named(name, endpoint)}: {error.reason}")
            else:
                self._log.step(f"the mock answers: {identity}, asked at {endpoint}")
                return Mock(name, endpoint, question, identity)
        if stalled:
            self._timeout = min(self._timeout * 2, MAX_TIMEOUT)
        more = f"; and {len(failures) - MAX_TOLD} more" if len(failures) > MAX_TOLD else ""
        raise NotYetError("probe", "; ".join(failures[:MAX_TOLD]) + more)

    def _of_no_use(self, resolution: Resolution) -> NoReturn:
        first, preset = resolution.addresses[0], self._service.preset
        lacking = first.version == 6 and any(at.address.version == 6 for at in preset.endpoints)
        other = 4 if first.version == 6 else 6
        if not isinstance(self._service.mock.host, str):
            why = (
                "there is no IPv6 in this network namespace"
                if lacking
                else f"{preset.name} is at an IPv{other} address"
            )
            raise DetourError(
                "lookup",
                f"{resolution.name} is an IPv{first.version} address, and {why}",
                f"give the mock by an IPv{other} one" + (", or enable IPv6 on the network" if lacking else ""),
            )
        why = "there is no IPv6 here" if lacking else f"{preset.name} is at an IPv{other} address"
        self._names.invalidate(self._service.mock.host)  # this answer is of no use: look again at once
        raise NotYetError("lookup", f"{resolution.name} has IPv{first.version} addresses only ({first}), and {why}")


def _named(name: str, endpoint: Endpoint) -> str:
    return str(endpoint) if name == str(endpoint.address) else f"{name} ({endpoint})"
