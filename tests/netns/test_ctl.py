"""imds-detourctl plan, status, remove and init: the rules of imds-detour, without an app."""

import json
import re
import sys
from typing import Any

import pytest

from tests.support.faults.capabilities import without
from tests.support.hosts.cloud import FIREWALLS
from tests.support.hosts.network import CTL, ID_URL, INSTANCE, METADATA, MOCK, MOCK6, PORT, Network, end
from tests.support.hosts.sidecars import Sidecars
from tests.support.judges.rules_listing import all_rules

pytestmark = pytest.mark.usefixtures("by_address")
SIDECAR = """
import os, socket, sys
from imds_detour.ctl.sidecar.last_probe import ADDRESS, LastProbe
os.setuid(int(sys.argv[2]))
listener = socket.socket(socket.AF_UNIX)
listener.bind(ADDRESS)
listener.listen()
print("listening", flush=True)
reply = LastProbe(True, sys.argv[1], 60.0).encode()
while True:
    connection, _ = listener.accept()
    connection.sendall(reply)
    connection.close()
"""
"""A stub of the sidecar's socket, as another user."""


def state(network: Network) -> list[str]:
    """Return all rules and routes of the app's host, without counters: legacy, nft, both IP versions."""
    lines = all_rules(network.app, "ip route show table all; ip -6 route show table all").splitlines()
    # The kernel adds link-local addresses and their routes about a second after a link is up.
    return [line for line in lines if not re.search("fe80::|ff00::", line)]


def status(network: Network) -> dict[str, Any]:
    """Return what status prints as JSON."""
    facts: dict[str, Any] = json.loads(network.ctl("status", "--json").stdout)
    return facts


def test_plan_prints_the_installed_rules(network: Network, backend: str) -> None:
    """The output of plan, loaded with the command that it names, gives exactly the rules of a start."""
    network.add_ipv6()
    network.app.ip("-6", "route", "add", "default", "via", MOCK6)
    network.app.write("hosts", f"{MOCK} both\n{MOCK6} both\n")
    network.start_mock("--quiet", at="[::]")
    before = state(network)
    planned = network.ctl("plan", "--mock", "both", "--backend", backend, MOCK_HOSTNAME="unset").stdout
    assert state(network) == before, "plan changes nothing"
    assert f"# redirect 169.254.169.254:80 -> {MOCK}:{PORT}\n# redirect [fd00:ec2::254]:80 -> [{MOCK6}]:" in planned
    texts = re.split(r"^# (nft|ip6?tables-legacy-restore) .*\n", planned, flags=re.MULTILINE)[1:]
    commands = {"legacy": ["iptables-legacy-restore", "ip6tables-legacy-restore", "nft"], "nft": ["nft"]}[backend]
    assert texts[::2] == commands
    for command, text in zip(commands, texts[1::2], strict=True):
        flags = "-f /dev/stdin" if command == "nft" else "--noflush"
        network.app.run("sh", "-c", f"{command} {flags} <<'E'\n{text}E")
    loaded = state(network)
    assert loaded != before
    # status reports no fault in the loaded rules, and a start changes none of them.
    assert status(network)["faults"] == []
    network.success("true", MOCK_HOSTNAME="both", MOCK_BACKEND=backend)
    assert state(network) == loaded


def test_plan_for_nftables_works_as_nft_input(network: Network) -> None:
    """The output of plan for nftables is valid input of `nft -f -`, as its --help says."""
    network.app.run("sh", "-euc", f"{CTL} plan --mock {MOCK} --port {PORT} --backend nft | nft -f -")
    assert status(network)["redirects"][0]["mock"] == f"{MOCK}:{PORT}"


def test_plan_lists_routes_and_names(network: Network) -> None:
    """The plan includes the added route, the name in /etc/hosts, and that there is no IPv6."""
    network.without_ipv6()
    network.app.ip("route", "del", "default")
    planned = network.ctl("plan", MOCK_ENDPOINTS="gcp").stdout
    assert f"\n# /etc/hosts: {METADATA} metadata.google.internal" in planned
    assert f"\n# ip route add {METADATA} dev lo src 10.88.0.2 proto 169\n" in planned
    assert "\n# there is no IPv6 in this network namespace: it is guarded, and not redirected\n" in planned
    assert "# redirect [" not in planned
    assert "ip6" not in network.ctl("plan", MOCK_ENDPOINTS="gcp", MOCK_GUARD="off").stdout


