"""The guard refuses all metadata addresses, over both IP versions, and nothing but its removal takes it away."""

import json
import signal
import subprocess
import sys
import time

import pytest

from imds_detour.config.presets import GUARDED_ADDRESSES
from imds_detour.ctl.lab.hosts import Host, link, start_host
from tests.netns.test_shared_namespace import ABSENT, waiting_start
from tests.support import SUPPORT
from tests.support.faults.lock import held_lock
from tests.support.faults.seccomp import kernel_without
from tests.support.hosts.cloud import REDIRECTED, REFUSED, Cloud
from tests.support.hosts.network import (
    CTL,
    ID_URL,
    INSTANCE,
    METADATA,
    METADATA6,
    MOCK,
    MOCK6,
    PORT,
    Network,
    end,
    read_until,
)
from tests.support.hosts.network import read_line as said
from tests.support.hosts.sidecars import Sidecars, asked, data, until
from tests.support.judges import rules_listing
from tests.support.marks import first_quick

REAL = "i-0real0real0real00"
OPEN = {"tcp 80": ["sent"], "tcp 8080": ["ECONNREFUSED"], "udp": ["sent"], "icmp": ["sent"], "other": ["sent"]}
"""What a client sees of a real service without a guard."""
SEND = f"""
import json, runpy, sys
flood = runpy.run_path("{SUPPORT}/clients/flood.py")
def outcomes(address):
    at = f"{{address}}%eth0" if address.startswith("fe80") else address
    return {{name: [flood["outcome"](send)] for name, send in flood["senders"](at).items()}}
print(json.dumps({{address: outcomes(address) for address in sys.argv[1:]}}))
"""
ALL = tuple(map(str, GUARDED_ADDRESSES))


@pytest.fixture
def real(network: Network) -> Network:
    """Give a network in which a real service answers at every metadata address of both IP versions, and a mock."""
    network.add_ipv6()
    network.app.ip("-6", "route", "add", "default", "via", MOCK6)
    for address in GUARDED_ADDRESSES:
        device = ("eth0", "nodad") if address.version == 6 and address.is_link_local else ("lo",)
        network.mock.ip("address", "add", f"{address}/{address.max_prefixlen}", "dev", *device)
    network.start_mock("--quiet", "--data", data(network, REAL), at="[::]", port="80")
    network.start_mock("--quiet")
    network.wanted["MOCK_HOSTNAME"] = MOCK
    return network


def outcomes(host: Host, *addresses: str) -> dict[str, dict[str, list[str]]]:
    """Send by each protocol to addresses from a host, and return the outcomes."""
    sent: dict[str, dict[str, list[str]]] = json.loads(host.run(sys.executable, "-c", SEND, *addresses).stdout)
    return sent


def test_every_metadata_address_is_refused(real: Network, backend: str) -> None:
    """A default start closes all known addresses for every protocol. Control: `chosen` closes those chosen only."""
    assert {METADATA, METADATA6, "fe80::a9fe:a9fe"} < set(ALL)
    expected = {METADATA: REDIRECTED, METADATA6: REFUSED}
    real.success("true", MOCK_BACKEND=backend, MOCK_GUARD="chosen")
    assert outcomes(real.app, *ALL) == {address: expected.get(address, OPEN) for address in ALL}
    real.success("true", MOCK_BACKEND=backend)
    assert outcomes(real.app, *ALL) == {address: expected.get(address, REFUSED) for address in ALL}


def test_what_comes_from_a_bridge_is_refused(real: Network, backend: str) -> None:
    """A start closes all addresses for containers behind this namespace too. Control: before, they are reached."""
    addresses = [address for address in ALL if not address.startswith("fe80")]
    forwarding = "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding"
    real.app.run("sh", "-euc", forwarding)
    with start_host() as inner:
        link(inner, real.app, "eth1", "10.77.0.3/24", "10.77.0.2/24")
        for address, host in (("fd77::3/64", inner), ("fd77::2/64", real.app)):
            host.ip("address", "add", address, "dev", "eth1", "nodad")
        for version, hop, back, net in (
            ("-4", "10.77.0.2", "10.88.0.2", "10.77.0.0/24"),
            ("-6", "fd77::2", "fd88::2", "fd77::/64"),
        ):
            inner.ip(version, "route", "add", "default", "via", hop)
            real.mock.ip(version, "route", "add", net, "via", back)

        def connects() -> set[str]:
            return {outcome for seen in outcomes(inner, *addresses).values() for outcome in seen["tcp 80"]}

        # The kernel checks its link-local addresses for about a second after a link is up.
        assert until(connects, lambda seen: seen == {"sent"}) == {"sent"}
        real.success("true", MOCK_BACKEND=backend)
        assert connects() == {"ECONNREFUSED"}


