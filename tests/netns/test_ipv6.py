"""The IPv6 endpoint, [fd00:ec2::254]:80: redirected where the mock has IPv6, and never open."""

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
    """Give both hosts an IPv6 address, and the app's a default route by it."""
    for host, address in ((network.mock, MOCK6), (network.app, APP6)):
        host.ip("address", "add", f"{address}/64", "dev", "eth0", "nodad")
    network.app.ip("-6", "route", "add", "default", "via", MOCK6)
    return network


def start_mock6(network: Network, host: Host | None = None, listen: str = f"[::]:{PORT}", *flags: str) -> None:
    """Start our mock on IPv6, and with ``[::]`` on IPv4 as well."""
    network.start(host or network.mock, CTL, "mock", "--listen", listen, "--quiet", *flags)


def real6(network: Network) -> None:
    """Put somebody else's service at the IPv6 metadata address, behind the app's default route."""
    network.mock.ip("address", "add", f"{METADATA6}/128", "dev", "lo", "nodad")
    network.mock.run("sh", "-c", 'echo \'{"meta-data": {"instance-id": "i-0real"}}\' > /run/real.json')
    start_mock6(network, network.mock, f"[{METADATA6}]:80", "--data", "/run/real.json")


@BACKENDS
def test_both_endpoints_lead_to_a_mock_with_both_addresses(dual: Network, backend: str) -> None:
    """A client reads the mock's id over IPv4 and over IPv6, and the line names both redirects."""
    dual.start_dns(f"{NAME}={MOCK},{MOCK6}")
    start_mock6(dual)
    done = dual.detour("curl", "-sS", "--fail", ID_URL, ID_URL6, MOCK_BACKEND=backend)
    assert (done.returncode, done.stdout) == (0, INSTANCE * 2), done.stderr
    where = f"169.254.169.254:80, [{METADATA6}]:80 -> {NAME} ({MOCK}:{PORT}, [{MOCK6}]:{PORT})"
    assert where in done.stderr


@BACKENDS
def test_without_a_mock_over_ipv6_its_endpoint_is_closed(dual: Network, backend: str) -> None:
    """The mock has IPv4 only: the real service at the IPv6 address is refused, at once."""
    real6(dual)
    dual.start_dns()
    dual.start_mock()
    assert dual.app.run("curl", "-sS", ID_URL6).stdout == "i-0real"  # the control: without us it is reached
    done = dual.detour("curl", "-sS", "--max-time", "5", ID_URL6, MOCK_BACKEND=backend)
    assert (done.returncode, done.stdout) == (7, "")  # curl's "could not connect": refused, not timed out
    assert f"169.254.169.254:80 -> {NAME} ({MOCK}:{PORT})" in done.stderr


@BACKENDS
def test_a_mock_that_does_not_listen_on_ipv6_is_redirected_to_over_ipv4(dual: Network, backend: str) -> None:
    """DNS has both addresses and the mock listens on one, as amazon-ec2-metadata-mock does: nobody waits."""
    real6(dual)
    dual.start_dns(f"{NAME}={MOCK},{MOCK6}")
    dual.start_mock()
    done = dual.detour("curl", "-sS", ID_URL, MOCK_BACKEND=backend)
    assert (done.returncode, done.stdout) == (0, INSTANCE)
    assert dual.app.run("curl", "-sS", "--max-time", "5", ID_URL6, check=False).returncode == 7


@BACKENDS
def test_a_mock_over_ipv6_alone_leaves_ipv4_closed_and_says_so(dual: Network, backend: str) -> None:
    """The name has no IPv4 address: the IPv6 endpoint works, the other is refused, and one line says so."""
    dual.start_dns(f"{NAME}={MOCK6}")
    start_mock6(dual)
    done = dual.detour("curl", "-sS", ID_URL6, MOCK_BACKEND=backend)
    assert (done.returncode, done.stdout) == (0, INSTANCE), done.stderr
    said = f"imds-detour: {NAME} answers over IPv6 only: 169.254.169.254 stays closed\n"
    assert [line for line in done.stderr.splitlines(keepends=True) if "IPv6 only" in line] == [said]
    assert dual.app.run("curl", "-sS", "--max-time", "5", ID_URL, check=False).returncode == 7


@BACKENDS
def test_a_literal_ipv6_address_is_a_mock_like_any_other(dual: Network, backend: str) -> None:
    """[address]:port, without any DNS."""
    start_mock6(dual)
    done = dual.detour("curl", "-sS", ID_URL6, MOCK_HOSTNAME=f"[{MOCK6}]:{PORT}", MOCK_PORT="1", MOCK_BACKEND=backend)
    assert (done.returncode, done.stdout) == (0, INSTANCE), done.stderr
    assert f"[{METADATA6}]:80 -> [{MOCK6}]:{PORT}, " in done.stderr


