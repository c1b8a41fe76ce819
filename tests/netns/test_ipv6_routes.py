"""Routes to the IPv6 endpoint: the IPv6 versions of the tests in test_routes.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from imds_detour.ctl.lab.hosts import link, start_host
from tests.netns.test_ipv6 import APP6, BACKENDS, ID_URL6, METADATA6, MOCK6, dual, start_mock6
from tests.support.hosts.network import CTL, INSTANCE, PORT

if TYPE_CHECKING:
    from tests.support.hosts.network import Network

__all__ = ["dual"]


def added_routes6(network: Network) -> list[list[str]]:
    """Return the IPv6 routes that imds-detour added: address, device and source of each."""
    lines = network.app.ip("-6", "route", "show", "table", "all", "proto", "169").splitlines()
    return [
        [word for word in line.split() if word == METADATA6 or word in ("dev", "lo", "src") or ":" in word]
        for line in lines
    ]


def added_route6(source: str) -> list[str]:
    """Return the expected route with this source."""
    return [METADATA6, "dev", "lo", "src", source]


def assert_reads_instance_id6(network: Network, backend: str, mock: str = MOCK6) -> None:
    """Assert that an app started by imds-detour reads the mock's instance id over IPv6."""
    done = network.detour("curl", "-sS", "--fail", ID_URL6, MOCK_HOSTNAME=f"[{mock}]:{PORT}", MOCK_BACKEND=backend)
    assert (done.returncode, done.stdout) == (0, INSTANCE), done


@BACKENDS
def test_a_default_route_needs_no_added_route(dual: Network, backend: str) -> None:
    """Control: with an IPv6 default route to the mock, imds-detour adds no route."""
    start_mock6(dual)
    assert_reads_instance_id6(dual, backend)
    assert added_routes6(dual) == []


@BACKENDS
def test_a_default_route_on_another_network_keeps_the_source(dual: Network, backend: str) -> None:
    """With the IPv6 default route on another network, the mock sees the app's source address in the mock's network."""
    with start_host() as other:
        link(other, dual.app, "eth1", "fd00:99::9/64", "fd00:99::2/64")
        dual.app.ip("-6", "route", "replace", "default", "via", "fd00:99::9")
        mock = dual.start(dual.mock, CTL, "mock", "--listen", f"[::]:{PORT}")
        assert_reads_instance_id6(dual, backend)
        assert added_routes6(dual) == [added_route6(APP6)]
    mock.terminate()
    assert {line.split()[2] for line in mock.communicate()[0].splitlines() if " GET " in line} == {APP6}


@pytest.mark.slow
@BACKENDS
@pytest.mark.parametrize("default", [True, False], ids=["a default route", "a route to its network"])
def test_a_mock_behind_a_gateway_is_reachable(dual: Network, backend: str, *, default: bool) -> None:
    """An app reads from an IPv6 mock in another network that a gateway connects."""
    with start_host() as far:
        link(far, dual.mock, "eth1", "fd00:77::7/64", "fd00:77::1/64")
        far.ip("-6", "route", "add", "default", "via", "fd00:77::1")
        dual.mock.run("sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/all/forwarding")
        if not default:
            dual.app.ip("-6", "route", "del", "default")
            dual.app.ip("-6", "route", "add", "fd00:77::/64", "via", MOCK6)
        start_mock6(dual, far)
        assert_reads_instance_id6(dual, backend, "fd00:77::7")
    assert added_routes6(dual) == ([] if default else [added_route6(APP6)])


@BACKENDS
@pytest.mark.parametrize("routes", ["a default route", "no default route", "no network"])
def test_a_mock_on_loopback_is_reachable(dual: Network, backend: str, routes: str) -> None:
    """An app reads from a mock at [::1], as in a Kubernetes pod, also without any other device."""
    if routes == "no default route":
        dual.app.ip("-6", "route", "del", "default")
    if routes == "no network":
        dual.app.ip("link", "del", "eth0")
    start_mock6(dual, dual.app)
    assert_reads_instance_id6(dual, backend, "::1")
    assert added_routes6(dual) == ([] if routes == "a default route" else [added_route6("::1")])


@pytest.mark.slow
@BACKENDS
def test_a_mock_at_the_apps_address_is_reachable(dual: Network, backend: str) -> None:
    """An app reads from a mock at the IPv6 address of its own host."""
    start_mock6(dual, dual.app)
    assert_reads_instance_id6(dual, backend, APP6)