WITHOUT_NFTABLES = kernel_without("nftables")


@pytest.mark.parametrize(("guard", "answer"), [("on", ""), ("off", REAL)])
@pytest.mark.parametrize(
    ("chosen", "prefix"), first_quick([("legacy", ()), ("nft", ()), ("legacy", WITHOUT_NFTABLES)], 2)
)
def test_ipv6_that_comes_later_is_refused(
    network: Network, chosen: str, prefix: tuple[str, ...], guard: str, answer: str
) -> None:
    """IPv6 enabled after a start in a namespace without it is closed. Control: with MOCK_GUARD=off, it is reached."""
    network.without_ipv6()
    network.mock.ip("address", "add", f"{METADATA6}/128", "dev", "lo", "nodad")
    network.start_mock("--quiet", "--data", data(network, REAL), at="[::]", port="80")
    network.start_mock("--quiet")
    network.success("true", prefix=prefix, MOCK_HOSTNAME=MOCK, MOCK_BACKEND=chosen, MOCK_GUARD=guard)
    network.without_ipv6("0")
    network.add_ipv6()
    network.app.ip("-6", "route", "add", "default", "via", MOCK6)
    url = f"http://[{METADATA6}]/latest/meta-data/instance-id"
    done = network.app.run("curl", "-sS", "--max-time", "5", url, check=False)
    assert (done.stdout, done.returncode) == (answer, 0 if answer else 7)  # curl's "could not connect": refused


def test_failed_start_keeps_the_guard_of_a_waiting_one(real: Network, backend: str) -> None:
    """While one start waits, another one with other settings fails: everything that the first closed stays closed."""
    real.wanted["MOCK_BACKEND"] = backend
    with waiting_start(real, timeout="20") as waiting:
        before = real.guarded()
        assert before == set(ALL)
        real.failure("true", MOCK_HOSTNAME=ABSENT, MOCK_TIMEOUT="0.3", MOCK_GUARD="chosen", MOCK_ENDPOINTS="ecs")
        assert (real.guarded(), real.detour_redirects()) == (before, "")
        assert outcomes(real.app, METADATA) == {METADATA: REFUSED}
        waiting.kill()


def test_later_start_keeps_guard_and_redirects_of_an_earlier_one(real: Network, backend: str) -> None:
    """A start with fewer services adds to the guard and leaves the redirects of the others."""
    real.wanted |= {"MOCK_BACKEND": backend, "MOCK_GUARD": "chosen"}
    alibaba, ecs = "100.100.100.200", "169.254.170.2"
    real.success("true", MOCK_ENDPOINTS="aws,alibaba")
    before = real.guarded()
    assert before == {METADATA, METADATA6, alibaba}
    real.success("true", MOCK_ENDPOINTS="ecs")
    assert rules_listing.redirected(real.detour_redirects()) == {METADATA, alibaba, ecs}
    assert real.guarded() == before | {ecs}


@pytest.mark.parametrize(("flags", "stays"), [((), True), (("--host",), False)])
def test_guard_of_a_host_ends_with_its_redirect(
    network: Network, sidecars: Sidecars, flags: tuple[str, ...], *, stays: bool
) -> None:
    """A failed `init --host`, and `sidecar --host` at its end, take their guard away. Control: without it, it stays."""
    network.wanted |= {"MOCK_HOSTNAME": MOCK, "MOCK_TIMEOUT": "0.3"}
    assert (network.ctl("init", *flags).returncode, network.guarded()) == (125, set(ALL) if stays else set())
    network.start_mock("--quiet")
    sidecar = sidecars.start(*flags)
    assert (network.guarded(), sidecar.stop()) == (set(ALL), 0)
    assert (network.detour_redirects(), network.guarded()) == ("", set(ALL) if stays else set())