@BACKENDS
def test_without_a_route_one_over_loopback_is_added(dual: Network, backend: str) -> None:
    """As on a Docker network without a gateway; it is there for both endpoints, and goes with a failure."""
    for version in ("-4", "-6"):
        dual.app.ip(version, "route", "del", "default")
    dual.start_dns(f"{NAME}={MOCK},{MOCK6}")
    assert dual.detour("true", MOCK_TIMEOUT="0.3", MOCK_BACKEND=backend).returncode == 125
    assert dual.our_routes() == ""
    start_mock6(dual)
    done = dual.detour("curl", "-sS", "--fail", ID_URL, ID_URL6, MOCK_BACKEND=backend)
    assert (done.returncode, done.stdout) == (0, INSTANCE * 2), done.stderr


@BACKENDS
def test_running_twice_leaves_one_copy(dual: Network, backend: str) -> None:
    """A second start changes nothing, in either IP version."""
    dual.start_dns(f"{NAME}={MOCK},{MOCK6}")
    start_mock6(dual)
    assert dual.detour("true", MOCK_BACKEND=backend).returncode == 0
    once = dump(dual)
    assert METADATA6 in once
    assert dual.detour("true", MOCK_BACKEND=backend).returncode == 0
    assert dump(dual) == once


def test_a_failed_start_leaves_nothing(dual: Network) -> None:
    """Neither version keeps a rule of ours."""
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


def test_what_fails_for_one_ip_version_is_undone_for_the_other(dual: Network) -> None:
    """Legacy iptables commits them one by one: a refusal of the second leaves nothing of the first."""
    dual.start_mock()
    assert dual.app.run(sys.executable, "-c", HALF).stdout == "refused\n"
    assert dual.ours() == ""


@BACKENDS
def test_without_ipv6_nothing_is_said_and_nothing_is_made_of_it(network: Network, backend: str) -> None:
    """The namespace has IPv6 off, as Docker has it on networks without: no rule, no word, no second helper."""
    network.without_ipv6()
    network.start_dns()
    network.start_mock()
    done = network.detour("true", MOCK_BACKEND=backend)
    assert done.returncode == 0
    assert done.stderr.count("\n") == 1
    assert METADATA6 not in dump(network)


def test_an_ipv6_mock_without_ipv6_here_is_refused_at_once(network: Network) -> None:
    """Time does not bring IPv6 about, so nothing is waited for."""
    network.without_ipv6()
    done = network.detour("true", MOCK_HOSTNAME=f"[{MOCK6}]:{PORT}", timeout=5)
    assert done.returncode == 125
    assert "there is no IPv6 in this network namespace" in done.stderr


def dump(network: Network) -> str:
    """Return every rule of the app's host, both IP versions, both backends, without counters."""
    saved = network.app.run("sh", "-c", "ip6tables-legacy-save; nft -s list ruleset").stdout
    kept = (line.split(" [")[0] for line in saved.splitlines() if not line.startswith("#"))
    return "\n".join((network.rules(), *kept))


HIDE = "mkdir /run/few; cp -P /usr/lib/*/xtables/*.so /run/few; rm /run/few/lib{}_REJECT.so"


@pytest.mark.parametrize("missing", ["ip6t", "ipt", "nft"])
def test_without_reject_the_guard_drops_for_both_ip_versions(dual: Network, missing: str) -> None:
    """Whichever of them cannot reject: the real service is out of reach over IPv6 too, without an answer."""
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
    # The control: where both can reject, both do, at once.
    assert dual.detour("true", MOCK_HOSTNAME=MOCK, MOCK_BACKEND=backend).returncode == 0
    assert dual.app.run("curl", "-sS", "--max-time", "5", ID_URL6, check=False).returncode == 7


@BACKENDS
def test_with_the_guard_off_the_endpoint_is_as_it_was(dual: Network, backend: str) -> None:
    """MOCK_GUARD=off: no guard in either IP version, so what is not redirected is reached."""
    real6(dual)
    dual.start_mock()
    done = dual.detour("curl", "-sS", ID_URL, ID_URL6, MOCK_HOSTNAME=MOCK, MOCK_BACKEND=backend, MOCK_GUARD="off")
    assert (done.returncode, done.stdout) == (0, f"{INSTANCE}i-0real"), done
    assert "guard" not in dump(dual).lower()
    assert dual.detour("true", MOCK_HOSTNAME=MOCK, MOCK_BACKEND=backend).returncode == 0
    assert dual.app.run("curl", "-sS", "--max-time", "5", ID_URL6, check=False).returncode == 7  # the control: on
