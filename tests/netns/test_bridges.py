"""Containers behind a bridge in the namespace, as on a laptop, on a CI runner, and with Docker in Docker."""

import re
from collections.abc import Iterator

import pytest

from imds_detour.ctl.lab.hosts import Host, link, start_host
from tests.support.hosts.network import ID_URL, INSTANCE, METADATA, MOCK, PORT, Network
from tests.support.hosts.sidecars import Sidecars

REAL = "i-0real"
BRIDGE, FIRST, SECOND = "172.31.0.1", "172.31.0.2", "172.31.0.3"
LEGACY_GUARD = "-j IMDS_DETOUR_GUARD"
MOCKS = {"on another host": MOCK, "in a container": SECOND, "on the bridge": BRIDGE}


class Bridge:
    """The app's host with a bridge and two containers, and a real service behind its default route."""

    def __init__(self, network: Network, containers: dict[str, Host]) -> None:
        self.host = network.app
        self.network = network
        self.containers = containers
        network.mock.ip("address", "add", METADATA, "dev", "lo")
        network.start_real_service(network.mock, instance=REAL)
        script = f"echo 1 > /proc/sys/net/ipv4/ip_forward; ip link add br0 type bridge; ip a add {BRIDGE}/24 dev br0"
        self.host.run("sh", "-euc", f"{script}; ip link set br0 up")
        for number, (address, container) in enumerate(containers.items()):
            device = f"c{number}"
            link(container, self.host, device, f"{address}/24", "192.0.2.1/32")
            self.host.run("sh", "-euc", f"ip address flush dev {device}; ip link set {device} master br0")
            container.ip("route", "add", "default", "via", BRIDGE)
        self.host.run(
            "nft",
            "add table ip out; add chain ip out p { type nat hook postrouting priority 100; };"
            "add rule ip out p oifname eth0 masquerade",
        )
        assert self.asked() == REAL  # the control: without rules the real service answers

    def start_mock(self, address: str) -> None:
        """Start the mock at one of MOCKS."""
        host = self.containers.get(address) or (self.network.mock if address == MOCK else self.host)
        self.network.start_mock("--quiet", host=host, at=address)

    def asked(self) -> str:
        """Return the answer to the first container at the metadata address, or curl's exit status."""
        done = self.containers[FIRST].run("curl", "-sS", "--max-time", "5", ID_URL, check=False)
        return done.stdout or str(done.returncode)

    def rules(self) -> str:
        """Return all rules of the host, without counters, and without tables that are empty."""
        saved = self.host.run("sh", "-c", "iptables-legacy-save; ip6tables-legacy-save; nft list ruleset; ip r").stdout
        return re.sub(r"(?m)^[#*].*\n|^:(OUTPUT|INPUT|FORWARD|(PRE|POST)ROUTING) .*\n|^COMMIT\n|\[\d+:\d+\]", "", saved)


@pytest.fixture
def bridge(network: Network) -> Iterator[Bridge]:
    """Yield the app's host with a bridge."""
    with start_host() as first, start_host() as second:
        yield Bridge(network, {FIRST: first, SECOND: second})


BRIDGE_FILTER = "/proc/sys/net/bridge/bridge-nf-call-iptables"


@pytest.mark.parametrize("place", MOCKS)
def test_container_reads_the_mock_by_init_on_its_host(bridge: Bridge, backend: str, place: str) -> None:
    """After `init --host` an unmodified container on a bridge reads the mock; after `remove` nothing is left."""
    before = bridge.rules()
    bridge.start_mock(MOCKS[place])
    if backend == "nft":  # without br_netfilter, as with Docker Engine 28, a reply on a bridge passes no hook
        bridge.host.run("sh", "-c", f"! [ -e {BRIDGE_FILTER} ] || echo 0 > {BRIDGE_FILTER}")
    done = bridge.network.ctl("init", "--host", MOCK_HOSTNAME=MOCKS[place], MOCK_BACKEND=backend)
    assert (done.returncode, bridge.asked()) == (0, INSTANCE), done.stderr
    assert (bridge.host.run("curl", "-sS", ID_URL).stdout, bridge.network.ctl("remove").returncode) == (INSTANCE, 0)
    assert (bridge.rules(), bridge.asked()) == (before, REAL)


@pytest.mark.slow
def test_mock_on_loopback_is_told_and_closed_for_containers(bridge: Bridge, backend: str) -> None:
    """A mock at 127.0.0.1 serves the host's processes; a line says how containers could reach it."""
    bridge.start_mock("127.0.0.1")
    done = bridge.network.ctl("init", "--host", MOCK_HOSTNAME="127.0.0.1", MOCK_BACKEND=backend)
    assert done.returncode == 0
    assert f"containers behind a bridge cannot reach the mock at 127.0.0.1:{PORT}" in done.stderr
    assert bridge.host.run("curl", "-sS", ID_URL).stdout == INSTANCE
    assert bridge.asked() != REAL


def test_init_for_bridges_needs_no_legacy_iptables(bridge: Bridge) -> None:
    """`init --bridges` uses nftables where that works, and adds nothing to legacy iptables. Control: a start does."""
    bridge.start_mock(MOCK)
    done = bridge.network.ctl("init", "--bridges", MOCK_HOSTNAME=MOCK)
    assert (done.returncode, bridge.asked()) == (0, INSTANCE), done.stderr
    assert (LEGACY_GUARD in bridge.rules(), bridge.network.ctl("remove").returncode) == (False, 0)
    bridge.network.success("true", MOCK_HOSTNAME=MOCK)
    assert LEGACY_GUARD in bridge.rules()


def test_failed_init_leaves_the_host_as_it_was(bridge: Bridge, backend: str) -> None:
    """`init --host` that fails takes its guard out, too."""
    before = bridge.rules()
    done = bridge.network.ctl("init", "--host", MOCK_HOSTNAME=MOCK, MOCK_BACKEND=backend, MOCK_TIMEOUT="0.5")
    assert (done.returncode, bridge.rules(), bridge.asked()) == (125, before, REAL)


def test_container_behind_an_app_is_guarded(bridge: Bridge, backend: str) -> None:
    """Without a flag, as with Docker in Docker behind MOCK_KEEP_NET_ADMIN=1, the guard refuses what is forwarded."""
    bridge.start_mock(MOCK)
    bridge.network.success("true", MOCK_HOSTNAME=MOCK, MOCK_BACKEND=backend, MOCK_KEEP_NET_ADMIN="1")
    assert bridge.asked() == "7"


def test_container_beside_a_sidecar_reads_the_mock(bridge: Bridge, sidecars: Sidecars, backend: str) -> None:
    """`sidecar --bridges` serves containers, and its end leaves them closed. Without the flag they are closed."""
    bridge.start_mock(MOCK)
    for flags, answer in (((), "7"), (("--bridges",), INSTANCE)):
        sidecar = sidecars.start(*flags, MOCK_HOSTNAME=MOCK, MOCK_BACKEND=backend)
        assert (bridge.asked(), sidecar.stop(), bridge.asked()) == (answer, 0, "7")