# Rules that come before


@pytest.mark.parametrize("to", first_quick(["a closed port", "nowhere"]))
def test_rule_before_legacy_iptables_makes_auto_use_nftables(mocked: Network, to: str) -> None:
    """When a foreign rule precedes legacy iptables' redirect, auto redirects by nftables. Control: legacy fails."""
    mocked.divert(MOCK if to == "a closed port" else "10.9.9.9", "9", priority=-101)
    mocked.wanted |= {"MOCK_HOSTNAME": MOCK, "MOCK_TIMEOUT": "20"}
    reason = f"{METADATA}:80 is not reached by the rule: its counter does not rise"
    assert reason in mocked.failure("true", MOCK_BACKEND="legacy")
    debug = mocked.success("curl", "-sS", "--fail", ID_URL, stdout=INSTANCE, MOCK_LOG="debug")
    assert f"nftables is used instead: {reason}" in debug
    assert (mocked.detour_redirects().count("dnat to"), mocked.detour_redirects().count("DNAT")) == (1, 0)


UNHOOK = """
nft list table ip imds_detour | sed '/{hook} hook output/d' > /run/table
(echo 'delete table ip imds_detour'; cat /run/table) > /run/changed
nft -f /run/changed
"""
TAMPERED = {
    "a dormant table": ("nft", "nft add table ip imds_detour '{ flags dormant; }'"),
    "a guard chain without its hook": ("nft", UNHOOK.format(hook="filter")),
    "a redirect chain without its hook": ("nft", UNHOOK.format(hook="nat")),
    "an ACCEPT before the guard": ("legacy", "iptables-legacy -I OUTPUT -j ACCEPT"),
    "an ACCEPT before the redirect": ("legacy", "iptables-legacy -t nat -I OUTPUT -j ACCEPT"),
}


@pytest.mark.parametrize("repair", ["start", "sidecar"])
@pytest.mark.parametrize("case", TAMPERED)
def test_rules_without_effect_are_repaired(network: Network, sidecars: Sidecars, case: str, repair: str) -> None:
    """The next start and a sidecar repair rules without effect. Control: before, the real service or a port answers."""
    backend, script = TAMPERED[case]
    network.mock.ip("address", "add", METADATA, "dev", "lo")
    for port in ("80", "8080"):
        network.start_real_service(network.mock, port)
    network.start_mock("--quiet")
    network.wanted |= {"MOCK_HOSTNAME": MOCK, "MOCK_BACKEND": backend}

    def answers() -> tuple[str, str]:
        curl = ("curl", "-sS", "--max-time", "5", ID_URL.replace(METADATA, f"{METADATA}:8080"))
        return asked(network), network.app.run(*curl, check=False).stdout

    sidecar = sidecars.start("--every", "3600") if repair == "sidecar" else network.success("true")
    assert answers() == (INSTANCE, "")
    network.app.run("sh", "-euc", script)
    assert answers() != (INSTANCE, "")
    if isinstance(sidecar, str):
        network.success("true")
    else:
        sidecar.process.send_signal(signal.SIGHUP)
        sidecar.says("another program has changed imds-detour's firewall rules: they are put back")
        until(answers, lambda seen: seen == (INSTANCE, ""))
    assert answers() == (INSTANCE, "")


# Locks that another user holds

SQUAT = """
import os, socket, sys
os.setgroups([]); os.setresgid(*[65534] * 3); os.setresuid(*[65534] * 3)
held = []
for name in ("tables", "nftables", "setup"):
    for number in ("", 1, 2, 3):
        held.append(socket.socket(socket.AF_UNIX))
        held[-1].bind(f"\\0imds-detour-{name}{number}")
        if sys.argv[1] == "listens":
            held[-1].listen(1)
print("held", flush=True)
sys.stdin.read()
"""
SOON = 3.0
"""Seconds for a start that waits for no lock: less than lock.LOCK_TIMEOUT."""