@pytest.mark.usefixtures("chosen")
def test_status_lists_rules_and_counters(network: Network, backend: str) -> None:
    """Status exits with 1 without rules, and lists redirect, guard, route and counters, as text and as JSON."""
    network.app.ip("route", "del", "default")
    network.start_mock()
    empty = network.ctl("status")
    assert (empty.returncode, empty.stdout) == (1, "no imds-detour rules in this network namespace\n")
    network.success("curl", "-sS", ID_URL, stdout=INSTANCE, MOCK_BACKEND=backend, MOCK_GUARD="chosen")
    network.app.run("curl", "-sS", f"http://{METADATA}:8080", check=False)  # the guard refuses it
    name = FIREWALLS[backend]
    facts = status(network)
    (redirect,) = facts["redirects"]
    connections = redirect.pop("connections")
    assert redirect == {"endpoint": f"{METADATA}:80", "mock": f"{MOCK}:{PORT}", "backend": name}
    assert facts["guard"] == [
        {"address": METADATA, "backend": name, "how": "reject", "refused": 1},
        {"address": "fd00:ec2::254", "backend": "nftables", "how": "reject", "refused": 0},
    ]
    assert facts["routes"] == [{"to": METADATA, "source": "10.88.0.2"}]
    assert (facts["schema"], facts["faults"], facts["probe"], facts["unseen"]) == (1, [], None, {})
    network.app.run("curl", "-sS", ID_URL)
    assert status(network)["redirects"][0]["connections"] == connections + 1
    text = network.ctl("status")
    assert text.returncode == 0
    lines = [line.split() for line in text.stdout.splitlines()]
    assert [f"{METADATA}:80", f"{MOCK}:{PORT}", *name.split(), str(connections + 1)] in lines
    assert [METADATA, "rejects", *name.split(), "1"] in lines
    assert text.stdout.startswith("installed: 1 redirect, with a guard; `imds-detourctl check` asks the mock\n")
    assert "\nguard: packets to 2 addresses are refused unless redirected; 1 so far\n" in text.stdout
    assert not any(line[:1] == ["fd00:ec2::254"] for line in lines)  # only addresses with refused packets have a row
    assert [METADATA, "lo", "10.88.0.2"] in lines
    assert lines[-1][-3:] == ["shows", "the", "rules"]


@pytest.mark.usefixtures("chosen")
def test_status_lists_missing_and_foreign_rules(mocked: Network, backend: str) -> None:
    """Status reports a deleted guard rule, and a rule that another program added to imds-detour's chain."""
    mocked.success("true", MOCK_BACKEND=backend, MOCK_GUARD="chosen")
    if backend == "legacy":
        mocked.app.run("iptables-legacy", "-D", "IMDS_DETOUR_GUARD", "1")
        mocked.app.run("iptables-legacy", "-t", "nat", "-A", "IMDS_DETOUR", "-p", "udp", "-j", "ACCEPT")
    else:
        listed = mocked.app.run("nft", "-a", "list", "chain", "ip", "imds_detour", "guard").stdout
        (first, *_) = re.findall(r"reject.*# handle (\d+)", listed)
        mocked.app.run("nft", "delete", "rule", "ip", "imds_detour", "guard", "handle", first)
        mocked.app.run("nft", "add", "rule", "ip", "imds_detour", "nat_output", "udp", "dport", "1", "accept")
    facts = status(mocked)
    assert (len(facts["redirects"]), [guard["address"] for guard in facts["guard"]]) == (1, ["fd00:ec2::254"])
    missing, foreign = facts["faults"]
    assert missing.startswith("missing: -A ")
    assert missing.endswith("-j REJECT --reject-with tcp-reset")
    assert foreign == "foreign: 1 rules in imds-detour's chains"
    assert missing in mocked.ctl("status").stdout


@pytest.mark.usefixtures("other_users")
def test_status_shows_the_sidecars_last_probe(mocked: Network) -> None:
    """Status reads the last probe from an abstract socket of root, escapes it, and ignores one of another user."""
    mocked.success("true")
    sidecar = mocked.start(mocked.app, sys.executable, "-c", SIDECAR, "IMDSv2 i-1\33[2J", "0")
    assert status(mocked)["probe"] == {"verified": True, "text": "IMDSv2 i-1\33[2J", "age": 60.0}
    assert "\nlast probe of the sidecar: verified 60.0 s ago, IMDSv2 i-1\\x1b[2J\n" in mocked.ctl("status").stdout
    end(sidecar)
    assert status(mocked)["probe"] is None
    mocked.start(mocked.app, sys.executable, "-c", SIDECAR, "IMDSv2 i-1", "64090")
    assert status(mocked)["probe"] is None
    assert "last probe" not in mocked.ctl("status").stdout


UNREAD = "legacy iptables cannot be read: no NET_RAW capability"


def test_status_names_unreadable_rules(network: Network) -> None:
    """Without NET_RAW status says that it cannot read legacy iptables, without a redirect or if that may have rules."""
    assert UNREAD in network.ctl("status", prefix=without("net_raw")).stdout
    network.start_mock()
    network.success("true", MOCK_BACKEND="nft")
    assert UNREAD not in network.ctl("status", prefix=without("net_raw")).stdout
    network.app.run("iptables-legacy", "-t", "nat", "-S")  # makes the table
    assert UNREAD in network.ctl("status", prefix=without("net_raw")).stdout


