"""imds-detourctl: plan, status, remove, init. The same rules as imds-detour, without an app."""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.hosts.network import CTL, ID_URL, INSTANCE, METADATA, MOCK, PORT

if TYPE_CHECKING:
    import subprocess

    from tests.support.hosts.network import Network

BACKENDS = pytest.mark.parametrize("backend", ["legacy", "nft"])
HOST6 = "fd00:88::3"
SIDECAR = """
import socket, sys, time
from imds_detour.ctl.sidecar.last_probe import ADDRESS, LastProbe
listener = socket.socket(socket.AF_UNIX)
listener.bind(ADDRESS)
listener.listen()
print("listening", flush=True)
said = LastProbe(True, sys.argv[1], time.time() - 60).encode() if sys.argv[1] else b"[nonsense"
while True:
    connection, _ = listener.accept()
    connection.sendall(said)
    connection.close()
"""
"""What the sidecar does on its socket, and no more of it; told nothing, it answers nonsense."""


def ctl(network: Network, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run imds-detourctl on the app's host, its mock given by address."""
    return network.app.run(
        CTL, *arguments, environ=network.settings(None, **{"MOCK_HOSTNAME": MOCK, **settings}), check=False
    )


def everything(network: Network) -> str:
    """Return all rules and routes of the app's host, without counters: legacy, nft, both IP versions."""
    saved = "for c in iptables-legacy-save ip6tables-legacy-save; do for t in nat filter; do $c -t $t; done; done"
    listed = "nft -s list ruleset; ip route show table all; ip -6 route show table all"
    lines = network.app.run("sh", "-c", f"{saved}; {listed}").stdout.splitlines()
    # The kernel adds link-local addresses and their routes by itself, when a cable has been up for a second.
    kept = (line for line in lines if not line.startswith("#") and not re.search("fe80::|ff00::", line))
    return "\n".join(re.sub(r" \[\d+:\d+\]$", "", line) for line in kept)


@BACKENDS
def test_what_is_planned_is_what_is_installed(network: Network, backend: str) -> None:
    """The text that plan prints, loaded by the tool that it names, gives the very rules of imds-detour."""
    network.mock.ip("address", "add", f"{HOST6}/64", "dev", "eth0", "nodad")
    network.app.ip("address", "add", "fd00:88::2/64", "dev", "eth0", "nodad")
    network.app.ip("-6", "route", "add", "default", "via", HOST6)
    network.app.write("hosts", f"{MOCK} both\n{HOST6} both\n")
    network.start(network.mock, CTL, "mock", "--listen", f"[::]:{PORT}", "--quiet")
    before = everything(network)
    planned = network.app.run(
        CTL, "plan", "--mock", "both", "--backend", backend, environ=network.settings(None, MOCK_HOSTNAME="unset")
    ).stdout
    assert everything(network) == before, "plan changes nothing"
    assert f"# redirect 169.254.169.254:80 -> {MOCK}:{PORT}\n# redirect [fd00:ec2::254]:80 -> [{HOST6}]:" in planned
    texts = re.split(r"^# (nft|ip6?tables-legacy-restore) .*\n", planned, flags=re.MULTILINE)[1:]
    commands = {"legacy": ["iptables-legacy-restore", "ip6tables-legacy-restore"], "nft": ["nft"]}[backend]
    assert texts[::2] == commands
    for command, text in zip(commands, texts[1::2], strict=True):
        flags = "-f /dev/stdin" if command == "nft" else "--noflush"
        network.app.run("sh", "-c", f"{command} {flags} <<'E'\n{text}E")
    loaded = everything(network)
    assert loaded != before
    # Our own reader finds nothing to mend in what was loaded, and neither does a start.
    assert json.loads(ctl(network, "status", "--json").stdout)["faults"] == []
    assert network.detour("true", MOCK_HOSTNAME="both", MOCK_BACKEND=backend).returncode == 0
    assert everything(network) == loaded


def test_a_plan_for_nftables_can_be_piped_into_nft(network: Network) -> None:
    """As its --help says; the comments are comments to nft as well."""
    network.app.run("sh", "-euc", f"{CTL} plan --mock {MOCK} --port {PORT} --backend nft | nft -f -")
    assert json.loads(ctl(network, "status", "--json").stdout)["redirects"][0]["mock"] == f"{MOCK}:{PORT}"


def test_a_plan_says_what_else_would_be_done(network: Network) -> None:
    """A route where there is none, a name in /etc/hosts, and that there is no IPv6 to guard."""
    network.without_ipv6()
    network.app.ip("route", "del", "default")
    planned = ctl(network, "plan", MOCK_ENDPOINTS="gcp").stdout
    assert f"\n# /etc/hosts: {METADATA} metadata.google.internal" in planned
    assert f"\n# ip route add {METADATA} dev lo src 10.88.0.2 proto 169\n" in planned
    assert "\n# there is no IPv6 in this network namespace: nothing to do for it\n" in planned
    assert "ip6" not in planned


def test_without_rules_there_is_nothing_to_plan(network: Network) -> None:
    """MOCK_BACKEND=env makes none, so none are printed; what the message names shows what is made instead."""
    done = ctl(network, "plan", MOCK_BACKEND="env")
    assert (done.returncode, done.stdout) == (125, "")
    assert "MOCK_BACKEND=env sets variables for an app, and makes no rules to plan" in done.stderr
    network.start_mock()
    shown = network.detour("env", MOCK_HOSTNAME=MOCK, MOCK_BACKEND="env").stdout
    assert f"\nAWS_EC2_METADATA_SERVICE_ENDPOINT=http://{MOCK}:{PORT}" in shown


@BACKENDS
def test_status_says_what_stands_and_how_often_it_was_used(network: Network, backend: str) -> None:
    """Nothing at first, with exit status 1; then redirect, guard, route and counters, as text and as JSON."""
    network.app.ip("route", "del", "default")
    network.start_mock()
    nothing = ctl(network, "status")
    assert (nothing.returncode, nothing.stdout) == (1, "no imds-detour rules in this network namespace\n")
    assert network.detour("curl", "-sS", ID_URL, MOCK_HOSTNAME=MOCK, MOCK_BACKEND=backend).returncode == 0
    network.app.run("curl", "-sS", f"http://{METADATA}:8080", check=False)  # the guard refuses it
    name = {"legacy": "legacy iptables", "nft": "nftables"}[backend]
    facts = json.loads(ctl(network, "status", "--json").stdout)
    (redirect,) = facts["redirects"]
    used = redirect.pop("connections")
    assert redirect == {"endpoint": f"{METADATA}:80", "mock": f"{MOCK}:{PORT}", "backend": name}
    assert facts["guard"] == [
        {"address": METADATA, "backend": name, "how": "reject", "refused": 1},
        {"address": "fd00:ec2::254", "backend": name, "how": "reject", "refused": 0},
    ]
    assert facts["routes"] == [{"to": METADATA, "source": "10.88.0.2"}]
    assert (facts["schema"], facts["faults"], facts["probe"], facts["unseen"]) == (1, [], None, {})
    network.app.run("curl", "-sS", ID_URL)
    assert json.loads(ctl(network, "status", "--json").stdout)["redirects"][0]["connections"] == used + 1
    text = ctl(network, "status")
    assert text.returncode == 0
    lines = [line.split() for line in text.stdout.splitlines()]
    assert [f"{METADATA}:80", f"{MOCK}:{PORT}", *name.split(), str(used + 1)] in lines
    assert [METADATA, "rejects", *name.split(), "1"] in lines
    assert [METADATA, "lo", "10.88.0.2"] in lines
    assert lines[-1][-3:] == ["shows", "the", "rules"]


@BACKENDS
def test_status_shows_what_is_not_as_we_left_it(network: Network, backend: str) -> None:
    """A redirect whose guard has lost a rule, and a rule that somebody else wrote into our chain."""
    network.start_mock()
    assert network.detour("true", MOCK_HOSTNAME=MOCK, MOCK_BACKEND=backend).returncode == 0
    if backend == "legacy":
        network.app.run("iptables-legacy", "-D", "IMDS_DETOUR_GUARD", "1")
        network.app.run("iptables-legacy", "-t", "nat", "-A", "IMDS_DETOUR", "-p", "udp", "-j", "ACCEPT")
    else:
        listed = network.app.run("nft", "-a", "list", "chain", "ip", "imds_detour", "guard_output").stdout
        (first, *_) = re.findall(r"reject.*# handle (\d+)", listed)
        network.app.run("nft", "delete", "rule", "ip", "imds_detour", "guard_output", "handle", first)
        network.app.run("nft", "add", "rule", "ip", "imds_detour", "nat_output", "udp", "dport", "1", "accept")
    facts = json.loads(ctl(network, "status", "--json").stdout)
    assert len(facts["redirects"]) == 1
    assert [guard["address"] for guard in facts["guard"]] == ["fd00:ec2::254"]
    missing, foreign = facts["faults"]
    assert missing.startswith("missing: -A ")
    assert missing.endswith("-j REJECT --reject-with tcp-reset")
    assert foreign == "foreign: 1 rules in imds-detour's chains"
    assert missing in ctl(network, "status").stdout


def test_status_says_what_the_sidecar_saw_last(network: Network) -> None:
    """It is asked on an abstract socket of the network namespace; one that answers nonsense counts for none."""
    network.start_mock()
    assert network.detour("true", MOCK_HOSTNAME=MOCK).returncode == 0
    sidecar = network.start(network.app, sys.executable, "-c", SIDECAR, "IMDSv2 i-1")
    probe = json.loads(ctl(network, "status", "--json").stdout)["probe"]
    assert (probe["verified"], probe["text"]) == (True, "IMDSv2 i-1")
    assert 60 <= probe["age"] < 600
    assert re.search(
        r"^last probe of the sidecar: verified [0-9.]+ s ago, IMDSv2 i-1$", ctl(network, "status").stdout, re.MULTILINE
    )
    sidecar.kill()
    sidecar.wait()
    assert json.loads(ctl(network, "status", "--json").stdout)["probe"] is None
    network.start(network.app, sys.executable, "-c", SIDECAR, "")
    assert json.loads(ctl(network, "status", "--json").stdout)["probe"] is None


def test_what_cannot_be_looked_at_is_named(network: Network) -> None:
    """Without NET_RAW rules in legacy iptables may stand and not be seen."""
    fewer = ("setpriv", "--bounding-set", "-net_raw", "--inh-caps", "-net_raw")
    done = network.app.run(*fewer, CTL, "status", check=False)
    assert "legacy iptables cannot be read: no NET_RAW capability" in done.stdout


@BACKENDS
def test_remove_leaves_everybody_elses_rules_and_routes_as_they_were(network: Network, backend: str) -> None:
    """Rules, chains, tables and the route of ours go; what others have is byte-identical."""
    for tables in ("iptables-legacy", "ip6tables-legacy"):
        for table in ("nat", "filter"):
            network.app.run(tables, "-t", table, "-A", "OUTPUT", "-p", "tcp", "--dport", "81", "-j", "ACCEPT")
    network.app.run("nft", "add table ip theirs; add chain ip theirs c { type nat hook output priority 0; }")
    network.app.ip("route", "del", "default")  # so that a route of ours is needed
    network.app.ip("route", "add", "192.0.2.0/24", "via", MOCK)
    network.start_mock()
    before = everything(network)
    assert network.detour("true", MOCK_HOSTNAME=MOCK, MOCK_BACKEND=backend).returncode == 0
    assert everything(network) != before
    assert network.our_routes() != ""
    removed = ctl(network, "remove")
    assert removed.returncode == 0
    name = {"legacy": "legacy iptables", "nft": "nftables"}[backend]
    assert re.fullmatch(rf"{name}: \d rules removed\nroutes: 1 route removed\n", removed.stdout)
    assert everything(network) == before
    assert ctl(network, "remove").stdout == "nothing to remove\n"


@BACKENDS
def test_init_redirects_verifies_and_ends(network: Network, backend: str) -> None:
    """No app is started; whoever comes next in the namespace finds the redirect."""
    network.start_mock()
    done = ctl(network, "init", MOCK_BACKEND=backend)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{METADATA}:80 -> {MOCK}:{PORT}, ")
    assert done.stdout.endswith(f"verified IMDSv2 {INSTANCE}\n")
    assert network.app.run("curl", "-sS", ID_URL).stdout == INSTANCE


def test_a_flag_wins_over_its_variable(network: Network) -> None:
    """For init, as for every verb that has settings; a bad value is named by the flag."""
    network.start_mock()
    done = ctl(network, "init", "--mock", MOCK, "--port", PORT, MOCK_HOSTNAME="nobody", MOCK_PORT="1")
    assert done.returncode == 0, done.stderr
    bad = ctl(network, "init", "--port", "http")
    assert (bad.returncode, bad.stderr) == (125, "imds-detour: --port 'http' is not valid; allowed: 1 to 65535\n")
    unknown = ctl(network, "init", "--backend", "pf")
    assert unknown.returncode == 2
    assert "argument --backend: invalid choice: 'pf'" in unknown.stderr


def test_init_has_no_app_for_endpoint_variables(network: Network) -> None:
    """MOCK_BACKEND=env says how an app is started."""
    done = ctl(network, "init", MOCK_BACKEND="env")
    assert done.returncode == 125
    assert "init starts none" in done.stderr


def test_init_fails_as_the_entrypoint_does(network: Network) -> None:
    """No mock: one line, exit status 125, and nothing stands."""
    done = ctl(network, "init", MOCK_TIMEOUT="0.3")
    assert (done.returncode, done.stdout) == (125, "")
    assert "no mock after 0.3 s" in done.stderr
    assert network.ours() == ""


def test_without_net_admin_each_verb_says_so(network: Network) -> None:
    """One line with the capability and the line that adds it."""
    for verb in ("status", "remove", "init"):
        fewer = ("setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin")
        done = network.app.run(*fewer, CTL, verb, environ=network.settings(None, MOCK_HOSTNAME=MOCK), check=False)
        assert done.returncode == 125
        assert "no NET_ADMIN capability" in done.stderr
        assert done.stderr.count("\n") == 1


def test_the_laptop_set_up_sends_the_address_to_a_mock_on_loopback(network: Network) -> None:
    """With init --host and MOCK_HOSTNAME=127.0.0.1 all in the namespace reach the mock, and remove undoes it."""
    network.start_mock(host=network.app)
    before = everything(network)
    done = ctl(network, "init", "--host", MOCK_HOSTNAME="127.0.0.1")
    assert done.returncode == 0, done.stderr
    assert network.app.run("curl", "-sS", ID_URL).stdout == INSTANCE
    assert ctl(network, "remove").returncode == 0
    assert everything(network) == before
