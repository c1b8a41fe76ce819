"""A start makes the metadata address routable, by a route that leads only into the redirect."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from imds_detour.ctl.lab.hosts import Host, link, start_host
from tests.support.hosts.cloud import BACKENDS
from tests.support.hosts.network import APP, ID_URL, INSTANCE, METADATA, MOCK, PORT, Network
from tests.support.marks import first_quick

if TYPE_CHECKING:
    from collections.abc import Iterator

BEYOND = "10.77.0.7"
"""A host whose gateway is the mock's host."""


@pytest.fixture(params=first_quick(BACKENDS))
def network(request: pytest.FixtureRequest) -> Iterator[Network]:
    """Give a network in which every start uses one of the firewalls."""
    with Network() as network:
        network.wanted["MOCK_BACKEND"] = request.param
        yield network


@pytest.fixture
def second(network: Network) -> Iterator[Host]:
    """Give the app's host a second network without servers, with its default route."""
    with start_host() as other:
        link(other, network.app, "eth1", "10.99.0.9/24", "10.99.0.2/24")
        network.app.ip("route", "replace", "default", "via", "10.99.0.9")
        yield other


def reads_the_instance_id(network: Network, mock: str = MOCK) -> None:
    """Assert that the app under imds-detour reads the mock's instance id."""
    done = network.detour("curl", "-sS", "--fail", ID_URL, MOCK_HOSTNAME=mock)
    assert (done.returncode, done.stdout) == (0, INSTANCE), done
    firewall = {"legacy": "legacy iptables", "nft": "nftables"}[network.wanted["MOCK_BACKEND"]]
    assert f", {firewall}, verified IMDSv2 " in done.stderr


def our_route(source: str) -> str:
    """Return the expected route as iproute2 shows it."""
    return f"{METADATA} dev lo scope link src {source}"


def routes(network: Network) -> list[str]:
    """Return imds-detour's routes, one a line."""
    return [line.strip() for line in network.our_routes().splitlines()]


def test_the_app_reaches_the_mock_without_a_default_route(network: Network) -> None:
    """In Docker's internal networks, connect() would fail before any rule, so a start adds a route."""
    network.app.ip("route", "del", "default")
    network.start_mock()
    reads_the_instance_id(network)
    assert routes(network) == [our_route(APP)]


def test_a_default_route_needs_no_other_route(network: Network) -> None:
    """Negative control: with a default route, a start adds none."""
    before = network.app.ip("route")
    network.start_mock()
    reads_the_instance_id(network)
    assert network.app.ip("route") == before


@pytest.mark.slow
def test_a_failed_start_removes_its_route(network: Network) -> None:
    """If the mock stops answering, the start removes its route and leaves foreign ones."""
    network.app.ip("route", "del", "default")
    network.start_faulty("GET=ok", "GET=404")
    before = network.foreign()
    done = network.detour("echo", "started", MOCK_HOSTNAME=MOCK, MOCK_TIMEOUT="0.5", MOCK_LOG="debug")
    assert (done.returncode, done.stdout) == (125, "")
    assert f"route: {METADATA} over lo with source {APP}" in done.stderr  # the route existed
    assert (network.our_routes(), network.ours(), network.foreign()) == ("", "", before)


@pytest.mark.usefixtures("second")
def test_a_default_route_elsewhere_gets_the_mocks_source(network: Network) -> None:
    """The source address is chosen before the redirect, so the route sets the one of the mock's network."""
    mock = network.start_mock()
    reads_the_instance_id(network)
    assert routes(network) == [our_route(APP)]
    mock.terminate()
    assert {line.split()[2] for line in mock.communicate()[0].splitlines() if " GET " in line} == {APP}


@pytest.mark.parametrize("default", [True, False], ids=["a default route", "none"])
def test_a_mock_on_loopback_is_reached(network: Network, *, default: bool) -> None:
    """The app reads from a mock in its own network namespace, as in a Kubernetes pod."""
    if not default:
        network.app.ip("route", "del", "default")
    network.start_mock(host=network.app)
    reads_the_instance_id(network, "127.0.0.1")
    assert routes(network) == ([] if default else [our_route("127.0.0.1")])


def test_a_mock_on_loopback_is_reached_without_a_network(network: Network) -> None:
    """With `--network none` there is only a loopback device, and the app reads from a mock on it."""
    network.app.ip("link", "del", "eth0")
    network.start_mock(host=network.app)
    reads_the_instance_id(network, "127.0.0.1")


def test_a_mock_on_the_apps_address_is_reached(network: Network) -> None:
    """The app reads from a mock on its own host, by the address that other containers use."""
    network.start_mock(host=network.app)
    reads_the_instance_id(network, APP)


