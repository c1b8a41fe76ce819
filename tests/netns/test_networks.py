"""Networks of containers: any frame size, and Docker's DNS rules."""

import sys

import pytest

from tests.support.hosts.network import METADATA, MOCK, NAME, Network

LARGE = 200_000
"""Bytes: more than any frame, and more than a first congestion window."""


@pytest.mark.parametrize("mtu", [1280, 1450, 9000])
def test_large_replies_arrive_with_any_frame_size(network: Network, mtu: int, backend: str) -> None:
    """From IPv6's minimum to jumbo frames, with 1500 on the mock's side, every byte arrives."""
    network.app.ip("link", "set", "eth0", "mtu", str(mtu))
    write = f"import json; json.dump({{'user-data': 'x' * {LARGE}}}, open('/run/data.json', 'w'))"
    network.mock.run("python3", "-c", write)
    network.start_mock("--data", "/run/data.json")
    url = f"http://{METADATA}/latest/user-data"
    done = network.detour("curl", "-sS", "--max-time", "5", url, MOCK_HOSTNAME=MOCK, MOCK_BACKEND=backend)
    assert (done.returncode, len(done.stdout)) == (0, LARGE)


DOCKER_DNS = """
{iptables} -t nat -N DOCKER_OUTPUT
{iptables} -t nat -A OUTPUT -d 127.0.0.11/32 -j DOCKER_OUTPUT
{iptables} -t nat -A DOCKER_OUTPUT -d 127.0.0.11/32 -p udp -m udp --dport 53 -j DNAT --to-destination 127.0.0.11:39743
"""
EMBEDDED_DNS = f"""
from imds_detour.ctl.lab.nameserver import addresses, serve
serve("127.0.0.11", lambda question, _: addresses(question, "{NAME}", ["{MOCK}"]), port=39743)
"""
"""Docker's DNS server: it runs in the container's namespace, and rules redirect to its port."""


@pytest.mark.parametrize("iptables", ["iptables-legacy", "iptables-nft"])
def test_dockers_dns_works_with_a_redirect(network: Network, iptables: str, backend: str) -> None:
    """The mock's name resolves at 127.0.0.11 by Docker's rules, before and after a redirect is installed."""
    network.start(network.app, sys.executable, "-c", EMBEDDED_DNS)
    network.start_mock()
    network.app.run("sh", "-euc", DOCKER_DNS.format(iptables=iptables))
    network.app.write("resolv.conf", "nameserver 127.0.0.11\n")
    for _ in range(2):
        done = network.detour("getent", "hosts", NAME, MOCK_BACKEND=backend)
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == [MOCK, NAME]
    assert "--to-destination" in network.app.run(f"{iptables}-save", "-t", "nat").stdout
