"""Checks of one service's mock: resolver, name, route, TCP, HTTP, and its answer."""

import socket
from collections.abc import Iterator
from contextlib import suppress

from imds_detour.advice import mocks
from imds_detour.config.services import Service
from imds_detour.ctl.doctor.context import TIMEOUT, DoctorContext
from imds_detour.ctl.doctor.result import CheckResult, State, fail, fail_as, ok, skipped, warn
from imds_detour.deadline import Deadline
from imds_detour.discovery.dns import nameservers, resolv_conf
from imds_detour.discovery.dns.resolv_conf import find_server
from imds_detour.discovery.http import exchange, request
from imds_detour.discovery.mock import EC2_MOCK_PORT
from imds_detour.discovery.probe import Question, identify
from imds_detour.endpoint import Address, Endpoint
from imds_detour.errors import DetourError, NoAddressError, NotYetError, error_text
from imds_detour.system import routes


def run_checks(context: DoctorContext, service: Service) -> Iterator[CheckResult]:
    """Yield the results of MOCK_CHECKS for a service, in their order; each check needs what those before it saw."""
    yield resolver(context, service)
    yield name(context, service)
    mock = context.mock(service)
    if mock is None:
        yield from [skipped("no address to ask")] * 4
    else:
        at, question = mock
        yield route(service, at.address)
        at, connection = tcp(service, at, question)
        mock = at, question
        yield connection
        yield (reply := http(at, question) if connection.state is not State.FAIL else skipped("no connection"))
        if reply.state is not State.OK:
            yield skipped("no HTTP")
        elif not context.settings.probe:
            yield skipped("MOCK_PROBE=off: the mock is not asked")
        else:
            yield identity(service, at, question)
    yield redirect(context, service, mock)


def resolver(context: DoctorContext, service: Service) -> CheckResult:
    """Ask each DNS server. "No such name" is an answer too, and /etc/hosts may have the name."""
    host = service.mock.host
    addresses = (at.address for at in service.preset.endpoints)
    if context.settings.guard != "off" and (closed := find_server(addresses, resolv_conf.read())):
        return warn(
            f"{closed} is the DNS server too, as on Google Cloud: the guard would close it",
            "give the container another: in Compose `dns: [ADDRESS]`; or leave the address open with MOCK_GUARD=off",
        )
    if not isinstance(host, str):
        return ok("not needed: the mock is given by its address")
    answering, failures = _ask_servers(host)
    if answering:
        return ok("; ".join(f"{server} answers" for server in answering))
    seen = "; ".join(failures) or f"{resolv_conf.PATH} names no DNS server"
    try:
        context.resolve(host)
    except DetourError as error:
        return fail(seen, mocks.no_address(error, service))
    return warn(f"{seen}; /etc/hosts has the name")


def _ask_servers(name: str) -> tuple[list[str], list[str]]:
    """Return the DNS servers that answer, also with "no", and what is wrong with the others."""
    deadline, answering, failures = Deadline(TIMEOUT), [], []
    try:
        resolver, servers = nameservers.configured()
    except NotYetError as error:
        return [], [error.reason]
    for server in servers:
        try:
            with suppress(NoAddressError):
                nameservers.ask_server(resolver, server, name, deadline, lambda _line: None)
            answering.append(server)
        except NotYetError as error:
            failures.append(error.reason)
    return answering, failures


def name(context: DoctorContext, service: Service) -> CheckResult:
    """Look the mock's name up; it must have a usable address."""
    host = service.mock.host
    try:
        resolution = context.resolve(host)
    except DetourError as error:
        return fail(f"cannot resolve {host}: {error.reason}", mocks.no_address(error, service))
    addresses = ", ".join(map(str, resolution.addresses))
    if metadata := next(filter(context.is_metadata, resolution.addresses), None):
        return fail(
            f"{host} is at {metadata}, and no mock can be there: it is a metadata address, so it is not asked",
            f"let {mocks.setting_of(service)} name the mock, and look at who answers for that name",
        )
    if context.mock(service) is None:
        version = resolution.addresses[0].version
        return fail(
            f"{host} is at {addresses}, and {service.preset.name} cannot be redirected to IPv{version} here",
            "give the mock an address of the other IP version; or, for IPv6, in Compose"
            " `networks: {default: {enable_ipv6: true}}`",
        )
    return ok(
        addresses if resolution.source == "literal" else f"{host} is at {addresses}, says the {resolution.source}"
    )


