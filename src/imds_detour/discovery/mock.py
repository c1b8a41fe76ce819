"""Find the mocks: the first address of a name at which the service is answered for."""

from __future__ import annotations

from contextlib import suppress
from functools import partial

from imds_detour.deadline import MIN_ATTEMPT, Deadline, until_ready
from imds_detour.discovery.http import AbsentError, StalledError
from imds_detour.discovery.probe import Identity, Question, ServerError, identify
from imds_detour.endpoint import Address, Endpoint
from imds_detour.errors import DetourError, NotYetError
from imds_detour.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from imds_detour.config.services import Service
    from imds_detour.discovery.dns.cache import ResolverCache
    from imds_detour.discovery.dns.lookup import Resolution
    from imds_detour.log import Log
    from imds_detour.result import Environment

FIRST_TIMEOUT, MAX_TIMEOUT = 1.0, 10.0
"""Seconds for one request. The timeout doubles each time it runs out: some mocks load for seconds."""
IPV6_TIMEOUT = 5.0
"""Seconds of a start for the mocks to answer over IPv6 too, once they answer over IPv4. On a fresh interface, duplicate
address detection takes two (RFC 4862), and a question to the neighbour before its end is repeated after three."""
MIN_IPV6_TIMEOUT = 0.25
"""The same for a mock after that time, and for each attempt of the sidecar."""
EC2_MOCK_PORT = 1338
"""The port of amazon-ec2-metadata-mock, and of `imds-detourctl mock`."""
OTHER_PORT_PAUSE = 1.0
"""Seconds between two questions there."""
MAX_FAILURES = 4
"""How many addresses of one name a line names."""


class Mock(Value):
    """A mock over one IP version."""

    name: str  # as the user wrote it
    endpoint: Endpoint  # the address and port at which it answers
    question: Question  # what to ask it, directly and through the metadata address
    identity: Identity | None  # its answer; None when it was not asked

    def __str__(self) -> str:
        address = str(self.endpoint.address)
        return str(self.endpoint) if self.name == address else f"{self.name} ({self.endpoint})"


