"""Killed between any two steps: nothing stands, or the guard, or the redirect behind it; the next start repairs it."""

from __future__ import annotations

import random
import re
import signal
from typing import TYPE_CHECKING

import pytest

from tests.support.faults.injection import Injection, calls_made, strace
from tests.support.hosts.cloud import BACKENDS, LONG, Cloud
from tests.support.hosts.ip_version import V4, V6
from tests.support.hosts.network import CTL, DETOUR, ID_URL, INSTANCE, NAME, PORT
from tests.support.marks import first_quick

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.hosts.ip_version import IpVersion

STRIDE = 1 if LONG else 11
"""Of the calls of a kind, every one is tried in full runs, and one in eleven else."""
RANDOM_KILLS = 100 if LONG else 3
NOTHING, GUARD, BOTH = "nothing", "the guard alone", "the redirect behind the guard"
CLEAN = """
nft delete table {nft} imds_detour 2>/dev/null
for t in nat filter; do {iptables} -t $t -F; {iptables} -t $t -X; done
"""
FAULTY_PORT = "1400"
FAILING = {"MOCK_PORT": FAULTY_PORT}
"""Where the mock says something new each time, which proves nothing."""
NETWORKS = {"no route": "del", **({"a default route": "replace"} if LONG else {})}


@pytest.fixture(scope="module", params=NETWORKS)
def cloud(request: pytest.FixtureRequest) -> Iterator[Cloud]:
    """Give a network with a mock; without a default route, ours to the metadata address is one step more."""
    with Cloud(V4) as made:
        made.app.ip("route", NETWORKS[request.param], "default", "via", made.ip.mock)
        for host, address in ((made.mock, V6.mock), (made.app, V6.app)):
            host.ip("address", "add", f"{address}/{V6.length}", "dev", "eth0", "nodad")
        made.start_mock_everywhere()
        made.start_dns(f"{NAME}={V4.mock},{V6.mock}")
        made.start_faulty("GET=count", port=FAULTY_PORT)
        yield made


def settings(cloud: Cloud, backend: str, **changed: str) -> dict[str, str]:
    """Return the environment of a start that says each step."""
    wanted = {"MOCK_HOSTNAME": cloud.ip.mock, "MOCK_BACKEND": backend, "MOCK_LOG": "debug", **changed}
    return cloud.settings(None, **wanted)


def parts(cloud: Cloud, ip: IpVersion, backend: str) -> tuple[str, str]:
    """Return our rules of an IP version in table nat and in table filter, without counters."""
    if backend == "legacy":
        saved = cloud.app.run("sh", "-euc", f"for t in nat filter; do {ip.iptables}-save -t $t; echo TABLE; done")
        nat, guard, _ = saved.stdout.split("TABLE\n")
        lines = [[line for line in text.splitlines() if "IMDS_DETOUR" in line] for text in (nat, guard)]
        both = ("\n".join(lines[0]), "\n".join(lines[1]))
    else:
        listed = cloud.app.run("nft", "list", "table", ip.nft, "imds_detour", check=False).stdout
        guard, _, nat = listed.partition("chain nat_output")
        both = (nat, "".join(guard.partition("chain guard_output")[1:]).rstrip(" \t\n}"))
    nat, guard = (re.sub(r"packets \d+ bytes \d+|\[\d+:\d+\]", "", text) for text in both)
    return nat.replace(f":{FAULTY_PORT}", f":{PORT}"), guard


