"""The IPv6 endpoint, [fd00:ec2::254]:80: redirected if the mock has IPv6, and refused otherwise."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.faults import nft_transactions
from tests.support.hosts.network import CTL, DETOUR, ID_URL, INSTANCE, MOCK, NAME, PORT

if TYPE_CHECKING:
    from imds_detour.ctl.lab.hosts import Host
    from tests.support.hosts.network import Network

MOCK6, APP6 = "fd00:88::3", "fd00:88::2"
METADATA6 = "fd00:ec2::254"
ID_URL6 = f"http://[{METADATA6}]/latest/meta-data/instance-id"
BACKENDS = pytest.mark.parametrize("backend", ["legacy", "nft"])


@pytest.fixture
def dual(network: Network) -> Network:
    """Give a network whose hosts have IPv6 addresses, and the app's host an IPv6 default route."""
    for host, address in ((network.mock, MOCK6), (network.app, APP6)):
        host.ip("address", "add", f"{address}/64", "dev", "eth0", "nodad")
    network.app.ip("-6", "route", "add", "default", "via", MOCK6)
    return network


def start_mock6(network: Network, host: Host | None = None, listen: str = f"[::]:{PORT}", *flags: str) -> None:
    """Start a mock on IPv6, and with ``[::]`` on IPv4 as well."""
    network.start(host or network.mock, CTL, "mock", "--listen", listen, "--quiet", *flags)


def real6(network: Network) -> None:
    """Start a real service at the IPv6 metadata address, on the app's default route."""
    network.mock.ip("address", "add", f"{METADATA6}/128", "dev", "lo", "nodad")
    network.mock.run("sh", "-c", 'echo \'{"meta-data": {"instance-id": "i-0real"}}\' > /run/real.json')
    start_mock6(network, network.mock, f"[{METADATA6}]:80", "--data", "/run/real.json")


@BACKENDS
def test_mock_with_both_addresses_serves_both_endpoints(dual: Network, backend: str) -> None:
    """A client reads the mock's id over IPv4 and over IPv6, and the success line names both redirects."""
    dual.start_dns(f"{NAME}={MOCK},{MOCK6}")
    start_mock6(dual)
    done = dual.detour("curl", "-sS", "--fail", ID_URL, ID_URL6, MOCK_BACKEND=backend)
    assert (done.returncode, done.stdout) == (0, INSTANCE * 2), done.stderr
    redirects = f"169.254.169.254:80, [{METADATA6}]:80 -> {NAME} ({MOCK}:{PORT}, [{MOCK6}]:{PORT})"
    assert redirects in done.stderr


@BACKENDS
def test_mock_without_ipv6_closes_the_ipv6_endpoint(dual: Network, backend: str) -> None:
    """If the mock has IPv4 only, connections to the IPv6 endpoint are refused at once."""
    real6(dual)
    dual.start_dns()
    dual.start_mock()
    assert dual.app.run("curl", "-sS", ID_URL6).stdout == "i-0real"  # control: no guard yet
    done = dual.detour("curl", "-sS", "--max-time", "5", ID_URL6, MOCK_BACKEND=backend)
    assert (done.returncode, done.stdout) == (7, "")  # curl's "could not connect": refused, not timed out
    assert f"169.254.169.254:80 -> {NAME} ({MOCK}:{PORT})" in done.stderr


@BACKENDS
def test_mock_that_listens_on_ipv4_only_is_used_over_ipv4(dual: Network, backend: str) -> None:
    """If DNS has both addresses and the mock listens on IPv4, the start does not wait for IPv6."""
    real6(dual)
    dual.start_dns(f"{NAME}={MOCK},{MOCK6}")
    dual.start_mock()
    done = dual.detour("curl", "-sS", ID_URL, MOCK_BACKEND=backend)
    assert (done.returncode, done.stdout) == (0, INSTANCE)
    assert dual.app.run("curl", "-sS", "--max-time", "5", ID_URL6, check=False).returncode == 7


