"""Check that each mock answers at its metadata address."""

from imds_detour import verify
from imds_detour.advice.access import NOT_STARTED
from imds_detour.config.presets import PRESETS
from imds_detour.config.settings import Settings
from imds_detour.ctl.rule_reader import RuleReader
from imds_detour.deadline import Deadline
from imds_detour.discovery.dns.cache import start_cache
from imds_detour.discovery.mock import Mock, Search
from imds_detour.discovery.probe import identify
from imds_detour.endpoint import Address, Endpoint
from imds_detour.errors import DetourError, NotYetError
from imds_detour.firewall.refusal import is_refused
from imds_detour.firewall.rules import Redirect
from imds_detour.log import Log
from imds_detour.result import Target, inspect, targets_of
from imds_detour.value import Value


class Answer(Value):
    """A mock's answer at its metadata address."""

    target: Target
    text: str  # the answer
    by_rule: bool  # whether the rule's counter rose; otherwise both answers were compared

    def facts(self) -> dict[str, str | None]:
        """Return the keys of the answer for ``check --json``."""
        from imds_detour.ctl import report  # noqa: PLC0415  (a health check does without)

        return {**report.redirect(self.target, self.text), "proof": "rule" if self.by_rule else "comparison"}

    def __str__(self) -> str:
        how = "by the rule" if self.by_rule else "by comparison alone: the rule cannot be seen from here"
        return f"{self.target.redirect.endpoint} -> {self.target.mock}, verified {self.text}, {how}"


class HealthCheck(Value):
    """Checks redirects within a deadline, by the rules that it can read."""

    reader: RuleReader
    deadline: Deadline
    log: Log

    def check(self, settings: Settings) -> tuple[Answer, ...]:
        """Return the answer at each metadata address at which its mock answers; DetourError if one does not."""
        if not settings.probe:
            raise DetourError(
                "probe",
                "MOCK_PROBE=off leaves nothing to compare",
                "give a path that the mock answers: `imds-detourctl check --probe /path`",
            )
        if settings.backend == "env":
            raise DetourError(
                "probe",
                "MOCK_BACKEND=env redirects nothing, so there is nothing to ask at the metadata address",
                "ask the mock itself, for example with curl",
            )
        environment = inspect(settings, host=True)
        cache = start_cache((service.mock.host for service in environment.services), self.deadline.clock, self.log.step)
        answers: list[Answer] = []
        for service in environment.services:
            mocks = Search(service, environment, cache, self.log).attempt(self.deadline)
            addresses = cache.resolve(service.mock.host, self.deadline).addresses
            answers += self._service(targets_of(service, mocks), addresses)
        return tuple(answers)

    def _service(self, targets: list[Target], addresses: tuple[Address, ...]) -> list[Answer]:
        """Check one service over each IP version; ``addresses`` are those of the mock's name."""
        answers: list[Answer] = []
        for target in targets:
            mock, endpoint = target.mock, target.redirect.endpoint
            leads_to = self.reader.mock_of(endpoint)
            if leads_to is None and self.reader.complete:
                if answers:
                    continue  # closed: the mock came to answer over IPv6 later
                guard = (
                    "" if _is_guarded(endpoint.address) else ", and there is no guard: the real service could answer"
                )
                raise DetourError("firewall", f"{endpoint} is not redirected by imds-detour{guard}", NOT_STARTED)
            if leads_to is not None and leads_to != mock.endpoint:
                mock = self._moved(mock, endpoint, leads_to, addresses)
            try:
                answers.append(self._answer(Target(target.service, mock, Redirect(endpoint, mock.endpoint)), leads_to))
            except NotYetError as error:
                if answers and leads_to is None:
                    continue  # as above, and the rules cannot be seen
                raise DetourError(
                    "probe",
                    f"the mock answers at {mock.endpoint} and not through {endpoint}: {error.reason}",
                    "`imds-detourctl status` shows the rules; `imds-detourctl doctor` says what to change",
                ) from None
        return answers

    def _answer(self, target: Target, leads_to: Endpoint | None) -> Answer:
        """Return the answer at a metadata address; NotYetError when there is none."""
        endpoint = target.redirect.endpoint
        if leads_to is None and not _is_guarded(endpoint.address):  # without either, the real service would be asked
            raise DetourError(
                "firewall",
                f"no redirect or guard of {endpoint} can be seen, so it is not asked: the real service could answer",
                f"{NOT_STARTED}; or, with MOCK_GUARD=off, run this check with NET_ADMIN and NET_RAW",
            )
        # This fails at once: there is nothing to wait for.
        seen = identify(endpoint, target.mock.question, self.deadline, self.log.step)
        if self.reader.firewall is not None and leads_to is not None:
            (seen,) = verify.verify([target], self.reader.firewall, self.deadline, self.log)
            return Answer(target, str(seen), by_rule=True)
        verify.same(target, seen, self.deadline, self.log)
        return Answer(target, str(seen), by_rule=False)

    def _moved(self, mock: Mock, endpoint: Endpoint, leads_to: Endpoint, addresses: tuple[Address, ...]) -> Mock:
        """Return the mock at the address to which the rule redirects, if its name has that address too."""
        if leads_to.port == mock.endpoint.port and leads_to.address in addresses:
            return mock.replace(endpoint=leads_to, identity=identify(leads_to, mock.question, self.deadline))
        raise DetourError(
            "firewall",
            f"{endpoint} leads to {leads_to}, and the mock is at {mock} now",
            "restart this container, or let the sidecar follow the mock",
        )


def _is_guarded(address: Address) -> bool:
    """Whether the guard refuses packets to an address; for an IPv6 address, whether it does to EC2's of IPv4."""
    return is_refused(address if address.version == 4 else PRESETS["aws"].endpoints[0].address)
