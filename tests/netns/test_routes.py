"""The metadata address is made routable where it is not, by a route that leads nowhere but into the redirect."""

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
"""A host behind the mock's host, which is its gateway."""


@pytest.fixture(params=first_quick(BACKENDS))
def network(request: pytest.FixtureRequest) -> Iterator[Network]:
    """Give a network in which every start uses one of the firewalls."""
    with Network() as made:
        made.wanted["MOCK_BACKEND"] = request.param
        yield made


@pytest.fixture
def second(network: Network) -> Iterator[Host]:
    """Give the app's host a second network, where nothing answers, and let its default route lead there."""
    with start_host() as other:
        link(other, network.app, "eth1", "10.99.0.9/24", "10.99.0.2/24")
        network.app.ip("route", "replace", "default", "via", "10.99.0.9")
        yield other


def reads_the_instance_id(network: Network, mock: str = MOCK) -> None:
    """Check that the app behind imds-detour reads the mock's instance id."""
    done = network.detour("curl", "-sS", "--fail", ID_URL, MOCK_HOSTNAME=mock)
    assert (done.returncode, done.stdout) == (0, INSTANCE), done
    firewall = {"legacy": "legacy iptables", "nft": "nftables"}[network.wanted["MOCK_BACKEND"]]
    assert f", {firewall}, verified IMDSv2 " in done.stderr


def our_route(source: str) -> str:
    """Return our route as iproute2 shows it among those of our protocol."""
    return f"{METADATA} dev lo scope link src {source}"


def routes(network: Network) -> list[str]:
    """Return our routes, one a line."""
    return [line.strip() for line in network.our_routes().splitlines()]


def test_without_a_default_route_the_app_reaches_the_mock(network: Network) -> None:
    """Docker's internal networks: connect() would fail before any rule sees the packet."""
    network.app.ip("route", "del", "default")
    network.start_mock()
    reads_the_instance_id(network)
    assert routes(network) == [our_route(APP)]


def test_with_a_default_route_to_the_mock_there_is_none_of_ours(network: Network) -> None:
    """The negative control: a route that serves is left alone, and no other is added."""
    before = network.app.ip("route")
    network.start_mock()
    reads_the_instance_id(network)
    assert network.app.ip("route") == before


@pytest.mark.slow
def test_a_failure_takes_the_route_out_again(network: Network) -> None:
    """The mock answers directly and then no more: no route of ours is left, and theirs are as before."""
    network.app.ip("route", "del", "default")
    network.start_faulty("GET=ok", "GET=404")
    before = network.foreign()
    done = network.detour("echo", "started", MOCK_HOSTNAME=MOCK, MOCK_TIMEOUT="0.5", MOCK_LOG="debug")
    assert (done.returncode, done.stdout) == (125, "")
    assert f"route: {METADATA} over lo with source {APP}" in done.stderr  # it was there
    assert (network.our_routes(), network.ours(), network.foreign()) == ("", "", before)


@pytest.mark.usefixtures("second")
def test_two_networks_and_the_default_route_on_the_other_one(network: Network) -> None:
    """The source address is chosen before the redirect: it must be the one of the mock's network."""
    mock = network.start_mock()
    reads_the_instance_id(network)
    assert routes(network) == [our_route(APP)]
    mock.terminate()
    assert {line.split()[2] for line in mock.communicate()[0].splitlines() if " GET " in line} == {APP}


@pytest.mark.parametrize("default", [True, False], ids=["a default route", "none"])
def test_a_mock_on_the_apps_own_loopback(network: Network, *, default: bool) -> None:
    """A mock in the app's network namespace, as in a Kubernetes pod."""
    if not default:
        network.app.ip("route", "del", "default")
    network.start_mock(host=network.app)
    reads_the_instance_id(network, "127.0.0.1")
    assert routes(network) == ([] if default else [our_route("127.0.0.1")])