@BACKENDS
def test_mock_over_ipv6_only_closes_the_ipv4_endpoint(dual: Network, backend: str) -> None:
    """If the name has no IPv4 address, the IPv6 endpoint works, the IPv4 one is refused, and a warning says so."""
    dual.start_dns(f"{NAME}={MOCK6}")
    start_mock6(dual)
    done = dual.detour("curl", "-sS", ID_URL6, MOCK_BACKEND=backend)
    assert (done.returncode, done.stdout) == (0, INSTANCE), done.stderr
    warning = f"imds-detour: {NAME} answers over IPv6 only: 169.254.169.254 stays closed\n"
    assert [line for line in done.stderr.splitlines(keepends=True) if "IPv6 only" in line] == [warning]
    assert dual.app.run("curl", "-sS", "--max-time", "5", ID_URL, check=False).returncode == 7


@BACKENDS
def test_literal_ipv6_address_is_a_mock(dual: Network, backend: str) -> None:
    """MOCK_HOSTNAME can be [address]:port, without any DNS."""
    start_mock6(dual)
    done = dual.detour("curl", "-sS", ID_URL6, MOCK_HOSTNAME=f"[{MOCK6}]:{PORT}", MOCK_PORT="1", MOCK_BACKEND=backend)
    assert (done.returncode, done.stdout) == (0, INSTANCE), done.stderr
    assert f"[{METADATA6}]:80 -> [{MOCK6}]:{PORT}, " in done.stderr


@BACKENDS
def test_missing_default_routes_are_replaced_by_loopback_routes(dual: Network, backend: str) -> None:
    """Without a gateway, both endpoints get a route over loopback. A failed start removes it."""
    for version in ("-4", "-6"):
        dual.app.ip(version, "route", "del", "default")
    dual.start_dns(f"{NAME}={MOCK},{MOCK6}")
    assert dual.detour("true", MOCK_TIMEOUT="0.3", MOCK_BACKEND=backend).returncode == 125
    assert dual.our_routes() == ""
    start_mock6(dual)
    done = dual.detour("curl", "-sS", "--fail", ID_URL, ID_URL6, MOCK_BACKEND=backend)
    assert (done.returncode, done.stdout) == (0, INSTANCE * 2), done.stderr


@BACKENDS
def test_second_start_changes_nothing_over_both_ip_versions(dual: Network, backend: str) -> None:
    """A second start with the same mock leaves the rules of both IP versions as they are."""
    dual.start_dns(f"{NAME}={MOCK},{MOCK6}")
    start_mock6(dual)
    assert dual.detour("true", MOCK_BACKEND=backend).returncode == 0
    first = dump(dual)
    assert METADATA6 in first
    assert dual.detour("true", MOCK_BACKEND=backend).returncode == 0
    assert dump(dual) == first


def test_failed_start_leaves_no_rule_in_either_ip_version(dual: Network) -> None:
    """After a failed start, no rule of imds-detour is left for IPv4 or IPv6."""
    dual.start_dns(f"{NAME}={MOCK},{MOCK6}")
    assert dual.detour("true", MOCK_TIMEOUT="0.3").returncode == 125
    assert "imds" not in dump(dual).lower()


HALF = """
from imds_detour.firewall import rules
from imds_detour.firewall.select import start_legacy
from imds_detour.config.presets import PRESETS
from imds_detour.errors import DetourError

firewall = start_legacy((4, 6))
refused = rules.Rule("filter", rules.LEGACY.guard, rules.Reject("no-such-reply"), version=6)
try:
    firewall.apply("filter", (*rules.guard_rules([PRESETS["aws"].endpoints[0].address], rules.LEGACY), refused), 1)
except DetourError as error:
    print("refused")
firewall.close()
"""


def test_refusal_for_ipv6_undoes_the_commit_for_ipv4(dual: Network) -> None:
    """Legacy iptables commits a version at a time. If the second is refused, the first is undone."""
    dual.start_mock()
    assert dual.app.run(sys.executable, "-c", HALF).stdout == "refused\n"
    assert dual.ours() == ""


