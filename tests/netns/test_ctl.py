"""imds-detourctl: plan, status, remove, init. The same rules as imds-detour, without an app."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from tests.world import CTL, ID_URL, INSTANCE, METADATA, MOCK, PORT

if TYPE_CHECKING:
    import subprocess

    from tests.world import World

BACKENDS = pytest.mark.parametrize("backend", ["legacy", "nft"])
HOST6 = "fd00:88::3"


def ctl(world: World, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run imds-detourctl on the app's host, its mock given by address."""
    return world.app.run(
        CTL, *arguments, environ=world.settings(None, **{"MOCK_HOSTNAME": MOCK, **settings}), check=False
    )


def everything(world: World) -> str:
    """Return all rules and routes of the app's host, without counters: legacy, nft, both IP versions."""
    saved = "for c in iptables-legacy-save ip6tables-legacy-save; do for t in nat filter; do $c -t $t; done; done"
    listed = "nft -s list ruleset; ip route show table all; ip -6 route show table all"
    lines = world.app.run("sh", "-c", f"{saved}; {listed}").stdout.splitlines()
    # The kernel adds link-local addresses and their routes by itself, when a cable has been up for a second.
    kept = (line for line in lines if not line.startswith("#") and not re.search("fe80::|ff00::", line))
    return "\n".join(re.sub(r" \[\d+:\d+\]$", "", line) for line in kept)


@BACKENDS
def test_what_is_planned_is_what_is_installed(world: World, backend: str) -> None:
    """The text that plan prints, loaded by the tool that it names, gives the very rules of imds-detour."""
    world.mock.ip("address", "add", f"{HOST6}/64", "dev", "eth0", "nodad")
    world.app.ip("address", "add", "fd00:88::2/64", "dev", "eth0", "nodad")
    world.app.ip("-6", "route", "add", "default", "via", HOST6)
    world.app.write("hosts", f"{MOCK} both\n{HOST6} both\n")
    world.start(world.mock, CTL, "mock", "--listen", f"[::]:{PORT}", "--quiet")
    before = everything(world)
    planned = world.app.run(CTL, "plan", environ=world.settings(None, MOCK_HOSTNAME="both")).stdout
    assert everything(world) == before, "plan changes nothing"
    legacy, legacy6, nft = re.split(r"^# .*\n", planned, flags=re.MULTILINE)[1:]
    loads = (
        [("iptables-legacy-restore", "--noflush", legacy), ("ip6tables-legacy-restore", "--noflush", legacy6)]
        if backend == "legacy"
        else [("nft", "-f", nft)]
    )
    for *command, text in loads:
        world.app.run("sh", "-c", f"{' '.join(command)} {'/dev/stdin' if backend == 'nft' else ''} <<'E'\n{text}E")
    loaded = everything(world)
    assert loaded != before
    # Our own reader finds nothing to mend in what was loaded, and neither does a start.
    assert json.loads(ctl(world, "status", "--json").stdout)
    assert world.detour("true", MOCK_HOSTNAME="both", MOCK_BACKEND=backend).returncode == 0
    assert everything(world) == loaded


@BACKENDS
def test_status_says_what_stands_and_how_often_it_matched(world: World, backend: str) -> None:
    """Nothing at first, with exit status 1; then the rules, the backend and the counters, as text and as JSON."""
    world.start_mock()
    nothing = ctl(world, "status")
    assert (nothing.returncode, nothing.stdout) == (1, "nothing of imds-detour's stands in this network namespace\n")
    assert world.detour("curl", "-sS", ID_URL, MOCK_HOSTNAME=MOCK, MOCK_BACKEND=backend).returncode == 0
    name = {"legacy": "legacy iptables", "nft": "nftables"}[backend]
    text = ctl(world, "status")
    assert text.returncode == 0
    assert text.stdout.startswith(f"{name} (`")
    assert f"-j DNAT --to-destination {MOCK}:{PORT}\n" in text.stdout
    facts = json.loads(ctl(world, "status", "--json").stdout)
    (redirect,) = [rule for rule in facts[name] if "DNAT" in rule["rule"]]
    used = redirect["packets"]
    world.app.run("curl", "-sS", ID_URL)
    (redirect,) = [rule for rule in json.loads(ctl(world, "status", "--json").stdout)[name] if "DNAT" in rule["rule"]]
    assert redirect["packets"] == used + 1


@BACKENDS
def test_remove_leaves_everybody_elses_rules_and_routes_as_they_were(world: World, backend: str) -> None:
    """Rules, chains, tables and the route of ours go; what others have is byte-identical."""
    for tables in ("iptables-legacy", "ip6tables-legacy"):
        for table in ("nat", "filter"):
            world.app.run(tables, "-t", table, "-A", "OUTPUT", "-p", "tcp", "--dport", "81", "-j", "ACCEPT")
    world.app.run("nft", "add table ip theirs; add chain ip theirs c { type nat hook output priority 0; }")
    world.app.ip("route", "del", "default")  # so that a route of ours is needed
    world.app.ip("route", "add", "192.0.2.0/24", "via", MOCK)
    world.start_mock()
    before = everything(world)
    assert world.detour("true", MOCK_HOSTNAME=MOCK, MOCK_BACKEND=backend).returncode == 0
    assert everything(world) != before
    assert world.our_routes() != ""
    removed = ctl(world, "remove")
    assert removed.returncode == 0
    assert removed.stdout.endswith(" rules removed\n")
    assert everything(world) == before
    assert ctl(world, "remove").stdout == "there was nothing of ours\n"


@BACKENDS
def test_init_redirects_verifies_and_ends(world: World, backend: str) -> None:
    """No app is started; whoever comes next in the namespace finds the redirect."""
    world.start_mock()
    done = ctl(world, "init", MOCK_BACKEND=backend)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{METADATA}:80 -> {MOCK}:{PORT}, ")
    assert done.stdout.endswith(f"verified IMDSv2 {INSTANCE}\n")
    assert world.app.run("curl", "-sS", ID_URL).stdout == INSTANCE


def test_init_fails_as_the_entrypoint_does(world: World) -> None:
    """No mock: one line, exit status 125, and nothing stands."""
    done = ctl(world, "init", MOCK_TIMEOUT="0.3")
    assert (done.returncode, done.stdout) == (125, "")
    assert "no mock after 0.3 s" in done.stderr
    assert world.ours() == ""


def test_without_net_admin_each_verb_says_so(world: World) -> None:
    """One line with the capability and the line that adds it."""
    for verb in ("status", "remove", "init"):
        fewer = ("setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin")
        done = world.app.run(*fewer, CTL, verb, environ=world.settings(None, MOCK_HOSTNAME=MOCK), check=False)
        assert done.returncode == 125
        assert "no NET_ADMIN capability" in done.stderr
        assert done.stderr.count("\n") == 1


def test_the_laptop_set_up_sends_the_address_to_a_mock_on_loopback(world: World) -> None:
    """With init --host and MOCK_HOSTNAME=127.0.0.1 all in the namespace reach the mock, and remove undoes it."""
    world.start_mock(host=world.app)
    before = everything(world)
    done = ctl(world, "init", "--host", MOCK_HOSTNAME="127.0.0.1")
    assert done.returncode == 0, done.stderr
    assert world.app.run("curl", "-sS", ID_URL).stdout == INSTANCE
    assert ctl(world, "remove").returncode == 0
    assert everything(world) == before