def test_a_mock_on_loopback_without_any_network(network: Network) -> None:
    """`--network none`: nothing but a loopback device."""
    network.app.ip("link", "del", "eth0")
    network.start_mock(host=network.app)
    reads_the_instance_id(network, "127.0.0.1")


def test_a_mock_on_the_apps_own_address(network: Network) -> None:
    """The same mock by the address that other containers know."""
    network.start_mock(host=network.app)
    reads_the_instance_id(network, APP)


@pytest.mark.slow
@pytest.mark.parametrize("default", [True, False], ids=["a default route", "a route to its network"])
def test_a_mock_behind_a_gateway(network: Network, *, default: bool) -> None:
    """The mock is on another network, which a gateway reaches."""
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
def test_no_route_to_the_mock_at_all_is_said(network: Network) -> None:
    """A mock on a network that the app is not on: one line, and it says that there is no way to it."""
    network.app.ip("route", "del", "default")
    done = network.detour("echo", "started", MOCK_HOSTNAME="10.66.0.6", MOCK_TIMEOUT="0.3")
    assert (done.returncode, done.stdout) == (125, "")
    assert f"no mock after 0.3 s: 10.66.0.6:{PORT}: network is unreachable" in done.stderr.splitlines()[-1]
    probeless = network.detour("echo", "started", MOCK_HOSTNAME="10.66.0.6", MOCK_PROBE="off")
    assert (probeless.returncode, probeless.stdout) == (125, "")
    assert probeless.stderr == (
        "imds-detour: no route to the mock at 10.66.0.6; put the app and the mock on a common network\n"
    )
    assert network.ours() == ""


def test_somebody_elses_route_that_serves_stays(network: Network) -> None:
    """A /32 route that a user has set for the purpose is used as it is."""
    network.app.ip("route", "del", "default")
    network.app.ip("route", "add", f"{METADATA}/32", "dev", "lo", "src", APP)
    before = network.foreign()
    network.start_mock()
    reads_the_instance_id(network)
    assert (network.our_routes(), network.foreign()) == ("", before)


@pytest.mark.parametrize("kind", ["unicast", "blackhole", "unreachable"])
@pytest.mark.usefixtures("second")
def test_somebody_elses_route_that_leads_elsewhere_stays_and_is_named(network: Network, kind: str) -> None:
    """It is not ours to take away: the start fails, in one line that says how to see it."""
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
def test_our_route_of_an_earlier_start_gives_way(network: Network) -> None:
    """The mock has moved to another network since: the route gets that network's source."""
    network.app.ip("route", "add", f"{METADATA}/32", "dev", "lo", "src", "10.99.0.2", "proto", "169", "scope", "link")
    network.start_mock()
    reads_the_instance_id(network)
    assert routes(network) == [our_route(APP)]


@pytest.mark.slow
@pytest.mark.usefixtures("second")
def test_our_route_of_an_earlier_start_comes_back_when_the_next_one_fails(network: Network) -> None:
    """An app may live by it; the one that took its place goes."""
    network.app.ip("route", "add", f"{METADATA}/32", "dev", "lo", "src", "10.99.0.2", "proto", "169", "scope", "link")
    network.start_faulty("GET=ok", "GET=404")
    done = network.detour("echo", "started", MOCK_HOSTNAME=MOCK, MOCK_TIMEOUT="0.5", MOCK_LOG="debug")
    assert (done.returncode, done.stdout) == (125, "")
    assert f"route: {METADATA} over lo with source {APP}" in done.stderr  # the earlier one gave way
    assert routes(network) == [our_route("10.99.0.2")]


def test_a_second_start_leaves_the_first_ones_route(network: Network) -> None:
    """Also when it fails: the route was there before, and an app relies on it."""
    network.app.ip("route", "del", "default")
    network.start_mock()
    reads_the_instance_id(network)
    reads_the_instance_id(network)
    assert network.detour("true", MOCK_HOSTNAME=MOCK, MOCK_PORT="9", MOCK_TIMEOUT="0.1").returncode == 125
    assert routes(network) == [our_route(APP)]
