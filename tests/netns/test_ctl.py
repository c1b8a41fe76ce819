"""imds-detourctl plan, status, remove and init: the rules of imds-detour, without an app."""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING

from tests.support.faults.capabilities import without
from tests.support.hosts.network import CTL, ID_URL, INSTANCE, METADATA, MOCK, PORT, Network

if TYPE_CHECKING:
    import subprocess

HOST6 = "fd00:88::3"
SIDECAR = """
import socket, sys, time
from imds_detour.ctl.sidecar.last_probe import ADDRESS, LastProbe
listener = socket.socket(socket.AF_UNIX)
listener.bind(ADDRESS)
listener.listen()
print("listening", flush=True)
reply = LastProbe(True, sys.argv[1], time.time() - 60).encode() if sys.argv[1] else b"[nonsense"
while True:
    connection, _ = listener.accept()
    connection.sendall(reply)
    connection.close()
"""
"""A stub of the sidecar's socket. Without an argument it sends an invalid reply."""


def ctl(network: Network, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run imds-detourctl on the app's host, with the mock's address in MOCK_HOSTNAME."""
    return network.app.run(
        CTL, *arguments, environ=network.settings(None, **{"MOCK_HOSTNAME": MOCK, **settings}), check=False
    )


def all_rules(network: Network) -> str:
    """Return all rules and routes of the app's host, without counters: legacy, nft, both IP versions."""
    saved = "for c in iptables-legacy-save ip6tables-legacy-save; do for t in nat filter; do $c -t $t; done; done"
    listed = "nft -s list ruleset; ip route show table all; ip -6 route show table all"
    lines = network.app.run("sh", "-c", f"{saved}; {listed}").stdout.splitlines()
    # The kernel adds link-local addresses and their routes about a second after a link is up.
    kept = (line for line in lines if not line.startswith("#") and not re.search("fe80::|ff00::", line))
    return "\n".join(re.sub(r" \[\d+:\d+\]$", "", line) for line in kept)


def test_plan_prints_the_installed_rules(network: Network, backend: str) -> None:
    """The output of plan, loaded with the command that it names, gives exactly the rules of a start."""
    network.mock.ip("address", "add", f"{HOST6}/64", "dev", "eth0", "nodad")
    network.app.ip("address", "add", "fd00:88::2/64", "dev", "eth0", "nodad")
    network.app.ip("-6", "route", "add", "default", "via", HOST6)
    network.app.write("hosts", f"{MOCK} both\n{HOST6} both\n")
    network.start(network.mock, CTL, "mock", "--listen", f"[::]:{PORT}", "--quiet")
    before = all_rules(network)
    planned = network.app.run(
        CTL, "plan", "--mock", "both", "--backend", backend, environ=network.settings(None, MOCK_HOSTNAME="unset")
    ).stdout
    assert all_rules(network) == before, "plan changes nothing"
    assert f"# redirect 169.254.169.254:80 -> {MOCK}:{PORT}\n# redirect [fd00:ec2::254]:80 -> [{HOST6}]:" in planned
    texts = re.split(r"^# (nft|ip6?tables-legacy-restore) .*\n", planned, flags=re.MULTILINE)[1:]
    commands = {"legacy": ["iptables-legacy-restore", "ip6tables-legacy-restore"], "nft": ["nft"]}[backend]
    assert texts[::2] == commands
    for command, text in zip(commands, texts[1::2], strict=True):
        flags = "-f /dev/stdin" if command == "nft" else "--noflush"
        network.app.run("sh", "-c", f"{command} {flags} <<'E'\n{text}E")
    loaded = all_rules(network)
    assert loaded != before
    # status reports no fault in the loaded rules, and a start changes none of them.
    assert json.loads(ctl(network, "status", "--json").stdout)["faults"] == []
    assert network.detour("true", MOCK_HOSTNAME="both", MOCK_BACKEND=backend).returncode == 0
    assert all_rules(network) == loaded


def test_plan_for_nftables_works_as_nft_input(network: Network) -> None:
    """The output of plan for nftables is valid input of `nft -f -`, as its --help says."""
    network.app.run("sh", "-euc", f"{CTL} plan --mock {MOCK} --port {PORT} --backend nft | nft -f -")
    assert json.loads(ctl(network, "status", "--json").stdout)["redirects"][0]["mock"] == f"{MOCK}:{PORT}"


def test_plan_lists_routes_and_names(network: Network) -> None:
    """The plan includes the added route, the name in /etc/hosts, and that there is no IPv6."""
    network.without_ipv6()
    network.app.ip("route", "del", "default")
    planned = ctl(network, "plan", MOCK_ENDPOINTS="gcp").stdout
    assert f"\n# /etc/hosts: {METADATA} metadata.google.internal" in planned
    assert f"\n# ip route add {METADATA} dev lo src 10.88.0.2 proto 169\n" in planned
    assert "\n# there is no IPv6 in this network namespace: nothing to do for it\n" in planned
    assert "ip6" not in planned


def test_plan_rejects_the_env_backend(network: Network) -> None:
    """With MOCK_BACKEND=env plan fails, since it makes no rules; a start sets endpoint variables instead."""
    done = ctl(network, "plan", MOCK_BACKEND="env")
    assert (done.returncode, done.stdout) == (125, "")
    assert "MOCK_BACKEND=env sets variables for an app, and makes no rules to plan" in done.stderr
    network.start_mock()
    shown = network.detour("env", MOCK_HOSTNAME=MOCK, MOCK_BACKEND="env").stdout
    assert f"\nAWS_EC2_METADATA_SERVICE_ENDPOINT=http://{MOCK}:{PORT}" in shown


def test_status_lists_rules_and_counters(network: Network, backend: str) -> None:
    """Status exits with 1 without rules, and lists redirect, guard, route and counters, as text and as JSON."""
    network.app.ip("route", "del", "default")
    network.start_mock()
    empty = ctl(network, "status")
    assert (empty.returncode, empty.stdout) == (1, "no imds-detour's rules in this network namespace\n")
    assert network.detour("curl", "-sS", ID_URL, MOCK_HOSTNAME=MOCK, MOCK_BACKEND=backend).returncode == 0
    network.app.run("curl", "-sS", f"http://{METADATA}:8080", check=False)  # the guard refuses it
    name = {"legacy": "legacy iptables", "nft": "nftables"}[backend]
    facts = json.loads(ctl(network, "status", "--json").stdout)
    (redirect,) = facts["redirects"]
    connections = redirect.pop("connections")
    assert redirect == {"endpoint": f"{METADATA}:80", "mock": f"{MOCK}:{PORT}", "backend": name}
    assert facts["guard"] == [
        {"address": METADATA, "backend": name, "how": "reject", "refused": 1},
        {"address": "fd00:ec2::254", "backend": name, "how": "reject", "refused": 0},
    ]
    assert facts["routes"] == [{"to": METADATA, "source": "10.88.0.2"}]
    assert (facts["schema"], facts["faults"], facts["probe"], facts["unseen"]) == (1, [], None, {})
    network.app.run("curl", "-sS", ID_URL)
    assert json.loads(ctl(network, "status", "--json").stdout)["redirects"][0]["connections"] == connections + 1
    text = ctl(network, "status")
    assert text.returncode == 0
    lines = [line.split() for line in text.stdout.splitlines()]
    assert [f"{METADATA}:80", f"{MOCK}:{PORT}", *name.split(), str(connections + 1)] in lines
    assert [METADATA, "rejects", *name.split(), "1"] in lines
    assert [METADATA, "lo", "10.88.0.2"] in lines
    assert lines[-1][-3:] == ["shows", "the", "rules"]


def test_status_lists_missing_and_foreign_rules(mocked: Network, backend: str) -> None:
    """Status reports a deleted guard rule, and a rule that another program added to imds-detour's chain."""
    assert mocked.detour("true", MOCK_HOSTNAME=MOCK, MOCK_BACKEND=backend).returncode == 0
    if backend == "legacy":
        mocked.app.run("iptables-legacy", "-D", "IMDS_DETOUR_GUARD", "1")
        mocked.app.run("iptables-legacy", "-t", "nat", "-A", "IMDS_DETOUR", "-p", "udp", "-j", "ACCEPT")
    else:
        listed = mocked.app.run("nft", "-a", "list", "chain", "ip", "imds_detour", "guard_output").stdout
        (first, *_) = re.findall(r"reject.*# handle (\d+)", listed)
        mocked.app.run("nft", "delete", "rule", "ip", "imds_detour", "guard_output", "handle", first)
        mocked.app.run("nft", "add", "rule", "ip", "imds_detour", "nat_output", "udp", "dport", "1", "accept")
    facts = json.loads(ctl(mocked, "status", "--json").stdout)
    assert len(facts["redirects"]) == 1
    assert [guard["address"] for guard in facts["guard"]] == ["fd00:ec2::254"]
    missing, foreign = facts["faults"]
    assert missing.startswith("missing: -A ")
    assert missing.endswith("-j REJECT --reject-with tcp-reset")
    assert foreign == "foreign: 1 rules in imds-detour's chains"
    assert missing in ctl(mocked, "status").stdout


def test_status_shows_the_sidecars_last_probe(mocked: Network) -> None:
    """Status reads the sidecar's last probe from an abstract socket, and ignores an invalid reply."""
    assert mocked.detour("true", MOCK_HOSTNAME=MOCK).returncode == 0
    sidecar = mocked.start(mocked.app, sys.executable, "-c", SIDECAR, "IMDSv2 i-1")
    probe = json.loads(ctl(mocked, "status", "--json").stdout)["probe"]
    assert (probe["verified"], probe["text"]) == (True, "IMDSv2 i-1")
    assert 60 <= probe["age"] < 600
    assert re.search(
        r"^last probe of the sidecar: verified [0-9.]+ s ago, IMDSv2 i-1$", ctl(mocked, "status").stdout, re.MULTILINE
    )
    sidecar.kill()
    sidecar.wait()
    assert json.loads(ctl(mocked, "status", "--json").stdout)["probe"] is None
    mocked.start(mocked.app, sys.executable, "-c", SIDECAR, "")
    assert json.loads(ctl(mocked, "status", "--json").stdout)["probe"] is None


def test_status_names_unreadable_rules(network: Network) -> None:
    """Without NET_RAW status says that it cannot read legacy iptables."""
    done = network.app.run(*without("net_raw"), CTL, "status", check=False)
    assert "legacy iptables cannot be read: no NET_RAW capability" in done.stdout


def test_remove_keeps_foreign_rules_and_routes(network: Network, backend: str) -> None:
    """Remove deletes imds-detour's rules, chains, tables and route; all others stay byte-identical."""
    for tables in ("iptables-legacy", "ip6tables-legacy"):
        for table in ("nat", "filter"):
            network.app.run(tables, "-t", table, "-A", "OUTPUT", "-p", "tcp", "--dport", "81", "-j", "ACCEPT")
    network.app.run("nft", "add table ip foreign; add chain ip foreign c { type nat hook output priority 0; }")
    network.app.ip("route", "del", "default")  # so that a start adds a route
    network.app.ip("route", "add", "192.0.2.0/24", "via", MOCK)
    network.start_mock()
    before = all_rules(network)
    assert network.detour("true", MOCK_HOSTNAME=MOCK, MOCK_BACKEND=backend).returncode == 0
    assert all_rules(network) != before
    assert network.detour_routes() != ""
    removed = ctl(network, "remove")
    assert removed.returncode == 0
    name = {"legacy": "legacy iptables", "nft": "nftables"}[backend]
    assert re.fullmatch(rf"{name}: \d rules removed\nroutes: 1 route removed\n", removed.stdout)
    assert all_rules(network) == before
    assert ctl(network, "remove").stdout == "nothing to remove\n"


def test_init_installs_and_verifies_a_redirect(mocked: Network, backend: str) -> None:
    """Init installs and verifies the redirect and exits; a later client reads from the mock."""
    done = ctl(mocked, "init", MOCK_BACKEND=backend)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{METADATA}:80 -> {MOCK}:{PORT}, ")
    assert done.stdout.endswith(f"verified IMDSv2 {INSTANCE}\n")
    assert mocked.app.run("curl", "-sS", ID_URL).stdout == INSTANCE


def test_init_prefers_flags_to_variables(mocked: Network) -> None:
    """A flag of init overrides its variable, and an error message names the flag of an invalid value."""
    done = ctl(mocked, "init", "--mock", MOCK, "--port", PORT, MOCK_HOSTNAME="no-such-mock", MOCK_PORT="1")
    assert done.returncode == 0, done.stderr
    bad = ctl(mocked, "init", "--port", "http")
    assert (bad.returncode, bad.stderr) == (125, "imds-detour: --port 'http' is not valid; allowed: 1 to 65535\n")
    unknown = ctl(mocked, "init", "--backend", "pf")
    assert unknown.returncode == 2
    assert "argument --backend: invalid choice: 'pf'" in unknown.stderr


def test_init_rejects_the_env_backend(network: Network) -> None:
    """Init fails with MOCK_BACKEND=env, since it starts no app that could get the variables."""
    done = ctl(network, "init", MOCK_BACKEND="env")
    assert done.returncode == 125
    assert "init starts none" in done.stderr


def test_init_without_a_mock_leaves_no_rules(network: Network) -> None:
    """Init without a mock prints one line, exits with 125 and leaves no rules."""
    done = ctl(network, "init", MOCK_TIMEOUT="0.3")
    assert (done.returncode, done.stdout) == (125, "")
    assert "no mock after 0.3 s" in done.stderr
    assert network.detour_rules() == ""


def test_verbs_without_net_admin_name_the_capability(network: Network) -> None:
    """Without NET_ADMIN status, remove and init fail with one line that names the capability."""
    for verb in ("status", "remove", "init"):
        environ = network.settings(None, MOCK_HOSTNAME=MOCK)
        done = network.app.run(*without("net_admin"), CTL, verb, environ=environ, check=False)
        assert done.returncode == 125
        assert "no NET_ADMIN capability" in done.stderr
        assert done.stderr.count("\n") == 1


def test_init_on_a_host_redirects_to_loopback(network: Network) -> None:
    """`init --host` redirects to a mock at 127.0.0.1 in the same namespace, and remove undoes it."""
    network.start_mock(host=network.app)
    before = all_rules(network)
    done = ctl(network, "init", "--host", MOCK_HOSTNAME="127.0.0.1")
    assert done.returncode == 0, done.stderr
    assert network.app.run("curl", "-sS", ID_URL).stdout == INSTANCE
    assert ctl(network, "remove").returncode == 0
    assert all_rules(network) == before
