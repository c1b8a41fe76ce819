"""The sidecar maintains its state: it restores rules, host names and helpers, and adds IPv6 that appears later."""

import os
import signal
import subprocess

import pytest

from tests.support.faults.injection import strace
from tests.support.faults.lock import held_lock
from tests.support.hosts.network import CTL, INSTANCE, METADATA, METADATA6, MOCK, PORT, Network
from tests.support.hosts.sidecars import LISTEN, Sidecar, Sidecars, asked, count, listed, until
from tests.support.judges.processes import children
from tests.support.judges.rules_listing import all_rules


def test_killed_helper_is_replaced(ready: Network, sidecars: Sidecars) -> None:
    """If the kernel kills a helper, the sidecar says so once and starts another one; the app notices nothing."""
    sidecar = sidecars.start("--every", "0.5", MOCK_BACKEND="legacy")
    for helper in children(sidecar.process.pid):
        os.kill(helper, signal.SIGKILL)
    sidecar.says("the firewall helper ended early; another one is started")
    assert asked(ready) == INSTANCE
    ready.app.run("iptables-legacy", "-t", "nat", "-F")  # detected by reading the rules, or by probes
    assert (until(lambda: asked(ready), lambda seen: seen == INSTANCE), sidecar.stop()) == (INSTANCE, 0)
    assert ready.detour_redirects() == ""


@pytest.mark.slow
def test_unreadable_rules_do_not_end_the_sidecar(mocked: Network, sidecars: Sidecars) -> None:
    """If there is no descriptor to read the rules with, the sidecar says so once, and tries again."""
    sidecar = sidecars.start("--every", "0.5", MOCK_HOSTNAME=MOCK)
    limit = ("prlimit", "--pid", str(sidecar.process.pid))
    subprocess.run([*limit, "--nofile=3:1024"], check=True)
    sidecar.says("imds-detour's firewall rules cannot be read: .*; it is tried again")
    subprocess.run([*limit, "--nofile=1024:1024"], check=True)
    assert until(lambda: asked(mocked), lambda seen: seen == INSTANCE) == INSTANCE
    mocked.app.run("nft", "flush", "ruleset")
    sidecar.says("imds-detour's firewall rules.*: they are put back")


@pytest.mark.slow
def test_failed_write_is_not_reported_as_a_foreign_change(network: Network, sidecars: Sidecars) -> None:
    """If a held lock stops the sidecar's change, it is not counted as a change by another program."""
    network.start_dns()
    mock = network.start_mock()
    sidecar = sidecars.start("--every", "0.5", "--listen", LISTEN, MOCK_BACKEND="legacy")
    with held_lock(network.app):
        mock.kill()
        sidecar.says("table nat: an iptables command holds the firewall's lock.*; it is tried again")
        assert f'"{METADATA}:80": "redirected"' in sidecar.get("/status.json")[1]
    sidecar.says("aws is closed while there is no mock|rules are not as they should be: they are put back")
    until(lambda: sidecar.get("/status.json")[1], lambda seen: f'"{METADATA}:80": "closed"' in seen)
    assert until(lambda: "dnat" in all_rules(network.app), lambda installed: not installed) is False
    assert count(sidecar, "repairs") == 0


@pytest.mark.slow
def test_later_ipv6_is_guarded_and_redirected(network: Network, sidecars: Sidecars, backend: str) -> None:
    """IPv6 is guarded before the container gets it, and redirected when a route to the mock exists."""
    network.without_ipv6()
    network.mock.ip("address", "add", "fd88::3/64", "dev", "eth0", "nodad")
    network.app.write("hosts", f"{MOCK} mock_metadata\nfd88::3 mock_metadata\n")
    network.start(network.mock, CTL, "mock", "--listen", f"[::]:{PORT}")
    sidecar = sidecars.start("--every", "0.5", MOCK_BACKEND=backend, says=f"{METADATA}:80 -> .*verified")
    assert METADATA6 in all_rules(network.app)  # guarded in advance
    network.without_ipv6("0")
    network.app.ip("address", "add", "fd88::2/64", "dev", "eth0", "nodad")
    sidecar.says(rf"\[{METADATA6}\]:80 -> .*verified")
    refused = network.app.run("curl", "-sS", "--max-time", "5", f"http://[{METADATA6}]:8080/", check=False).stderr
    assert "Connection refused" in refused or "Failed to connect" in refused
    ids = network.app.run("curl", "-sS", "--fail", f"http://[{METADATA6}]/latest/meta-data/instance-id").stdout
    assert (ids, asked(network), sidecar.stop()) == (INSTANCE, INSTANCE, 0)
    assert (network.detour_redirects(), {METADATA, METADATA6} < network.guarded()) == ("", True)


PROBES = 12


def reads_per_probe(network: Network, sidecar: Sidecar) -> float:
    """Return how often a sidecar reads the rules of IPv6, for each of some probes, which do not read these."""
    log = "/run/reads"
    tracer = strace(log=log, calls=["sendto"], children=True)
    attached = network.app.popen(*tracer, "-p", str(sidecar.process.pid), stderr=subprocess.PIPE)
    assert attached.stderr is not None
    assert "attached" in attached.stderr.readline()
    first = count(sidecar, "probes")
    probes = until(lambda: count(sidecar, "probes") - first, lambda seen: seen >= PROBES)
    attached.terminate()
    attached.communicate()
    assert probes >= PROBES
    lines = network.app.run("cat", log).stdout.splitlines()
    return sum("NFT_MSG_GETRULE" in line and "AF_INET6" in line for line in lines) / probes


@pytest.mark.slow
def test_rules_are_compared_again_after_a_change(mocked: Network, sidecars: Sidecars) -> None:
    """A sidecar with nftables seldom reads what has not changed; control: another program changes it all the time.

    It still repairs what another program has removed.
    """
    sidecar = sidecars.start("--every", "0.2", "--listen", LISTEN, MOCK_HOSTNAME=MOCK, MOCK_BACKEND="nft")
    quiet = reads_per_probe(mocked, sidecar)
    loop = "while :; do nft add table ip foreign; nft delete table ip foreign; done"
    changing = mocked.app.popen("sh", "-c", loop)
    try:
        assert 0 < 2 * quiet < reads_per_probe(mocked, sidecar)
    finally:
        changing.kill()
        changing.communicate()
    before = count(sidecar, "repairs")
    mocked.app.run("nft", "delete", "chain", "ip", "imds_detour", "guard_forward")
    until(lambda: count(sidecar, "repairs"), lambda seen: seen > before)
    assert "guard_forward" in until(lambda: listed(mocked), lambda seen: "guard_forward" in seen)
    assert count(sidecar, "repairs") == before + 1


def test_rewritten_hosts_file_gets_its_names_back(mocked: Network, sidecars: Sidecars) -> None:
    """When the kubelet rewrites /etc/hosts at a container's start, the sidecar adds its line again."""
    sidecars.start("--every", "0.5", MOCK_HOSTNAME=MOCK, MOCK_ENDPOINTS="gcp")
    fresh = "127.0.0.1 localhost\n10.88.0.2 pod\n"
    mocked.app.write("hosts", fresh)
    names = "metadata.google.internal metadata.google.internal. metadata.goog"
    line = f"{METADATA}\t{names}\t# imds-detour\n"
    assert until(lambda: mocked.app.run("cat", "/etc/hosts").stdout, lambda seen: seen != fresh) == line + fresh
