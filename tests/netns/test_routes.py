"""A start makes the metadata address routable, by a route that leads only into the redirect."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from imds_detour.advice.access import NO_ROUTE
from imds_detour.advice.failure import MORE
from imds_detour.ctl.lab.hosts import Host, link, start_host
from tests.support.hosts.cloud import BACKENDS, FIREWALLS
from tests.support.hosts.ip_version import IP_VERSIONS, V4, IpVersion
from tests.support.hosts.network import APP, INSTANCE, METADATA, PORT, Network, output
from tests.support.marks import first_quick

LOOPBACK = {4: "127.0.0.1", 6: "::1"}
ANY = {4: "0.0.0.0", 6: "[::]"}
BEYOND = {4: "10.77.0.", 6: "fd00:77::"}
"""A network whose gateway is the mock's host."""
SECOND = {4: "10.99.0.", 6: "fd00:99::"}
"""A second network of the app's host."""


@pytest.fixture(params=first_quick(BACKENDS))
def network(request: pytest.FixtureRequest) -> Iterator[Network]:
    """Give a network in which every start uses one of the firewalls."""
    with Network() as network:
        network.wanted["MOCK_BACKEND"] = request.param
        yield network


@pytest.fixture(params=IP_VERSIONS)
def ip(network: Network, request: pytest.FixtureRequest) -> IpVersion:
    """Give an IP version, of which both hosts have addresses and the app's host has a default route."""
    ip: IpVersion = request.param
    if ip.version == 6:
        network.add_ipv6()
        network.app.ip("-6", "route", "add", "default", "via", ip.mock)
    return ip


@pytest.fixture
def second(network: Network) -> Iterator[None]:
    """Give the app's host a second network without servers, with its IPv4 default route."""
    with default_route_elsewhere(network, V4):
        yield


@contextmanager
def default_route_elsewhere(network: Network, ip: IpVersion) -> Iterator[None]:
    """Give the app's host a second network without servers, with its default route."""
    with start_host() as other:
        prefix, length = SECOND[ip.version], ip.length
        link(other, network.app, "eth1", f"{prefix}9/{length}", f"{prefix}2/{length}")
        network.app.ip(f"-{ip.version}", "route", "replace", "default", "via", f"{prefix}9")
        yield


def start_mock(network: Network, ip: IpVersion, host: Host | None = None) -> subprocess.Popen[str]:
    """Start a mock on any address of this version."""
    return network.start_mock(host=host, at=ANY[ip.version])


def reads_the_instance_id(network: Network, ip: IpVersion = V4, mock: str = "") -> None:
    """Assert that the app under imds-detour reads the mock's instance id."""
    address = mock or ip.mock
    hostname = address if ip.version == 4 else ip.at(address, PORT)
    url = f"http://{ip.at(ip.metadata, 80)}/latest/meta-data/instance-id"
    stderr = network.success("curl", "-sS", "--fail", url, stdout=INSTANCE, MOCK_HOSTNAME=hostname)
    firewall = FIREWALLS[network.wanted["MOCK_BACKEND"]]
    assert f", {firewall}, verified IMDSv2 " in stderr


def sources(network: Network, ip: IpVersion = V4) -> list[str]:
    """Return the source address of each route that imds-detour added."""
    lines = network.app.ip(f"-{ip.version}", "route", "show", "table", "all", "proto", "169").splitlines()
    assert all(line.startswith(f"{ip.metadata} dev lo ") for line in lines), lines
    return [line.partition(" src ")[2].split()[0] for line in lines]


@pytest.mark.parametrize("default", [False, True], ids=["no default route", "a default route"])
def test_start_adds_a_route_without_a_default_route(network: Network, ip: IpVersion, *, default: bool) -> None:
    """In Docker's internal networks connect() would fail, so a start adds a route. Control: else it adds none."""
    if not default:
        network.app.ip(f"-{ip.version}", "route", "del", "default")
    before = network.foreign()
    start_mock(network, ip)
    reads_the_instance_id(network, ip)
    assert (network.foreign(), sources(network, ip)) == (before, [] if default else [ip.app])


def fail_after_the_route(network: Network) -> None:
    """Start with a mock that stops answering after the route is made."""
    network.start_faulty("GET=ok", "GET=404")
    stderr = network.failure("echo", "started", MOCK_HOSTNAME=V4.mock, MOCK_TIMEOUT="0.5", MOCK_LOG="debug")
    assert f"route: {METADATA} over lo with source {APP}" in stderr


@pytest.mark.slow
def test_failed_start_removes_its_route(network: Network) -> None:
    """If the mock stops answering, the start removes its route and leaves foreign ones."""
    network.app.ip("route", "del", "default")
    before = network.foreign()
    fail_after_the_route(network)
    assert (network.detour_routes(), network.detour_redirects(), network.foreign()) == ("", "", before)


def test_default_route_elsewhere_gets_the_mocks_source(network: Network, ip: IpVersion) -> None:
    """The source address is chosen before the redirect, so the route sets the one of the mock's network."""
    with default_route_elsewhere(network, ip):
        mock = start_mock(network, ip)
        reads_the_instance_id(network, ip)
        assert sources(network, ip) == [ip.app]
    assert {line.split()[2] for line in output(mock).splitlines() if " GET " in line} == {ip.app}


