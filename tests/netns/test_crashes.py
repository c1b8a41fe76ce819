"""A kill between any two steps leaves no rules, the guard, or guard and redirect; the next start repairs them."""

import random
import re
import signal
from collections.abc import Iterator

import pytest

from tests.support.faults.injection import Injection, calls_made, strace
from tests.support.hosts.cloud import BACKENDS, LONG, Cloud
from tests.support.hosts.ip_version import V4, V6, IpVersion
from tests.support.hosts.network import CTL, DETOUR, ID_URL, INSTANCE, NAME, PORT
from tests.support.marks import first_quick

STRIDE = 1 if LONG else 11
"""Every call of a kind is tried with LONG=1, and every eleventh without."""
RANDOM_KILLS = 100 if LONG else 3
NOTHING, GUARD, BOTH = "no rules", "guard only", "guard and redirect"
CLEAN = """
nft delete table {nft} imds_detour 2>/dev/null
for t in nat filter; do {iptables} -t $t -F; {iptables} -t $t -X; done
"""
FAULTY_PORT = "1400"
FAILING = {"MOCK_PORT": FAULTY_PORT, "MOCK_PROBE": "/latest/meta-data/instance-id"}
"""Settings whose probe fails: this mock returns a new answer each time, and the user has chosen the path."""
NETWORKS = {"no route": "del", **({"a default route": "replace"} if LONG else {})}


@pytest.fixture(scope="module", params=NETWORKS)
def cloud(request: pytest.FixtureRequest) -> Iterator[Cloud]:
    """Yield a network with a mock; without a default route a start has one more step, adding a route."""
    with Cloud(V4) as made:
        made.app.ip("route", NETWORKS[request.param], "default", "via", made.ip.mock)
        made.add_ipv6()
        made.start_mock_everywhere()
        made.start_dns(f"{NAME}={V4.mock},{V6.mock}")
        made.start_faulty("GET=count", port=FAULTY_PORT)
        yield made


def settings(cloud: Cloud, backend: str, **changed: str) -> dict[str, str]:
    """Return the environment of a start that logs each step."""
    wanted = {"MOCK_HOSTNAME": cloud.ip.mock, "MOCK_BACKEND": backend, "MOCK_LOG": "debug", **changed}
    return cloud.settings(None, **wanted)


def parts(cloud: Cloud, ip: IpVersion, backend: str) -> tuple[str, str]:
    """Return imds-detour's rules of an IP version in table nat and in table filter, without counters."""
    listed = cloud.app.run("nft", "list", "table", ip.nft, "imds_detour", check=False).stdout
    guard, _, nat = listed.partition("chain nat_output")
    both = (nat, "".join(guard.partition("chain guard {")[1:]).rstrip(" \t\n}"))
    if backend == "legacy":
        saved = cloud.app.run("sh", "-euc", f"for t in nat filter; do {ip.iptables}-save -t $t; echo TABLE; done")
        nat, guard, _ = saved.stdout.split("TABLE\n")
        lines = [[line for line in text.splitlines() if "IMDS_DETOUR" in line] for text in (nat, guard)]
        # nftables guards IPv6.
        both = ("\n".join(lines[0]), "\n".join(lines[1]) if ip is V4 else both[1])
    nat, guard = (re.sub(r"packets \d+ bytes \d+|\[\d+:\d+\]", "", text) for text in both)
    return nat.replace(f":{FAULTY_PORT}", f":{PORT}"), guard