@pytest.mark.usefixtures("other_users")
@pytest.mark.parametrize("listens", ["listens", "is deaf"])
def test_lock_names_that_nobody_holds_delay_no_start(mocked: Network, backend: str, listens: str) -> None:
    """The user nobody binds every name of the locks, which is the control, and a start waits for none of them."""
    command = (sys.executable, "-c", SQUAT, listens)
    with mocked.app.popen(*command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as squatter:
        assert said(squatter) == "held\n"
        began = time.monotonic()
        mocked.success("true", MOCK_HOSTNAME=MOCK, MOCK_BACKEND=backend)
        assert time.monotonic() - began < SOON
        end(squatter)


HOLD = """
import socket, sys
held = socket.socket(socket.AF_UNIX)
held.bind("\\0imds-detour-nftables"); held.listen()
print("held", flush=True)
sys.stdin.read()
"""


def test_guard_is_read_back_before_it_is_said_to_refuse(network: Network) -> None:
    """The helper's part is installed again if it is removed while its parent waits to guard by nftables."""
    with network.app.popen(sys.executable, "-c", HOLD, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert said(holder) == "held\n"
        start = network.popen_detour("true", MOCK_HOSTNAME=MOCK, MOCK_BACKEND="legacy", MOCK_LOG="debug")
        assert until(network.guarded, lambda seen: METADATA in seen) >= {METADATA}
        network.app.run("iptables-legacy", "-F", "OUTPUT")
        assert METADATA not in network.guarded()  # the control
        end(holder)
    read_until(start, "is refused from now on")
    assert {METADATA, METADATA6} <= network.guarded()
    end(start)


def test_fifo_as_the_lock_file_is_ignored(mocked: Network) -> None:
    """A FIFO where the lock file of iptables should be delays no start. Control: a locked file there ends it."""
    mocked.app.run("mkfifo", "/run/fifo")
    wanted = {"MOCK_HOSTNAME": MOCK, "MOCK_BACKEND": "legacy", "MOCK_TIMEOUT": "1"}
    with held_lock(mocked.app):
        assert "holds the firewall's lock" in mocked.failure("true", **wanted)
        began = time.monotonic()
        mocked.success("true", environment={"XTABLES_LOCKFILE": "/run/fifo"}, **{**wanted, "MOCK_TIMEOUT": "10"})
        assert time.monotonic() - began < SOON


def test_iptables_command_that_hangs_does_not_stop_a_start_by_nftables(mocked: Network) -> None:
    """Iptables' lock is for its legacy tables: nftables does not wait for it. Control: legacy iptables does."""
    with held_lock(mocked.app):
        refused = mocked.failure("true", MOCK_HOSTNAME=MOCK, MOCK_BACKEND="legacy", MOCK_TIMEOUT="1")
        assert "an iptables command holds the firewall's lock" in refused
        began = time.monotonic()
        mocked.success("true", MOCK_HOSTNAME=MOCK, MOCK_BACKEND="nft")
        assert time.monotonic() - began < SOON


# The check without privileges

NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all")


@pytest.mark.usefixtures("other_users")
def test_check_by_nobody_asks_only_behind_a_guard(cloud: Cloud, backend: str) -> None:
    """Without any capability the check is healthy behind guard and redirect, and sends no packet without them."""
    cloud.start_mock_everywhere()
    cloud.wanted |= {"MOCK_HOSTNAME": cloud.ip.at(cloud.ip.mock, PORT), "MOCK_BACKEND": backend}
    before = cloud.seen()
    open_check = cloud.ctl("check", prefix=NOBODY)
    assert (open_check.returncode, open_check.stdout, open_check.stderr.count("\n")) == (1, "", 1), open_check
    assert "can be seen, so it is not asked" in open_check.stderr
    assert cloud.seen() == before
    cloud.success("true")
    closed = cloud.ctl("check", prefix=NOBODY)
    assert (closed.returncode, closed.stderr) == (0, ""), closed
    assert closed.stdout.endswith("by comparison alone: the rule cannot be seen from here\n")
    assert (cloud.seen(), cloud.app.run(CTL, "remove").returncode) == (before, 0)
    cloud.app.run("curl", "-sS", "--http0.9", "-m", "5", f"http://{cloud.ip.at(cloud.ip.metadata, 80)}", check=False)
    assert cloud.seen() != before  # the control: the capture sees a packet
