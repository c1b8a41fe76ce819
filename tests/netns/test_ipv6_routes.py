"""The IPv6 endpoint is made routable where it is not: the twins of test_routes.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from imds_detour.ctl.lab.hosts import link, start_host
from tests.netns.test_ipv6 import APP6, BACKENDS, ID_URL6, METADATA6, MOCK6, dual, start_mock6
from tests.support.hosts.network import CTL, INSTANCE, PORT

if TYPE_CHECKING:
    from tests.support.hosts.network import Network

__all__ = ["dual"]


def our_routes6(network: Network) -> list[list[str]]:
    """Return our routes of IPv6: the address, and the words for device and source."""
    lines = network.app.ip("-6", "route", "show", "table", "all", "proto", "169").splitlines()
    return [
        [word for word in line.split() if word == METADATA6 or word in ("dev", "lo", "src") or ":" in word]
        for line in lines
    ]


def our_route6(source: str) -> list[str]:
    """Return one of them."""
    return [METADATA6, "dev", "lo", "src", source]


def reads_the_instance_id6(network: Network, backend: str, mock: str = MOCK6) -> None:
    """Check that the app behind imds-detour reads the mock's instance id over IPv6."""
    done = network.detour("curl", "-sS", "--fail", ID_URL6, MOCK_HOSTNAME=f"[{mock}]:{PORT}", MOCK_BACKEND=backend)
    assert (done.returncode, done.stdout) == (0, INSTANCE), done


@BACKENDS
def test_with_a_default_route_to_the_mock_there_is_none_of_ours(dual: Network, backend: str) -> None:
    """The negative control of the ones below."""
    start_mock6(dual)
    reads_the_instance_id6(dual, backend)
    assert our_routes6(dual) == []


@BACKENDS
def test_two_networks_and_the_default_route_on_the_other_one(dual: Network, backend: str) -> None:
    """The source address is chosen before the redirect: it must be the one of the mock's network."""
    with start_host() as other:
        link(other, dual.app, "eth1", "fd00:99::9/64", "fd00:99::2/64")
        dual.app.ip("-6", "route", "replace", "default", "via", "fd00:99::9")
        mock = dual.start(dual.mock, CTL, "mock", "--listen", f"[::]:{PORT}")
        reads_the_instance_id6(dual, backend)
        assert our_routes6(dual) == [our_route6(APP6)]
    mock.terminate()
    assert {line.split()[2] for line in mock.communicate()[0].splitlines() if " GET " in line} == {APP6}


@pytest.mark.slow
@BACKENDS
@pytest.mark.parametrize("default", [True, False], ids=["a default route", "a route to its network"])
def test_a_mock_behind_a_gateway(dual: Network, backend: str, *, default: bool) -> None:
    """The mock is on another network, which a gateway reaches."""
    with start_host() as far:
        link(far, dual.mock, "eth1", "fd00:77::7/64", "fd00:77::1/64")
        far.ip("-6", "route", "add", "default", "via", "fd00:77::1")
        dual.mock.run("sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/all/forwarding")
        if not default:
            dual.app.ip("-6", "route", "del", "default")
            dual.app.ip("-6", "route", "add", "fd00:77::/64", "via", MOCK6)
        start_mock6(dual, far)
        reads_the_instance_id6(dual, backend, "fd00:77::7")
    assert our_routes6(dual) == ([] if default else [our_route6(APP6)])


@BACKENDS
@pytest.mark.parametrize("routes", ["a default route", "no default route", "no network"])
def test_a_mock_on_the_apps_own_loopback(dual: Network, backend: str, routes: str) -> None:
    """[::1], as in a Kubernetes pod, and with nothing but a loopback device."""
    if routes == "no default route":
        dual.app.ip("-6", "route", "del", "default")
    if routes == "no network":
        dual.app.ip("link", "del", "eth0")
    start_mock6(dual, dual.app)
    reads_the_instance_id6(dual, backend, "::1")
    assert our_routes6(dual) == ([] if routes == "a default route" else [our_route6("::1")])


@pytest.mark.slow
@BACKENDS
def test_a_mock_on_the_apps_own_address(dual: Network, backend: str) -> None:
    """The same mock by the address that other containers know."""
    start_mock6(dual, dual.app)
    reads_the_instance_id6(dual, backend, APP6)