class Starts:
    """Starts of one backend in one network, some of which are killed."""

    def __init__(self, cloud: Cloud, backend: str, **changed: str) -> None:
        """Start once undisturbed, to know what must stand after the last step."""
        self.cloud, self.backend, self.changed = cloud, backend, changed
        self.clean()
        self.seen = cloud.seen()
        self.whole: dict[IpVersion, tuple[str, str]] = {}
        self.repaired()

    def clean(self) -> None:
        """Take everything out, as a new container has it."""
        for ip in (V4, V6):
            self.cloud.app.run("sh", "-c", CLEAN.format(nft=ip.nft, iptables=ip.iptables))
        self.cloud.app.ip("route", "flush", "table", "main", "proto", "169")

    def state(self) -> str:
        """Say what stands; anything but the three fails the test."""
        found = {ip: parts(self.cloud, ip, self.backend) for ip in (V4, V6)}
        for ip, (nat, guard) in found.items():
            assert nat in ("", self.whole[ip][0]), nat
            assert guard in ("", self.whole[ip][1]), guard
            assert guard or not nat, "a redirect without a guard"
        nat, guard = found[V4]
        return BOTH if nat else GUARD if guard else NOTHING

    def repaired(self) -> None:
        """Start again, undisturbed: the app gets the mock's answer, and the rules are the whole ones."""
        environ = settings(self.cloud, self.backend, **self.changed)
        done = self.cloud.app.run(DETOUR, "curl", "-sS", ID_URL, environ=environ, check=False)
        assert (done.returncode, done.stdout) == (0, INSTANCE), done
        whole = {ip: parts(self.cloud, ip, self.backend) for ip in (V4, V6)}
        self.whole = self.whole or whole
        assert whole == self.whole
        assert all(self.whole[V4])

    def killed(self, *command: str, **changed: str) -> str | None:
        """Start anew under a command that kills it, say what stands then, and repair it; None when it survived.

        With a setting changed so that the proof fails, that is when it has undone all that it did.
        """
        self.clean()
        environ = settings(self.cloud, self.backend, **{**self.changed, **changed})
        done = self.cloud.app.run(*command, DETOUR, "echo", "started", environ=environ, check=False)
        if done.returncode == 125:
            assert changed == FAILING
            assert self.state() == NOTHING
            return None
        if done.returncode == 0:
            assert done.stdout == "started\n"
            return None
        assert done.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL), done
        state = self.state()
        assert state == BOTH or not done.stdout, done  # the last moment is when the app has begun
        self.repaired()
        assert self.cloud.seen() == self.seen
        return state


def killing(call: str, number: int) -> tuple[str, ...]:
    """Return a command that kills what it runs, though not its helper, before a system call's effect."""
    return strace(Injection(call, "signal=KILL", number))


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_killed_as_it_reports_a_step(cloud: Cloud, backend: str) -> None:
    """It says each step once it is done; killed at that moment, it leaves what the steps so far have put in."""
    starts = Starts(cloud, backend)
    states: list[str] = []
    while (state := starts.killed(*killing("write", len(states) + 1))) is not None:
        states.append(state)
    assert len(states) >= 6, states  # guard, answer, redirect, proof, NET_ADMIN, success
    assert states == sorted(states, key=[NOTHING, GUARD, BOTH].index)
    assert states[0] in (NOTHING, GUARD)
    assert GUARD in states
    assert states[-1] == BOTH


CALLS = {
    "sendto": "each message to kernel, helper and mock",
    "recvfrom": "while each answer is on its way",
    "connect": "each connection, the locks' and the look into the routing table included",
}


@pytest.mark.parametrize("backend", first_quick(BACKENDS))
@pytest.mark.parametrize("call", CALLS)
def test_killed_at_a_system_call(cloud: Cloud, backend: str, call: str) -> None:
    """Between any two changes in the kernel; where the helper is at work just then, it ends what it has begun."""
    starts = Starts(cloud, backend)
    states: list[str] = []
    number = 1
    while (state := starts.killed(*killing(call, number))) is not None:
        states.append(state)
        number += STRIDE
    assert states, CALLS[call]
    print(f"{backend}: killed {len(states)} times at {call}: {sorted(set(states))}")  # noqa: T201  (figures, for -rP)