class Search:
    """Attempts to find one service's mock. Timeouts grow from attempt to attempt."""

    def __init__(
        self, service: Service, environment: Environment, cache: ResolverCache, log: Log, *, probe: bool = True
    ) -> None:
        self._service = service
        self._environment = environment
        self._questions = {
            endpoint.address.version: Question(service.preset.name, endpoint.host, service.proof)
            for endpoint in service.preset.endpoints
            if endpoint.address.version in environment.versions
        }
        self._cache = cache
        self._log = log
        self._probe = probe
        self._timeout = FIRST_TIMEOUT
        self._without_ipv6 = ""  # why the mock has an IPv6 address and does not answer there
        self._port = service.mock.port
        self._other_port_due = float("-inf")  # on the monotonic clock
        self._failing_path = ""  # the path to which the last attempt's first answer was 5xx

    def wait(self, deadline: Deadline, *, both: bool = True) -> tuple[Mock, ...]:
        """Attempt it until the mock answers, over IPv6 too with ``both``; DetourError with the last failure."""
        try:
            waiting = partial(self._log.waiting, deadline=deadline)
            mocks = until_ready(lambda: self.attempt(deadline, patient=both), deadline, on_failure=waiting)
        except NotYetError as error:
            from imds_detour.advice.mocks import no_mock  # noqa: PLC0415  (only a start that fails needs it)

            raise no_mock(error, self._service, deadline.limit) from None
        mock = mocks[0]
        if mock.identity and mock.identity.doubt:
            self._log.warning(
                f"{mock} is taken for the mock, though {mock.identity.doubt}: if it is another server, correct"
                f" {self._service.mock.setting}, or let MOCK_PROBE name a path that the mock has"
            )
        if mock.endpoint.port != (port := self._service.mock.port):
            self._log.warning(f"{mock} is the mock: MOCK_PORT is not set, and port {port} is refused")
        if both and self._without_ipv6:
            host = self._questions[6].host
            self._log.warning(f"{mocks[0].name} answers over IPv4 only: {host} is not redirected: {self._without_ipv6}")
        return mocks

    def attempt(self, deadline: Deadline, *, patient: bool = False) -> tuple[Mock, ...]:
        """Look once, and return the mock over each IP version.

        It comes over IPv4 if it has such an address, and over IPv6 too if it answers there at the same time.
        ``patient`` is whether to wait until that is certain, or IPV6_TIMEOUT has passed. Raises DetourError when no
        mock can be there, and NotYetError when there is none now.
        """
        host = self._service.mock.host
        resolution = self._cache.resolve(host, deadline)
        self._environment.require_no_metadata(resolution.name, resolution.addresses)
        usable = [address for address in resolution.addresses if address.version in self._questions]
        if not usable:
            raise self._unusable(resolution)
        ipv4, ipv6 = ([address for address in usable if address.version == version] for version in (4, 6))
        if not ipv4:
            self._cache.invalidate(host)  # if the mock does not answer, its IPv4 address may be known by then
        mock = self._first_answer(resolution.name, ipv4 or ipv6, self._timeout, deadline)
        other = self._over_ipv6(resolution.name, ipv6, deadline, patient=patient) if ipv4 and ipv6 else None
        return (mock, other) if other else (mock,)

    def _over_ipv6(self, name: str, addresses: list[Address], deadline: Deadline, *, patient: bool) -> Mock | None:
        """Return the mock over IPv6, None if there is none. Only silence and wrong answers are waited for."""
        now = deadline.clock()
        if self._cache.ipv6_since is None:
            self._cache.ipv6_since = now
        wait = self._cache.ipv6_since + IPV6_TIMEOUT - now if patient else 0.0
        limit = Deadline(deadline.within(max(wait, MIN_IPV6_TIMEOUT)))

        def ask() -> Mock | NotYetError:
            try:
                return self._first_answer(name, addresses, FIRST_TIMEOUT, limit)
            except NotYetError as error:
                if not patient or isinstance(error, AbsentError):
                    return error
                raise

        try:
            outcome = until_ready(ask, limit, on_failure=partial(self._log.waiting, deadline=deadline))
        except NotYetError as error:
            outcome = error
        if isinstance(outcome, Mock):
            return outcome
        self._log.step(f"no mock over IPv6: {outcome.reason}")
        self._without_ipv6 = outcome.reason
        return None

    def _first_answer(self, name: str, addresses: list[Address], limit: float, deadline: Deadline) -> Mock:
        failures: list[str] = []
        absent, stalled, questions = True, False, 0
        for position, address in enumerate(addresses):
            if failures and deadline.remaining() < MIN_ATTEMPT:
                break  # a name may have thousands of addresses
            mock = Mock(name, Endpoint(address, self._port), self._questions[address.version], None)
            if not self._probe:
                return mock
            # A share of what is left: a silent first address leaves time for the next.
            share = deadline.remaining() / (len(addresses) - position)
            timeout = Deadline(max(MIN_ATTEMPT, share))
            try:
                return self._ask(mock, timeout, limit)
            except NotYetError as error:
                if isinstance(error, AbsentError) and self._try_other_port(timeout):
                    with suppress(NotYetError):
                        other = self._ask(mock.replace(endpoint=Endpoint(address, EC2_MOCK_PORT)), timeout, limit)
                        if other.identity and not other.identity.doubt:
                            self._port = EC2_MOCK_PORT  # over IPv6 too
                            return other
                absent &= isinstance(error, AbsentError)
                stalled |= isinstance(error, StalledError)
                questions += error.questions
                self._failing_path = error.path if isinstance(error, ServerError) else ""
                failures.append(f"{mock}: {error.reason}")
        if stalled:
            self._timeout = min(self._timeout * 2, MAX_TIMEOUT)
        more = f"; and {len(failures) - MAX_FAILURES} more" if len(failures) > MAX_FAILURES else ""
        failure = (AbsentError if absent else NotYetError)("probe", "; ".join(failures[:MAX_FAILURES]) + more)
        failure.questions = questions
        raise failure

    def _ask(self, mock: Mock, timeout: Deadline, limit: float) -> Mock:
        """Return the mock with its identity, and the question that gave it."""
        if self._failing_path:  # one question is enough while its answer does not change
            identify(mock.endpoint, mock.question.bare(self._failing_path), timeout, self._log.step, limit)
        identity = identify(mock.endpoint, mock.question, timeout, self._log.step, limit)
        self._log.step(f"the mock answers: {identity}, asked at {mock.endpoint}")
        return mock.replace(question=mock.question.only(identity.path), identity=identity)

    def _try_other_port(self, deadline: Deadline) -> bool:
        """Whether to ask at amazon-ec2-metadata-mock's port too: no port was given, and the default one is refused."""
        now = deadline.clock()
        if not self._service.mock.default_port or now < self._other_port_due:
            return False
        self._other_port_due = now + OTHER_PORT_PAUSE
        return True

    def _unusable(self, resolution: Resolution) -> DetourError:
        """Return why none of the addresses is of an IP version that the service has in this network namespace."""
        address, preset = resolution.addresses[0], self._service.preset
        version, other = address.version, 10 - address.version
        reason, remedy = f"{preset.name} is at an IPv{other} address", f"give the mock by an IPv{other} one"
        if version == 6 and any(endpoint.address.version == 6 for endpoint in preset.endpoints):
            reason, remedy = "there is no IPv6 in this network namespace", f"{remedy}, or enable IPv6 on the network"
        if isinstance(self._service.mock.host, str):
            self._cache.invalidate(self._service.mock.host)  # look it up again at once
            seen = f"{resolution.name} has IPv{version} addresses only ({address}), and {reason}"
            return NotYetError("lookup", seen, remedy)
        return DetourError("lookup", f"{resolution.name} is an IPv{version} address, and {reason}", remedy)
