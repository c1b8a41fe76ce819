"""The nftables backend: one table of our own, and NET_ADMIN is enough."""

from __future__ import annotations

import glob
import os
import re
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support import SUPPORT
from tests.support.hosts.network import DETOUR, ID_URL, INSTANCE, METADATA, MOCK, PORT

if TYPE_CHECKING:
    import subprocess

    from tests.support.hosts.network import Network

METADATA6 = "fd00:ec2::254"
OURS = f"""\
table ip imds_detour {{
	chain guard_output {{
		type filter hook output priority filter - 1; policy accept;
		ip daddr {METADATA} meta l4proto tcp counter packets N bytes N reject with tcp reset comment "imds-detour"
		ip daddr {METADATA} counter packets N bytes N reject comment "imds-detour"
	}}

	chain nat_output {{
		type nat hook output priority -101; policy accept;
		ip daddr {METADATA} tcp dport 80 counter packets N bytes N dnat to {MOCK}:{PORT} comment "imds-detour"
	}}
}}
table ip6 imds_detour {{
	chain guard_output {{
		type filter hook output priority filter - 1; policy accept;
		ip6 daddr {METADATA6} meta l4proto tcp counter packets N bytes N reject with tcp reset comment "imds-detour"
		ip6 daddr {METADATA6} counter packets N bytes N reject comment "imds-detour"
	}}
}}
"""


def ruleset(network: Network) -> str:
    """Return what nft lists, counters blanked out."""
    return re.sub(r"packets \d+ bytes \d+", "packets N bytes N", network.app.run("nft", "list", "ruleset").stdout)