class Starts:
    """Starts of one backend in one network, some of which are killed."""

    def __init__(self, cloud: Cloud, backend: str, **changed: str) -> None:
        """Start once without a kill, to record the complete rules."""
        self.cloud, self.backend, self.changed = cloud, backend, changed
        self.clean()
        self.seen = cloud.seen()
        self.complete: dict[IpVersion, tuple[str, str]] = {}
        self.start_and_check()

    def clean(self) -> None:
        """Remove all rules and imds-detour's routes, as in a new container."""
        for ip in (V4, V6):
            self.cloud.app.run("sh", "-c", CLEAN.format(nft=ip.nft, iptables=ip.iptables))
        self.cloud.app.ip("route", "flush", "table", "main", "proto", "169")

    def state(self) -> str:
        """Return which rules are installed: NOTHING, GUARD or BOTH; fail the test for any other state."""
        rules = {ip: parts(self.cloud, ip, self.backend) for ip in (V4, V6)}
        for ip, (nat, guard) in rules.items():
            assert nat in ("", self.complete[ip][0]), nat
            assert guard in ("", self.complete[ip][1]), guard
            assert guard or not nat, "a redirect without a guard"
        nat, guard = rules[V4]
        return BOTH if nat else GUARD if guard else NOTHING

    def start_and_check(self) -> None:
        """Start without a kill; check that the app gets the mock's answer and the rules are complete."""
        environ = settings(self.cloud, self.backend, **self.changed)
        done = self.cloud.app.run(DETOUR, "curl", "-sS", ID_URL, environ=environ, check=False)
        assert (done.returncode, done.stdout) == (0, INSTANCE), done
        complete = {ip: parts(self.cloud, ip, self.backend) for ip in (V4, V6)}
        self.complete = self.complete or complete
        assert complete == self.complete
        assert all(self.complete[V4])

    def start_and_kill(self, *command: str, **changed: str) -> str | None:
        """Start with a command that kills it, repair, and return the rules' state; None without a kill."""
        self.clean()
        environ = settings(self.cloud, self.backend, **{**self.changed, **changed})
        done = self.cloud.app.run(*command, DETOUR, "echo", "started", environ=environ, check=False)
        if done.returncode == 125:
            assert (changed, self.state()) == (FAILING, GUARD)
            return None
        if done.returncode == 0:
            assert done.stdout == "started\n"
            return None
        assert done.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL), done
        state = self.state()
        assert state == BOTH or not done.stdout, done  # the last kill is after the app has begun
        self.start_and_check()
        assert self.cloud.seen() == self.seen
        return state

    def kill_at_each(self, call: str, stride: int = STRIDE) -> list[str]:
        """Kill starts at every stride-th call of a kind, until one is not killed, and return their states."""
        states: list[str] = []
        while (state := self.start_and_kill(*kill_at(call, 1 + stride * len(states)))) is not None:
            states.append(state)
        return states


def kill_at(call: str, number: int) -> tuple[str, ...]:
    """Return a command that kills its child, but not the helper, before a system call takes effect."""
    return strace(Injection(call, "signal=KILL", number))


@pytest.mark.slow
def test_kill_at_a_log_line_leaves_the_rules_of_the_steps_so_far(cloud: Cloud, backend: str) -> None:
    """A start that is killed as it logs a finished step leaves the rules of the steps so far."""
    states = Starts(cloud, backend).kill_at_each("write", 1)
    assert len(states) >= 6, states  # guard, answer, redirect, probe, NET_ADMIN, success
    assert states == sorted(states, key=[NOTHING, GUARD, BOTH].index)
    assert states[0] in (NOTHING, GUARD)
    assert GUARD in states
    assert states[-1] == BOTH


CALLS = {
    "sendto": "each message to the kernel, the helper and the mock",
    "recvfrom": "during the wait for each answer",
    "connect": "each connection, including those for locks and for the route lookup",
}


@pytest.mark.parametrize("backend", first_quick(BACKENDS))
@pytest.mark.parametrize("call", CALLS)
def test_kill_at_a_system_call_leaves_a_repairable_state(cloud: Cloud, backend: str, call: str) -> None:
    """A start killed between any two kernel changes leaves no rules, the guard, or guard and redirect."""
    states = Starts(cloud, backend).kill_at_each(call)
    assert states, CALLS[call]
    print(f"{backend}: killed {len(states)} times at {call}: {sorted(set(states))}")  # noqa: T201  (figures, for -rP)


