"""Who answers at the metadata addresses: the mock, as asked directly, or somebody else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from imds_detour import verify
from imds_detour.discovery.dns.cache import ResolverCache
from imds_detour.discovery.mock import Search
from imds_detour.discovery.probe import identify
from imds_detour.errors import DetourError, NotYetError
from imds_detour.firewall.rules import Redirect
from imds_detour.log import Log
from imds_detour.redirect import inspect, target

if TYPE_CHECKING:
    from imds_detour.config.services import Service
    from imds_detour.config.settings import Settings
    from imds_detour.ctl.rule_reader import Looker
    from imds_detour.deadline import Deadline
    from imds_detour.discovery.mock import Mock
    from imds_detour.discovery.probe import Identity
    from imds_detour.endpoint import Address, Endpoint
    from imds_detour.result import Environment


@dataclass(frozen=True, slots=True)
class Answer:
    """A redirect that works.

    Attributes:
        mock: where it leads, as people write it.
        redirect: from where to where.
        identity: who answers there.
        counted: whether the counter of our rule was seen to rise; else the answers alone were compared.

    """

    mock: str
    redirect: Redirect
    identity: Identity
    counted: bool

    def __str__(self) -> str:
        how = "by our rule" if self.counted else "by comparison alone: our rule cannot be seen from here"
        return f"{self.redirect.endpoint} -> {self.mock}, verified {self.identity}, {how}"


def of_all(chosen: Settings, looker: Looker, deadline: Deadline) -> tuple[Answer, ...]:
    """Return who answers at each metadata address that is redirected.

    Raises:
        DetourError: when it is not the mock, or the mock is not there.

    """
    if not chosen.probe:
        raise DetourError(
            "probe",
            "MOCK_PROBE=off leaves nothing to compare",
            "give a path that the mock answers: `imds-detourctl check --probe /path`",
        )
    if chosen.backend == "env":
        raise DetourError(
            "probe",
            "MOCK_BACKEND=env redirects nothing, so there is nothing to ask at the metadata address",
            "ask the mock itself, for example with curl",
        )
    environment = inspect(chosen, host=True)
    log = Log("quiet", deadline)
    names = ResolverCache((service.mock.host for service in environment.services), log)
    return tuple(
        answer for service in environment.services for answer in _service(service, environment, names, looker, log)
    )


def _service(
    service: Service, environment: Environment, names: ResolverCache, looker: Looker, log: Log
) -> list[Answer]:
    """Check one service, over each IP version over which its mock answers."""
    mocks = Search(service, environment.versions, names, log).attempt()
    answers: list[Answer] = []
    for mock, redirect in zip(mocks, target(service, mocks, environment).redirects, strict=True):
        leads_to = looker.mock_of(redirect.endpoint)
        if leads_to is None and looker.sure:
            if answers:
                continue  # closed, as it is where the mock came to answer over IPv6 later
            raise DetourError(
                "firewall",
                f"no redirect of ours stands for {redirect.endpoint}",
                "start the container's command behind imds-detour, or run `imds-detourctl init`",
            )
        if leads_to is not None and leads_to != redirect.mock:
            mock = _moved(mock, redirect, leads_to, names.resolve(service.mock.host).addresses, log)  # noqa: PLW2901  (the same mock, elsewhere)
        try:
            answers.append(_answer(mock, Redirect(redirect.endpoint, mock.endpoint), looker, leads_to, log))
        except NotYetError as error:
            if answers and leads_to is None:
                continue  # as above, and it cannot be seen
            raise DetourError(
                "probe",
                f"the mock answers at {mock.endpoint} and not through {redirect.endpoint}: {error.reason}",
                "`imds-detourctl status` says what stands; `imds-detourctl doctor` says what to change",
            ) from None
    return answers


def _answer(mock: Mock, redirect: Redirect, looker: Looker, leads_to: Endpoint | None, log: Log) -> Answer:
    """Return who answers at the metadata address.

    Raises:
        NotYetError: when nobody does.
        DetourError: when it is not the mock.

    """
    expected = mock.identity or identify(mock.endpoint, mock.question, log.deadline)
    identify(redirect.endpoint, mock.question, log.deadline)  # at the first failure: there is nothing to wait for
    if looker.firewall is not None and leads_to is not None:
        identity = verify.verify(redirect, expected, mock.question, looker.firewall, log)
    else:
        identity = verify.compare(redirect, expected, mock.question, log.deadline, log)
    return Answer(str(mock), redirect, identity, counted=leads_to is not None)


def _moved(mock: Mock, redirect: Redirect, leads_to: Endpoint, addresses: tuple[Address, ...], log: Log) -> Mock:
    """Return the mock as found where our rule leads, if that is one of the addresses that its name has now.

    Raises:
        DetourError: when it is not, or no mock answers there.

    """
    if leads_to.port == mock.endpoint.port and leads_to.address in addresses:
        return mock.replace(endpoint=leads_to, identity=identify(leads_to, mock.question, log.deadline))
    raise DetourError(
        "firewall",
        f"{redirect.endpoint} leads to {leads_to}, and the mock is {mock} now",
        "start this container again, or let the sidecar follow the mock",
    )