@pytest.mark.parametrize("routes", ["a default route", "no default route", "no network"])
def test_mock_on_loopback_is_reached(network: Network, ip: IpVersion, routes: str) -> None:
    """The app reads from a mock in its own network namespace, as in a pod or with `--network none`."""
    if routes == "no default route":
        network.app.ip(f"-{ip.version}", "route", "del", "default")
    if routes == "no network":
        network.app.ip("link", "del", "eth0")
    start_mock(network, ip, network.app)
    loopback = LOOPBACK[ip.version]
    reads_the_instance_id(network, ip, loopback)
    assert sources(network, ip) == ([] if routes == "a default route" else [loopback])


def test_mock_on_the_apps_address_is_reached(network: Network, ip: IpVersion) -> None:
    """The app reads from a mock on its own host, by the address that other containers use."""
    start_mock(network, ip, network.app)
    reads_the_instance_id(network, ip, ip.app)


@pytest.mark.slow
@pytest.mark.parametrize("default", [True, False], ids=["a default route", "a route to its network"])
def test_mock_behind_a_gateway_is_reached(network: Network, ip: IpVersion, *, default: bool) -> None:
    """The app reads from a mock on another network, which a gateway reaches."""
    version, prefix = f"-{ip.version}", BEYOND[ip.version]
    with start_host() as far:
        link(far, network.mock, "eth1", f"{prefix}7/{ip.length}", f"{prefix}1/{ip.length}")
        far.ip(version, "route", "add", "default", "via", f"{prefix}1")
        network.mock.run("sh", "-c", "for i in 4/ip_forward 6/conf/all/forwarding; do echo 1 >/proc/sys/net/ipv$i;done")
        if not default:
            network.app.ip(version, "route", "del", "default")
            network.app.ip(version, "route", "add", f"{prefix}0/{ip.length}", "via", ip.mock)
        start_mock(network, ip, far)
        reads_the_instance_id(network, ip, f"{prefix}7")
    assert sources(network, ip) == ([] if default else [ip.app])


@pytest.mark.slow
def test_missing_route_to_the_mock_is_reported(network: Network) -> None:
    """Without a route to the mock, the start fails with one line that says so."""
    network.app.ip("route", "del", "default")
    network.wanted["MOCK_HOSTNAME"] = "10.66.0.6"
    last = network.failure("echo", "started", MOCK_TIMEOUT="0.3").splitlines()[-1]
    assert f"no mock after 0.3 s: 10.66.0.6:{PORT}: network is unreachable" in last
    line = f"imds-detour: no route to the mock at 10.66.0.6; {NO_ROUTE}; {MORE}\n"
    assert (network.failure("echo", "started", MOCK_PROBE="off"), network.detour_redirects()) == (line, "")


def test_suitable_foreign_route_is_used(network: Network) -> None:
    """A start uses a foreign /32 route over loopback, and adds none."""
    network.app.ip("route", "del", "default")
    network.app.ip("route", "add", f"{METADATA}/32", "dev", "lo", "src", APP)
    before = network.foreign()
    network.start_mock()
    reads_the_instance_id(network)
    assert (network.detour_routes(), network.foreign()) == ("", before)


@pytest.mark.parametrize("kind", ["unicast", "blackhole", "unreachable"])
@pytest.mark.usefixtures("second")
def test_conflicting_foreign_route_fails_the_start(network: Network, kind: str) -> None:
    """A start leaves a conflicting foreign route, and fails with one line that says how to list it."""
    network.app.ip("route", "add", kind, f"{METADATA}/32", *(["dev", "eth1"] if kind == "unicast" else []))
    before = network.foreign()
    network.start_mock()
    assert network.failure("echo", "started", MOCK_HOSTNAME=V4.mock) == (
        f"imds-detour: cannot add a route to {METADATA} with source {APP}: file exists; "
        f"`ip route show {METADATA}` lists the other route: remove it; {MORE}\n"
    )
    assert (network.detour_routes(), network.detour_redirects(), network.foreign()) == ("", "", before)


@pytest.mark.usefixtures("second")
def test_later_start_replaces_an_earlier_route(network: Network) -> None:
    """If the mock has moved to another network, the route gets that network's source."""
    network.app.ip("route", "add", f"{METADATA}/32", "dev", "lo", "src", "10.99.0.2", "proto", "169", "scope", "link")
    network.start_mock()
    reads_the_instance_id(network)
    assert sources(network) == [APP]


@pytest.mark.slow
@pytest.mark.usefixtures("second")
def test_failed_start_restores_an_earlier_route(network: Network) -> None:
    """A failed start restores the route that it replaced, because another app may use it."""
    network.app.ip("route", "add", f"{METADATA}/32", "dev", "lo", "src", "10.99.0.2", "proto", "169", "scope", "link")
    fail_after_the_route(network)
    assert sources(network) == ["10.99.0.2"]


def test_second_start_keeps_the_first_route(network: Network) -> None:
    """A second start, failed or not, keeps the route of the first, because an app uses it."""
    network.app.ip("route", "del", "default")
    network.start_mock()
    reads_the_instance_id(network)
    reads_the_instance_id(network)
    assert network.detour("true", MOCK_HOSTNAME=V4.mock, MOCK_PORT="9", MOCK_TIMEOUT="0.1").returncode == 125
    assert sources(network) == [APP]