def test_kill_with_the_helper_leaves_a_repairable_state(cloud: Cloud, backend: str) -> None:
    """A kill of all processes, as of a container, leaves no rules, the guard, or guard and redirect."""
    starts = Starts(cloud, backend)
    delays = random.Random(169)  # noqa: S311  (delays, no secrets)
    states: list[str | None] = []
    for _ in range(RANDOM_KILLS):
        after = f"{delays.uniform(0.02, 0.25):.3f}"
        state = starts.start_and_kill("timeout", "--signal=KILL", after, *("unshare", "--pid", "--kill-child"))
        states.append(state)
    print(f"{backend}: {[(state, states.count(state)) for state in set(states)]}")  # noqa: T201  (figures, for -rP)


@pytest.mark.parametrize("backend", first_quick(BACKENDS))
def test_kill_of_remove_leaves_no_redirect_without_guard(cloud: Cloud, backend: str) -> None:
    """`imds-detourctl remove` deletes the redirect before the guard, so a kill leaves no redirect without guard."""
    starts = Starts(cloud, backend)
    remove = (CTL, "remove")
    order = [BOTH, GUARD, NOTHING]
    states: list[str] = []
    for number in _call_numbers(starts, "sendto", *remove):
        starts.clean()
        starts.start_and_check()
        done = cloud.app.run(*kill_at("sendto", number), *remove, check=False)
        assert done.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL), done
        states.append(starts.state())
        cloud.app.run(*remove)
        assert starts.state() == NOTHING
    assert states == sorted(states, key=order.index)
    assert not LONG or set(states) == set(order), states


@pytest.mark.slow
def test_kill_during_undo_leaves_no_redirect_without_guard(cloud: Cloud, backend: str) -> None:
    """A start whose probe fails deletes the redirect and keeps the guard, so a kill leaves no redirect without it."""
    starts = Starts(cloud, backend)
    numbers = _call_numbers(starts, "sendto", DETOUR, "true", **FAILING)
    states = [str(starts.start_and_kill(*kill_at("sendto", number), **FAILING)) for number in numbers]
    assert "None" not in states
    first_undo = states.index(BOTH) if BOTH in states else 0
    setup, undo = states[:first_undo], states[first_undo:]
    assert (set(setup) <= {NOTHING, GUARD}, undo) == (True, sorted(undo, key=[BOTH, GUARD].index))
    # A helper of legacy iptables guards while its parent works, so a later kill can still come before the guard.
    assert backend == "legacy" or setup == sorted(setup, key=[NOTHING, GUARD].index)
    # With legacy iptables, the last message may be the one that asks the helper to delete the redirect.
    assert not LONG or (first_undo and (undo[-1] == GUARD or backend == "legacy")), states


def _call_numbers(starts: Starts, call: str, *command: str, **changed: str) -> list[int]:
    """Return the numbers of the calls at which to kill: all with LONG=1, else some of the second half."""
    starts.clean()
    starts.start_and_check()
    if changed:
        starts.clean()
    environ = settings(starts.cloud, starts.backend, **changed)
    log = "/run/calls.log"
    starts.cloud.app.run(*strace(log=log, calls=[call]), *command, environ=environ, check=False)
    number = len(calls_made(starts.cloud.app.run("cat", log).stdout))
    assert number
    return list(range(1, number + 1) if LONG else range(number // 2, number, 4))


@pytest.mark.slow
def test_kill_with_two_ip_versions_leaves_no_redirect_without_guard(cloud: Cloud, backend: str) -> None:
    """A kill leaves no redirect without its guard in either IP version; the next start installs both."""
    starts = Starts(cloud, backend, MOCK_HOSTNAME=NAME)
    assert all(starts.complete[V6])
    assert starts.kill_at_each("sendto")


SWITCH = ("fchown", "setgroups", "setresgid", "setresuid", "prctl", "capset", "setuid")
"""System calls that switch from root to the app's user, in this order. imds-detour also makes two of them earlier."""


@pytest.mark.slow
@pytest.mark.parametrize("call", SWITCH if LONG else SWITCH[1::3])
def test_kill_during_the_user_switch_leaves_guard_and_redirect(cloud: Cloud, backend: str, call: str) -> None:
    """A kill during the switch to the app's user leaves guard and redirect; the app has not run."""
    assert set(Starts(cloud, backend, MOCK_USER="1:1").kill_at_each(call, 1)) == {BOTH}
