"""The nftables backend: it uses its own table, and needs NET_ADMIN only."""

from __future__ import annotations

import glob
import os
import re
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support import SUPPORT
from tests.support.faults.capabilities import without
from tests.support.hosts.network import DETOUR, ID_URL, INSTANCE, METADATA, MOCK, PORT, Network, read_line

if TYPE_CHECKING:
    import subprocess

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
    """Return the ruleset that nft lists, without the values of counters."""
    return re.sub(r"packets \d+ bytes \d+", "packets N bytes N", network.app.run("nft", "list", "ruleset").stdout)


def without_net_raw(network: Network, *command: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run imds-detour with NET_ADMIN and without NET_RAW, as under Podman or ``cap_drop: ALL``."""
    environ = network.settings(None, **settings)
    return network.app.run(*without("net_raw"), DETOUR, *command, environ=environ, check=False)


def test_ruleset_is_the_documented_one(ready: Network) -> None:
    """The ruleset holds the guard and the redirect only, and a client gets the mock's answer."""
    done = ready.detour("curl", "-sS", "--fail", ID_URL, MOCK_BACKEND="nft")
    assert (done.returncode, done.stdout) == (0, INSTANCE)
    assert "nftables, verified IMDSv2" in done.stderr
    assert ruleset(ready) == OURS
    assert ready.detour_rules() == ""


@pytest.mark.parametrize(
    ("backend", "reason"),
    [
        ("nft", "nftables (MOCK_BACKEND=nft)"),
        ("legacy", "legacy iptables (MOCK_BACKEND=legacy)"),
        ("auto", "legacy iptables (it works here)"),
    ],
)
def test_debug_log_gives_the_reason_for_the_firewall(mocked: Network, backend: str, reason: str) -> None:
    """The success line names the firewall. With MOCK_LOG=debug it also gives the reason for the choice."""
    debug, info = (
        mocked.detour("true", MOCK_HOSTNAME=MOCK, MOCK_BACKEND=backend, MOCK_LOG=log) for log in ("debug", "text")
    )
    assert f"-> {MOCK}:{PORT}, {reason}, verified IMDSv2 " in debug.stderr.splitlines()[-1]
    assert f"-> {MOCK}:{PORT}, {reason.partition(' (')[0]}, verified IMDSv2 " in info.stderr


def test_second_start_commits_nothing(ready: Network) -> None:
    """A second start with the same mock sends no transaction to the kernel."""
    assert ready.detour("true", MOCK_BACKEND="nft").returncode == 0
    monitor = ready.start(ready.app, "sh", "-c", "echo listening; exec nft monitor")
    assert ready.detour("true", MOCK_BACKEND="nft").returncode == 0
    assert ruleset(ready) == OURS
    # Control: the first line of the monitor is this table, so it saw no transaction of the second start.
    ready.app.run("nft", "add table ip marker")
    assert "add table ip marker" in read_line(monitor)


def test_missing_net_raw_makes_auto_choose_nftables(ready: Network) -> None:
    """Without NET_RAW, legacy iptables cannot open its socket: auto chooses nftables, and debug gives the reason."""
    done = without_net_raw(ready, "curl", "-sS", "--fail", ID_URL, MOCK_LOG="debug")
    assert (done.returncode, done.stdout) == (0, INSTANCE)
    assert "nftables (no NET_RAW capability" in done.stderr


def read_instance_id(network: Network, *prefix: str, **variables: str) -> str:
    """Start an app that reads the mock's instance id, with auto and under a command; return the log."""
    network.start_dns()
    network.start_mock()
    environ = network.settings(variables, MOCK_BACKEND="auto", MOCK_LOG="debug")
    done = network.app.run(*prefix, DETOUR, "curl", "-sS", "--fail", ID_URL, environ=environ, check=False)
    assert (done.returncode, done.stdout) == (0, INSTANCE), done
    return done.stderr


def kernel_without(firewall: str) -> tuple[str, ...]:
    """Return a command that runs another one as on a kernel without a firewall."""
    return (sys.executable, f"{SUPPORT}/faults/seccomp.py", firewall)


def test_kernel_without_ip_tables_makes_auto_choose_nftables(network: Network) -> None:
    """On a kernel without legacy tables, auto chooses nftables, and debug gives the reason."""
    log = read_instance_id(network, *kernel_without("legacy"))
    assert (
        ", nftables (the kernel has no legacy iptables here (table filter: Protocol not available)), verified IMDSv2 "
    ) in log
    assert ruleset(network) == OURS


def test_image_without_libxtables_makes_auto_choose_nftables(network: Network) -> None:
    """In an image without the package iptables, libxtables cannot be loaded, and auto chooses nftables."""
    (path,) = glob.glob("/usr/lib/*/libxtables.so.12")
    path = os.path.realpath(path)
    network.app.run("mount", "--bind", "/dev/null", path)
    log = read_instance_id(network)
    network.app.run("umount", path)  # the command nft needs it too
    assert re.search(r", nftables \(a library of iptables is missing \(.*libxtables.*\)\), verified IMDSv2 ", log)
    assert ruleset(network) == OURS


def test_image_without_extensions_makes_auto_choose_nftables(network: Network) -> None:
    """In an image with libxtables and without its extensions, auto chooses nftables."""
    network.app.run("mkdir", "/run/none")
    log = read_instance_id(network, XTABLES_LIBDIR="/run/none")
    assert ", nftables (an iptables extension is missing in /run/none, or of another version (" in log
    assert ruleset(network) == OURS


def test_kernel_without_nftables_makes_auto_choose_legacy_iptables(network: Network) -> None:
    """Control: on a kernel without nftables, auto chooses legacy iptables."""
    log = read_instance_id(network, *kernel_without("nftables"))
    assert ", legacy iptables (it works here), verified IMDSv2 " in log
    assert ruleset(network) == ""
    assert "DNAT" in network.detour_rules()


def test_auto_prefers_legacy_iptables(ready: Network) -> None:
    """Control: where both firewalls work, auto chooses legacy iptables and leaves nftables empty."""
    assert "legacy iptables, verified" in ready.detour("true").stderr
    assert ruleset(ready) == ""


def test_start_after_one_with_nftables_stays_with_nftables(ready: Network) -> None:
    """After a start with nftables, auto stays with it, and MOCK_BACKEND=legacy fails and says why."""
    assert ready.detour("true", MOCK_BACKEND="nft").returncode == 0
    assert ready.detour("true", MOCK_BACKEND="auto").returncode == 0
    refused = ready.detour("true", MOCK_BACKEND="legacy")
    assert (refused.returncode, refused.stdout) == (125, "")
    assert "rules from an earlier start are in nftables" in refused.stderr
    assert ruleset(ready) == OURS
    assert ready.detour_rules() == ""


TO_ELSEWHERE = f"ip daddr {METADATA} tcp dport 80 counter dnat to 10.9.9.9:1"
TAMPERED = {
    "a foreign rule": 'add rule ip imds_detour nat_output ip daddr 10.9.9.9 counter comment "imds-detour"',
    "a rule without a comment": f"insert rule ip imds_detour nat_output {TO_ELSEWHERE}",
    "another target": f'insert rule ip imds_detour nat_output {TO_ELSEWHERE} comment "imds-detour"',
    "accept before the guard": f"insert rule ip imds_detour guard_output ip daddr {METADATA} accept",
    "no guard": "flush chain ip imds_detour guard_output",
}


@pytest.mark.parametrize("change", TAMPERED.values(), ids=TAMPERED.keys())
def test_changed_table_is_repaired(ready: Network, change: str) -> None:
    """The next start repairs imds-detour's table after any change by another program."""
    assert ready.detour("true", MOCK_BACKEND="nft").returncode == 0
    ready.app.run("nft", change)
    assert ruleset(ready) != OURS
    assert ready.detour("true", MOCK_BACKEND="nft").returncode == 0
    assert ruleset(ready) == OURS