def route(service: Service, address: Address) -> CheckResult:
    """Check for a route to the mock. A start adds one to the metadata address if it is missing."""
    metadata = next(at.address for at in service.preset.endpoints if at.address.version == address.version)
    try:
        added = routes.required_route(metadata, address)
    except DetourError as error:
        return fail_as(error)
    second = f"one to {metadata} over lo would be added" if added else f"one to {metadata} too"
    return ok(f"there is one to the mock at {address}; {second}")


def tcp(service: Service, at: Endpoint, question: Question) -> tuple[Endpoint, CheckResult]:
    """Connect to the mock, and return where it is: as for a start, also at EC2_MOCK_PORT if no port is set."""
    try:
        socket.create_connection((str(at.address), at.port), TIMEOUT).close()
    except TimeoutError:
        return at, fail(f"{at} does not accept a connection within {TIMEOUT:g} s", mocks.silent(service))
    except ConnectionRefusedError:
        other = at.replace(port=EC2_MOCK_PORT)
        with suppress(NotYetError):
            if service.mock.default_port and not identify(other, question, Deadline(TIMEOUT)).doubt:
                seen = f"{at} refuses, and a mock answers at {other}: a start uses that, with a warning"
                return other, warn(seen, f'in Compose `environment: {{MOCK_PORT: "{EC2_MOCK_PORT}"}}`')
        return at, fail(f"{at} refuses: nothing listens there", mocks.nothing_listens(service))
    except OSError as error:
        return at, fail(f"{at}: {error_text(error)}", mocks.silent(service))
    return at, ok(f"{at} accepts")


def http(at: Endpoint, question: Question) -> CheckResult:
    """Check whether the server at the mock's address speaks HTTP."""
    message = request("GET", question.proof.path, {"Host": question.host, **dict(question.proof.headers)})
    try:
        reply = exchange(at, message, Deadline(TIMEOUT), TIMEOUT)
    except NotYetError as error:
        remedy = "let MOCK_PORT be the port on which the mock serves plain HTTP"
        return fail(f"{at}: {error.reason}", remedy)
    return ok(f"{at} answers, with status {reply.status}")


def identity(service: Service, at: Endpoint, question: Question) -> CheckResult:
    """Ask the mock for its identity."""
    remedy = (
        f"let MOCK_HOSTNAME and MOCK_PORT lead to a mock of {service.preset.name}; if it has another path, in Compose"
        " `environment: {MOCK_PROBE: /a/path/that/it/answers}`"
    )
    try:
        answer = identify(at, question, Deadline(TIMEOUT))
    except NotYetError as error:
        return fail(f"{at}: {error.reason}", remedy)
    return warn(f"{at}: {answer.doubt}", remedy) if answer.doubt else ok(f"{answer}, at {at}")


def redirect(context: DoctorContext, service: Service, mock: tuple[Endpoint, Question] | None) -> CheckResult:
    """Ask through a redirect of imds-detour; without one, the metadata address is not asked."""
    for at in service.preset.endpoints:
        leads_to = context.mocks.get(at)
        if leads_to is None or mock is None or mock[0].address.version != at.address.version:
            continue
        restart = "restart this container, or run `imds-detourctl init`"
        if leads_to != mock[0]:
            return warn(f"{at} leads to {leads_to}, and the mock is at {mock[0]}", restart)
        try:
            return ok(f"{at} -> {leads_to}: {identify(at, mock[1], Deadline(TIMEOUT))}")
        except NotYetError as error:
            return fail(f"{at} -> {leads_to}: {error.reason}", f"`imds-detourctl remove`, then {restart}")
    return skipped("none is installed yet, or none can be seen")
