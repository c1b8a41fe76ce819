"""The nftables backend: it uses its own table, and needs NET_ADMIN only."""

import glob
import os
import re

import pytest

from tests.support.faults.capabilities import without
from tests.support.faults.seccomp import kernel_without
from tests.support.hosts.network import ID_URL, INSTANCE, METADATA, METADATA6, MOCK, PORT, Network, read_line

pytestmark = pytest.mark.usefixtures("chosen")
GUARD = """\
	chain guard {
		meta l4proto tcp counter packets N bytes N reject with tcp reset comment "imds-detour"
		counter packets N bytes N reject comment "imds-detour"
	}
"""
GUARDED = """\

	chain guard_{0} {{
		type filter hook {0} priority filter - 1; policy accept;
		{1} daddr {2} counter packets N bytes N jump guard comment "imds-detour"
	}}
"""
OURS = f"""\
table ip imds_detour {{
{GUARD}{GUARDED.format("output", "ip", METADATA)}{GUARDED.format("forward", "ip", METADATA)}\

	chain nat_output {{
		type nat hook output priority -101; policy accept;
		ip daddr {METADATA} tcp dport 80 counter packets N bytes N dnat to {MOCK}:{PORT} comment "imds-detour"
	}}
}}
"""
OURS6 = f"""\
table ip6 imds_detour {{
{GUARD}{GUARDED.format("output", "ip6", METADATA6)}{GUARDED.format("forward", "ip6", METADATA6)}\
}}
"""
OURS += OURS6


def ruleset(network: Network) -> str:
    """Return the ruleset that nft lists, without the values of counters."""
    return re.sub(r"packets \d+ bytes \d+", "packets N bytes N", network.app.run("nft", "list", "ruleset").stdout)


def chains(listed: str) -> list[str]:
    """Return the tables and the chains of a ruleset in one order: a repair may create them in another one."""
    return sorted(re.findall(r"^(?:table .*\n|\tchain .*\n(?:\t\t.*\n)*)", listed, re.MULTILINE))


def test_ruleset_is_the_documented_one(ready: Network) -> None:
    """The ruleset holds guard and redirect only, a client gets the mock's answer, a second start commits nothing."""
    stderr = ready.success("curl", "-sS", "--fail", ID_URL, stdout=INSTANCE, MOCK_BACKEND="nft")
    assert "nftables, verified IMDSv2" in stderr
    assert (ruleset(ready), ready.detour_rules()) == (OURS, "")
    monitor = ready.start(ready.app, "sh", "-c", "echo listening; exec nft monitor")
    ready.success("true", MOCK_BACKEND="nft")
    assert ruleset(ready) == OURS
    # Control: the first line of the monitor is this table, so it saw no transaction of the second start.
    ready.app.run("nft", "add table ip marker")
    assert "add table ip marker" in read_line(monitor)


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


AUTO = {
    "no NET_RAW": (without("net_raw"), {}, "nftables (no NET_RAW capability"),
    "no legacy tables": (
        *(kernel_without("legacy"), {}),
        "nftables (the kernel has no legacy iptables here (table filter: Protocol not available)), verified IMDSv2 ",
    ),
    "no extensions": (
        *((), {"XTABLES_LIBDIR": "/run/none"}),
        "nftables (an iptables extension is missing in /run/none, or of another version (",
    ),
    "no nftables": (kernel_without("nftables"), {}, "legacy iptables (it works here), verified IMDSv2 "),
    "both work": ((), {}, "legacy iptables (it works here), verified IMDSv2 "),
}
"""A command, the environment, and the start of the chosen firewall with its reason in the debug log."""


@pytest.mark.parametrize("case", AUTO)
def test_auto_chooses_a_firewall_that_works(ready: Network, case: str) -> None:
    """Without legacy iptables auto chooses nftables. Control: where it works, nftables only guards IPv6."""
    prefix, environment, reason = AUTO[case]
    ready.app.run("mkdir", "/run/none")
    ready.wanted |= {"MOCK_BACKEND": "auto", "MOCK_LOG": "debug"}
    log = ready.success("curl", "-sS", "--fail", ID_URL, stdout=INSTANCE, prefix=prefix, environment=environment)
    assert f", {reason}" in log
    nftables = reason.startswith("nftables")
    ours = OURS if nftables else "" if case == "no nftables" else OURS6
    assert (chains(ruleset(ready)), "DNAT" in ready.detour_rules()) == (chains(ours), not nftables)


def test_image_without_libxtables_makes_auto_choose_nftables(ready: Network) -> None:
    """In an image without the package iptables, libxtables cannot be loaded, and auto chooses nftables."""
    (path,) = glob.glob("/usr/lib/*/libxtables.so.12")
    path = os.path.realpath(path)
    ready.app.run("mount", "--bind", "/dev/null", path)
    log = ready.success("curl", "-sS", "--fail", ID_URL, stdout=INSTANCE, MOCK_LOG="debug")
    ready.app.run("umount", path)  # the command nft needs it too
    assert re.search(r", nftables \(a library of iptables is missing \(.*libxtables.*\)\), verified IMDSv2 ", log)
    assert chains(ruleset(ready)) == chains(OURS)


def test_start_after_one_with_nftables_stays_with_nftables(ready: Network) -> None:
    """After a start with nftables, auto stays with it, and MOCK_BACKEND=legacy fails and says why."""
    ready.success("true", MOCK_BACKEND="nft")
    ready.success("true", MOCK_BACKEND="auto")
    assert "redirects from an earlier start are in nftables" in ready.failure("true", MOCK_BACKEND="legacy")
    assert (ruleset(ready), ready.detour_rules()) == (OURS, "")


TO_ELSEWHERE = f"ip daddr {METADATA} tcp dport 80 counter dnat to 10.9.9.9:1"
TAMPERED = {
    "a foreign rule": 'add rule ip imds_detour nat_output ip daddr 10.9.9.9 counter comment "imds-detour"',
    "a rule without a comment": f"insert rule ip imds_detour nat_output {TO_ELSEWHERE}",
    "another target": f'insert rule ip imds_detour nat_output {TO_ELSEWHERE} comment "imds-detour"',
    "accept before the guard": f"insert rule ip imds_detour guard_output ip daddr {METADATA} accept",
    "no guard": "flush chain ip imds_detour guard",
    "no jump to the guard": "flush chain ip imds_detour guard_forward",
}


@pytest.mark.parametrize("change", TAMPERED.values(), ids=TAMPERED.keys())
def test_changed_table_is_repaired(ready: Network, change: str) -> None:
    """The next start repairs imds-detour's table after any change by another program."""
    ready.success("true", MOCK_BACKEND="nft")
    ready.app.run("nft", change)
    assert chains(ruleset(ready)) != chains(OURS)
    ready.success("true", MOCK_BACKEND="nft")
    assert chains(ruleset(ready)) == chains(OURS)