@pytest.mark.parametrize("flags", [(), pytest.param(("--bridges",), marks=pytest.mark.slow)])
def test_status_of_a_healthy_sidecar_reads_healthy(
    network: Network, sidecars: Sidecars, flags: tuple[str, ...]
) -> None:
    """In a container without NET_RAW, status of a sidecar that works has no line that looks like a fault."""
    mock = network.start_mock()
    flags = ("--every", "0.5", *flags)
    sidecar = sidecars.start(*flags, start=(*without("net_raw"), CTL, "sidecar"), MOCK_BACKEND="nft")
    lines = network.ctl("status", prefix=without("net_raw")).stdout.splitlines()
    assert lines[0] == "healthy: 1 redirect, with a guard, verified by the sidecar"
    assert [re.split(r" {2,}|: ", line)[0] for line in lines[1:]] == [
        *("", "REDIRECT", f"{METADATA}:80", "", "guard", "last probe of the sidecar"),
        "`nft list table ip imds_detour` shows the rules",
    ]
    end(mock)  # the control
    sidecar.says("aws is closed while there is no mock")
    assert "healthy" not in network.ctl("status", prefix=without("net_raw")).stdout


def test_remove_keeps_foreign_rules_and_routes(network: Network, backend: str) -> None:
    """Remove deletes imds-detour's rules, chains, tables and route; all others stay byte-identical."""
    for tables in ("iptables-legacy", "ip6tables-legacy"):
        for table in ("nat", "filter"):
            network.app.run(tables, "-t", table, "-A", "OUTPUT", "-p", "tcp", "--dport", "81", "-j", "ACCEPT")
    network.app.run("nft", "add table ip foreign; add chain ip foreign c { type nat hook output priority 0; }")
    network.app.ip("route", "del", "default")  # so that a start adds a route
    network.app.ip("route", "add", "192.0.2.0/24", "via", MOCK)
    network.start_mock()
    before = state(network)
    network.success("true", MOCK_BACKEND=backend)
    assert state(network) != before
    assert network.detour_routes() != ""
    removed = network.ctl("remove")
    assert removed.returncode == 0
    firewalls = dict.fromkeys((FIREWALLS[backend], "nftables"))  # IPv6 is guarded by nftables
    lines = "".join(rf"{firewall}: \d+ rules removed\n" for firewall in firewalls)
    assert re.fullmatch(rf"{lines}routes: 1 route removed\n", removed.stdout)
    assert (state(network), network.ctl("remove").stdout) == (before, "nothing to remove\n")


def test_init_installs_and_verifies_a_redirect(mocked: Network, backend: str) -> None:
    """Init installs and verifies the redirect and exits; a later client reads from the mock."""
    done = mocked.ctl("init", MOCK_BACKEND=backend)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{METADATA}:80 -> {MOCK}:{PORT}, ")
    assert done.stdout.endswith(f"verified IMDSv2 {INSTANCE}\n")
    assert mocked.app.run("curl", "-sS", ID_URL).stdout == INSTANCE


def test_init_prefers_flags_to_variables(mocked: Network) -> None:
    """A flag of init overrides its variable, and an error message names the flag of an invalid value."""
    done = mocked.ctl("init", "--mock", MOCK, "--port", PORT, MOCK_HOSTNAME="no-such-mock", MOCK_PORT="1")
    assert done.returncode == 0, done.stderr
    bad = mocked.ctl("init", "--port", "http")
    assert (bad.returncode, bad.stderr) == (125, "imds-detour: --port 'http' is not valid; allowed: 1 to 65535\n")
    unknown = mocked.ctl("init", "--backend", "pf")
    assert unknown.returncode == 2
    assert "argument --backend: invalid choice: 'pf'" in unknown.stderr


NO_NET_ADMIN: tuple[tuple[str, ...], dict[str, str], str] = (without("net_admin"), {}, "no NET_ADMIN capability")


@pytest.mark.parametrize(
    ("verb", "prefix", "settings", "reason"),
    [
        ("init", (), {"MOCK_BACKEND": "env"}, "init starts none"),
        ("init", (), {"MOCK_TIMEOUT": "0.3"}, "no mock after 0.3 s"),
        ("plan", (), {"MOCK_BACKEND": "env"}, "MOCK_BACKEND=env sets variables for an app, and makes no rules to plan"),
        *((verb, *NO_NET_ADMIN) for verb in ("status", "remove", "init")),
    ],
)
def test_failing_verb_gives_the_reason(
    network: Network, verb: str, prefix: tuple[str, ...], settings: dict[str, str], reason: str
) -> None:
    """A verb with MOCK_BACKEND=env, without a mock or without NET_ADMIN exits with 125, one line, and no rules."""
    done = network.ctl(verb, prefix=prefix, **settings)
    *waiting, line = done.stderr.splitlines()
    assert (done.returncode, done.stdout, len(waiting)) == (125, "", 1 if "no mock" in reason else 0), done
    assert reason in line
    assert network.detour_redirects() == ""
    assert "no mock" in reason or network.detour_rules() == ""


def test_init_on_a_host_redirects_to_loopback(network: Network) -> None:
    """`init --host` redirects to a mock at 127.0.0.1 in the same namespace, and remove undoes it."""
    network.start_mock(host=network.app)
    before = state(network)
    done = network.ctl("init", "--host", MOCK_HOSTNAME="127.0.0.1")
    assert done.returncode == 0, done.stderr
    assert (network.app.run("curl", "-sS", ID_URL).stdout, network.ctl("remove").returncode) == (INSTANCE, 0)
    assert state(network) == before