@BACKENDS
def test_namespace_without_ipv6_gets_no_ipv6_rules(network: Network, backend: str) -> None:
    """With IPv6 off, as in most Docker networks, a start installs no IPv6 rule and prints no warning."""
    network.without_ipv6()
    network.start_dns()
    network.start_mock()
    done = network.detour("true", MOCK_BACKEND=backend)
    assert done.returncode == 0
    assert done.stderr.count("\n") == 1
    assert METADATA6 not in dump(network)


def test_ipv6_mock_in_a_namespace_without_ipv6_fails_at_once(network: Network) -> None:
    """An IPv6 mock in a namespace without IPv6 ends the start with 125, without any wait."""
    network.without_ipv6()
    done = network.detour("true", MOCK_HOSTNAME=f"[{MOCK6}]:{PORT}", timeout=5)
    assert done.returncode == 125
    assert "there is no IPv6 in this network namespace" in done.stderr


def dump(network: Network) -> str:
    """Return all rules of the app's host, of both IP versions and firewalls, without counters."""
    saved = network.app.run("sh", "-c", "ip6tables-legacy-save; nft -s list ruleset").stdout
    kept = (line.split(" [")[0] for line in saved.splitlines() if not line.startswith("#"))
    return "\n".join((network.rules(), *kept))


HIDE = "mkdir /run/few; cp -P /usr/lib/*/xtables/*.so /run/few; rm /run/few/lib{}_REJECT.so"


@pytest.mark.parametrize("missing", ["ip6t", "ipt", "nft"])
def test_missing_reject_makes_the_guard_drop_for_both_ip_versions(dual: Network, missing: str) -> None:
    """If reject is missing for an IP version, the guards of both drop, and the real service stays unreachable."""
    real6(dual)
    dual.start_mock()
    backend = "nft" if missing == "nft" else "legacy"
    if backend == "nft":
        guard, _ = nft_transactions.places(dual)
        done = nft_transactions.refused(dual, str(guard), "curl", "-sS", ID_URL)
    else:
        dual.app.run("sh", "-euc", HIDE.format(missing))
        settings = dual.settings({"XTABLES_LIBDIR": "/run/few"}, MOCK_HOSTNAME=MOCK, MOCK_BACKEND=backend)
        done = dual.app.run(DETOUR, "curl", "-sS", ID_URL, environ=settings, check=False)
    assert (done.returncode, done.stdout) == (0, INSTANCE), done
    assert done.stderr.count("the guard drops instead of rejecting, so that SDKs wait for a timeout: ") == 1
    dropped = dual.app.run("curl", "-sS", "--max-time", "0.3", ID_URL6, check=False)
    assert (dropped.returncode, dropped.stdout) == (28, "")  # curl's "timed out"
    assert "reject" not in dump(dual).lower()
    # Control: with reject, connections are refused at once.
    assert dual.detour("true", MOCK_HOSTNAME=MOCK, MOCK_BACKEND=backend).returncode == 0
    assert dual.app.run("curl", "-sS", "--max-time", "5", ID_URL6, check=False).returncode == 7


@BACKENDS
def test_guard_off_leaves_the_ipv6_endpoint_open(dual: Network, backend: str) -> None:
    """With MOCK_GUARD=off there is no guard, and an endpoint without a redirect reaches the real service."""
    real6(dual)
    dual.start_mock()
    done = dual.detour("curl", "-sS", ID_URL, ID_URL6, MOCK_HOSTNAME=MOCK, MOCK_BACKEND=backend, MOCK_GUARD="off")
    assert (done.returncode, done.stdout) == (0, f"{INSTANCE}i-0real"), done
    assert "guard" not in dump(dual).lower()
    assert dual.detour("true", MOCK_HOSTNAME=MOCK, MOCK_BACKEND=backend).returncode == 0
    assert dual.app.run("curl", "-sS", "--max-time", "5", ID_URL6, check=False).returncode == 7  # control: on