@pytest.mark.parametrize("backend", BACKENDS)
def test_killed_with_its_helper_at_any_moment(cloud: Cloud, backend: str) -> None:
    """As when a container is killed: all of its processes at once, whatever they are at."""
    starts = Starts(cloud, backend)
    moments = random.Random(169)  # noqa: S311  (moments, no secrets)
    states: list[str | None] = []
    for _ in range(RANDOM_KILLS):
        after = f"{moments.uniform(0.02, 0.25):.3f}"
        state = starts.killed("timeout", "--signal=KILL", after, *("unshare", "--pid", "--fork", "--kill-child"))
        states.append(state)
    print(f"{backend}: {[(state, states.count(state)) for state in set(states)]}")  # noqa: T201  (figures, for -rP)


@pytest.mark.parametrize("backend", first_quick(BACKENDS))
def test_remove_is_killed(cloud: Cloud, backend: str) -> None:
    """`imds-detourctl remove` takes the redirect out before the guard, so that what is half removed is closed."""
    starts = Starts(cloud, backend)
    remove = (CTL, "remove")
    order = [BOTH, GUARD, NOTHING]
    states: list[str] = []
    for number in _numbers(starts, "sendto", *remove):
        starts.clean()
        starts.repaired()
        done = cloud.app.run(*killing("sendto", number), *remove, check=False)
        assert done.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL), done
        states.append(starts.state())
        cloud.app.run(*remove)
        assert starts.state() == NOTHING
    assert states == sorted(states, key=order.index)
    assert not LONG or set(states) == set(order), states


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_killed_as_it_undoes_what_it_did(cloud: Cloud, backend: str) -> None:
    """A start whose proof fails goes the way back: the redirect first, then the guard."""
    starts = Starts(cloud, backend)
    numbers = _numbers(starts, "sendto", DETOUR, "true", **FAILING)
    states = [str(starts.killed(*killing("sendto", number), **FAILING)) for number in numbers]
    assert "None" not in states
    top = states.index(BOTH) if BOTH in states else 0
    there, back = states[:top], states[top:]
    assert there == sorted(there, key=[NOTHING, GUARD].index)
    assert back == sorted(back, key=[BOTH, GUARD, NOTHING].index)
    assert not LONG or (top and GUARD in back and back[-1] == NOTHING), states


def _numbers(starts: Starts, call: str, *command: str, **changed: str) -> list[int]:
    """Return the numbers of the calls at which to kill a command: all in full runs, else some of the second half."""
    starts.clean()
    starts.repaired()
    if changed:
        starts.clean()
    environ = settings(starts.cloud, starts.backend, **changed)
    log = "/run/calls.log"
    starts.cloud.app.run(*strace(log=log, calls=[call]), *command, environ=environ, check=False)
    number = len(calls_made(starts.cloud.app.run("cat", log).stdout))
    assert number
    return list(range(1, number + 1) if LONG else range(number // 2, number, 4))


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_killed_with_redirects_in_both_ip_versions(cloud: Cloud, backend: str) -> None:
    """Each of them stands behind its guard, or does not stand; the next start has both."""
    starts = Starts(cloud, backend, MOCK_HOSTNAME=NAME)
    assert all(starts.whole[V6])
    number = 1
    states: set[str] = set()
    while (state := starts.killed(*killing("sendto", number))) is not None:
        states.add(state)
        number += STRIDE
    assert states


SWITCH = ("fchown", "setgroups", "setresgid", "setresuid", "prctl", "capset", "setuid")
"""What makes the app's user of root, in this order; two of them are ours before that as well."""


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("call", SWITCH if LONG else SWITCH[1::3])
def test_killed_as_it_becomes_the_apps_user(cloud: Cloud, backend: str, call: str) -> None:
    """Everything stands by then, and the app has not run."""
    starts = Starts(cloud, backend, MOCK_USER="1:1")
    number = 0
    while (state := starts.killed(*killing(call, number + 1))) is not None:
        assert state == BOTH
        number += 1
    assert number