def without_net_raw(network: Network, *command: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run imds-detour with NET_ADMIN and without NET_RAW, as under Podman or ``cap_drop: ALL``."""
    fewer = ("setpriv", "--bounding-set", "-net_raw", "--inh-caps", "-net_raw")
    return network.app.run(*fewer, DETOUR, *command, environ=network.settings(None, **settings), check=False)


def test_the_ruleset_is_the_documented_one(network: Network) -> None:
    """The ruleset holds guard and redirect, and nothing else; the client gets the mock's answer."""
    network.start_dns()
    network.start_mock()
    done = network.detour("curl", "-sS", "--fail", ID_URL, MOCK_BACKEND="nft")
    assert (done.returncode, done.stdout) == (0, INSTANCE)
    assert "nftables, verified IMDSv2" in done.stderr
    assert ruleset(network) == OURS
    assert network.ours() == ""


@pytest.mark.parametrize(
    ("backend", "said"),
    [
        ("nft", "nftables (MOCK_BACKEND=nft)"),
        ("legacy", "legacy iptables (MOCK_BACKEND=legacy)"),
        ("auto", "legacy iptables (it works here)"),
    ],
)
def test_debug_says_why_it_is_this_firewall(network: Network, backend: str, said: str) -> None:
    """In the success line, whether it was chosen or found; without debug the name alone."""
    network.start_mock()
    debug, info = (
        network.detour("true", MOCK_HOSTNAME=MOCK, MOCK_BACKEND=backend, MOCK_LOG=log) for log in ("debug", "text")
    )
    assert f"-> {MOCK}:{PORT}, {said}, verified IMDSv2 " in debug.stderr.splitlines()[-1]
    assert f"-> {MOCK}:{PORT}, {said.partition(' (')[0]}, verified IMDSv2 " in info.stderr


def test_running_twice_changes_nothing(network: Network) -> None:
    """The second start finds its rules and commits nothing: the ruleset's generation stands still."""
    network.start_dns()
    network.start_mock()
    assert network.detour("true", MOCK_BACKEND="nft").returncode == 0
    monitor = network.start(network.app, "sh", "-c", "echo listening; exec nft monitor")
    assert network.detour("true", MOCK_BACKEND="nft").returncode == 0
    assert ruleset(network) == OURS
    # The control: what the monitor prints first is this table, so it said nothing of the second start.
    network.app.run("nft", "add table ip marker")
    assert monitor.stdout is not None
    assert "add table ip marker" in monitor.stdout.readline()


def test_without_net_raw_auto_takes_nftables_and_says_why(network: Network) -> None:
    """Legacy iptables cannot open its socket; the redirect works all the same, and debug names the reason."""
    network.start_dns()
    network.start_mock()
    done = without_net_raw(network, "curl", "-sS", "--fail", ID_URL, MOCK_LOG="debug")
    assert (done.returncode, done.stdout) == (0, INSTANCE)
    assert "nftables (no NET_RAW capability" in done.stderr


def read_the_instance_id(network: Network, *prefix: str, **variables: str) -> str:
    """Start an app that reads the mock's instance id, with auto and behind a command, and return what we say of it."""
    network.start_dns()
    network.start_mock()
    environ = network.settings(variables, MOCK_BACKEND="auto", MOCK_LOG="debug")
    done = network.app.run(*prefix, DETOUR, "curl", "-sS", "--fail", ID_URL, environ=environ, check=False)
    assert (done.returncode, done.stdout) == (0, INSTANCE), done
    return done.stderr


def a_kernel_without(what: str) -> tuple[str, ...]:
    """Return a command that runs another one on a kernel that lacks a firewall."""
    return (sys.executable, f"{SUPPORT}/faults/seccomp.py", what)


def test_a_kernel_without_ip_tables_starts_the_app_with_nftables(network: Network) -> None:
    """As on distributions that have dropped the modules: auto goes on without them, and debug names the reason."""
    said = read_the_instance_id(network, *a_kernel_without("legacy"))
    assert (
        ", nftables (the kernel has no legacy iptables here (table filter: Protocol not available)), verified IMDSv2 "
    ) in said
    assert ruleset(network) == OURS


def test_an_image_without_the_library_starts_the_app_with_nftables(network: Network) -> None:
    """An image without the package `iptables`: libxtables cannot be loaded."""
    (path,) = glob.glob("/usr/lib/*/libxtables.so.12")
    path = os.path.realpath(path)
    network.app.run("mount", "--bind", "/dev/null", path)
    said = read_the_instance_id(network)
    network.app.run("umount", path)  # the command nft needs it too
    assert re.search(r", nftables \(a library of iptables is missing \(.*libxtables.*\)\), verified IMDSv2 ", said)
    assert ruleset(network) == OURS


def test_an_image_without_extensions_starts_the_app_with_nftables(network: Network) -> None:
    """The libraries without what makes matches and targets."""
    network.app.run("mkdir", "/run/none")
    said = read_the_instance_id(network, XTABLES_LIBDIR="/run/none")
    assert ", nftables (an iptables extension is missing in /run/none, or of another version (" in said
    assert ruleset(network) == OURS


def test_a_kernel_without_nftables_starts_the_app_with_legacy_iptables(network: Network) -> None:
    """The control to the three above: the same start takes the firewall that is there."""
    said = read_the_instance_id(network, *a_kernel_without("nftables"))
    assert ", legacy iptables (it works here), verified IMDSv2 " in said
    assert ruleset(network) == ""
    assert "DNAT" in network.ours()


def test_where_legacy_works_auto_takes_it(network: Network) -> None:
    """Another control: with both, nothing is in nftables."""
    network.start_dns()
    network.start_mock()
    assert "legacy iptables, verified" in network.detour("true").stderr
    assert ruleset(network) == ""


def test_a_later_start_stays_with_nftables(network: Network) -> None:
    """Its rules come before those of legacy iptables: auto goes on with them, and legacy is refused with the reason."""
    network.start_dns()
    network.start_mock()
    assert network.detour("true", MOCK_BACKEND="nft").returncode == 0
    assert network.detour("true", MOCK_BACKEND="auto").returncode == 0
    refused = network.detour("true", MOCK_BACKEND="legacy")
    assert (refused.returncode, refused.stdout) == (125, "")
    assert "rules from an earlier start are in nftables" in refused.stderr
    assert ruleset(network) == OURS
    assert network.ours() == ""


def test_a_failed_start_leaves_nothing(network: Network) -> None:
    """The mock never answers: exit 125, and the table goes as it came."""
    network.start_dns()
    assert network.detour("true", MOCK_BACKEND="nft", MOCK_TIMEOUT="0.5").returncode == 125
    assert ruleset(network) == ""


FOREIGN = """
table ip foreign {
	chain out {
		type nat hook output priority -100; policy accept;
		ip daddr 10.9.9.9 tcp dport 81 counter packets 0 bytes 0 dnat to 10.9.9.8:82
	}
}
"""


def test_other_peoples_tables_stay_as_they_are(network: Network) -> None:
    """Install, failure and second install leave every other table byte-identical."""
    network.start_dns()
    network.app.run("sh", "-c", f"nft -f - <<'E'\n{FOREIGN}\nE")
    before = network.app.run("nft", "list", "table", "ip", "foreign").stdout
    assert network.detour("true", MOCK_BACKEND="nft", MOCK_TIMEOUT="0.5").returncode == 125
    assert network.app.run("nft", "list", "ruleset").stdout == before
    network.start_mock()
    for _ in range(2):
        assert network.detour("true", MOCK_BACKEND="nft").returncode == 0
    assert network.app.run("nft", "list", "table", "ip", "foreign").stdout == before


TO_ELSEWHERE = f"ip daddr {METADATA} tcp dport 80 counter dnat to 10.9.9.9:1"
TAMPERED = {
    "a rule of somebody else's": 'add rule ip imds_detour nat_output ip daddr 10.9.9.9 counter comment "imds-detour"',
    "a rule without a comment": f"insert rule ip imds_detour nat_output {TO_ELSEWHERE}",
    "another target": f'insert rule ip imds_detour nat_output {TO_ELSEWHERE} comment "imds-detour"',
    "accept before the guard": f"insert rule ip imds_detour guard_output ip daddr {METADATA} accept",
    "no guard": "flush chain ip imds_detour guard_output",
}


@pytest.mark.parametrize("change", TAMPERED.values(), ids=TAMPERED.keys())
def test_a_table_that_was_changed_is_repaired(network: Network, change: str) -> None:
    """Whatever else stands in our table, the next start makes it ours again."""
    network.start_dns()
    network.start_mock()
    assert network.detour("true", MOCK_BACKEND="nft").returncode == 0
    network.app.run("nft", change)
    assert ruleset(network) != OURS
    assert network.detour("true", MOCK_BACKEND="nft").returncode == 0
    assert ruleset(network) == OURS


def test_the_guard_refuses_what_is_not_redirected(network: Network) -> None:
    """A real service behind the default route is not reached, on any port, by tcp, udp or icmp."""
    network.mock.ip("address", "add", f"{METADATA}/32", "dev", "lo")
    network.start_real_service(network.mock, port="8080")
    network.start_dns()
    network.start_mock()
    reachable = network.app.run(
        "curl", "-sS", "--max-time", "2", f"http://{METADATA}:8080/latest/meta-data/instance-id"
    )
    assert reachable.stdout == "i-0real0real0real00"  # the control: without us it is
    assert network.detour("true", MOCK_BACKEND="nft").returncode == 0
    refused = network.app.run("curl", "-sS", "--max-time", "2", f"http://{METADATA}:8080/", check=False)
    assert (refused.returncode, refused.stdout) == (7, "")  # connection refused, at once
    probe = (
        "import socket; udp = socket.socket(type=socket.SOCK_DGRAM); udp.connect(('%s', 53))\n"
        "try: udp.send(b'x')\nexcept PermissionError: print('refused')"
    )
    assert network.app.run("python3", "-c", probe % METADATA).stdout == "refused\n"


def test_neither_backend_names_the_capability(network: Network) -> None:
    """Without NET_ADMIN there is one line, with the line to add; nothing is tried."""
    fewer = ("setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin")
    for backend in ("auto", "nft", "legacy"):
        done = network.app.run(*fewer, DETOUR, "true", environ=network.settings(MOCK_BACKEND=backend), check=False)
        assert done.returncode == 125
        assert done.stderr.count("\n") == 1
        assert "no NET_ADMIN capability" in done.stderr
        assert "`cap_add: [NET_ADMIN]`" in done.stderr