@pytest.mark.slow
@pytest.mark.parametrize("default", [True, False], ids=["a default route", "a route to its network"])
def test_a_mock_behind_a_gateway_is_reached(network: Network, *, default: bool) -> None:
    """The app reads from a mock on another network, which a gateway reaches."""
    with start_host() as far:
        link(far, network.mock, "eth1", f"{BEYOND}/24", "10.77.0.1/24")
        far.ip("route", "add", "default", "via", "10.77.0.1")
        network.mock.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        if not default:
            network.app.ip("route", "del", "default")
            network.app.ip("route", "add", "10.77.0.0/24", "via", MOCK)
        network.start_mock(host=far)
        reads_the_instance_id(network, BEYOND)
    assert routes(network) == ([] if default else [our_route(APP)])


@pytest.mark.slow
def test_a_missing_route_to_the_mock_is_reported(network: Network) -> None:
    """Without a route to the mock, the start fails with one line that says so."""
    network.app.ip("route", "del", "default")
    done = network.detour("echo", "started", MOCK_HOSTNAME="10.66.0.6", MOCK_TIMEOUT="0.3")
    assert (done.returncode, done.stdout) == (125, "")
    assert f"no mock after 0.3 s: 10.66.0.6:{PORT}: network is unreachable" in done.stderr.splitlines()[-1]
    without_probe = network.detour("echo", "started", MOCK_HOSTNAME="10.66.0.6", MOCK_PROBE="off")
    assert (without_probe.returncode, without_probe.stdout) == (125, "")
    assert without_probe.stderr == (
        "imds-detour: no route to the mock at 10.66.0.6; put the app and the mock on a common network\n"
    )
    assert network.ours() == ""


def test_a_suitable_foreign_route_is_used(network: Network) -> None:
    """A start uses a foreign /32 route over loopback, and adds none."""
    network.app.ip("route", "del", "default")
    network.app.ip("route", "add", f"{METADATA}/32", "dev", "lo", "src", APP)
    before = network.foreign()
    network.start_mock()
    reads_the_instance_id(network)
    assert (network.our_routes(), network.foreign()) == ("", before)


@pytest.mark.parametrize("kind", ["unicast", "blackhole", "unreachable"])
@pytest.mark.usefixtures("second")
def test_a_conflicting_foreign_route_fails_the_start(network: Network, kind: str) -> None:
    """A start leaves a conflicting foreign route, and fails with one line that says how to list it."""
    network.app.ip("route", "add", kind, f"{METADATA}/32", *(["dev", "eth1"] if kind == "unicast" else []))
    before = network.foreign()
    network.start_mock()
    done = network.detour("echo", "started", MOCK_HOSTNAME=MOCK)
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr == (
        f"imds-detour: cannot add a route to {METADATA} with source {APP}: file exists; "
        f"`ip route show {METADATA}` lists the other route: remove it\n"
    )
    assert (network.our_routes(), network.ours(), network.foreign()) == ("", "", before)


@pytest.mark.usefixtures("second")
def test_a_later_start_replaces_an_earlier_route(network: Network) -> None:
    """If the mock has moved to another network, the route gets that network's source."""
    network.app.ip("route", "add", f"{METADATA}/32", "dev", "lo", "src", "10.99.0.2", "proto", "169", "scope", "link")
    network.start_mock()
    reads_the_instance_id(network)
    assert routes(network) == [our_route(APP)]


@pytest.mark.slow
@pytest.mark.usefixtures("second")
def test_a_failed_start_restores_an_earlier_route(network: Network) -> None:
    """A failed start restores the route that it replaced, because another app may use it."""
    network.app.ip("route", "add", f"{METADATA}/32", "dev", "lo", "src", "10.99.0.2", "proto", "169", "scope", "link")
    network.start_faulty("GET=ok", "GET=404")
    done = network.detour("echo", "started", MOCK_HOSTNAME=MOCK, MOCK_TIMEOUT="0.5", MOCK_LOG="debug")
    assert (done.returncode, done.stdout) == (125, "")
    assert f"route: {METADATA} over lo with source {APP}" in done.stderr  # it replaced the earlier one
    assert routes(network) == [our_route("10.99.0.2")]


def test_a_second_start_keeps_the_first_route(network: Network) -> None:
    """A second start, failed or not, keeps the route of the first, because an app uses it."""
    network.app.ip("route", "del", "default")
    network.start_mock()
    reads_the_instance_id(network)
    reads_the_instance_id(network)
    assert network.detour("true", MOCK_HOSTNAME=MOCK, MOCK_PORT="9", MOCK_TIMEOUT="0.1").returncode == 125
    assert routes(network) == [our_route(APP)]
