"""The judge detects every violation of the contract, in constructed ends and in a real network."""

import signal
import subprocess
from dataclasses import replace

import pytest

from tests.chaos.cases import Case
from tests.chaos.contract import LATE, Ended, Judge, violations
from tests.support.faults.lock import held_lock
from tests.support.hosts.ip_version import V4, V6
from tests.support.hosts.network import INSTANCE, METADATA, MOCK
from tests.support.judges import rules_listing

FAILED = Ended(125, "", "imds-detour: waiting: a (0.1 of 1 s)\nimds-detour: b; c\n", 1.2, limit=1.0)
REDIRECT = f"iptables -A IMDS_DETOUR -d {V4.metadata}/32 -p tcp -j DNAT --to-destination 10.88.0.3:1338\n"
GUARD, GUARD6 = (
    f"{command} -A OUTPUT -d {ip.metadata}/{bits} -j IMDS_DETOUR_GUARD\n{command} -A IMDS_DETOUR_GUARD -j REJECT\n"
    for command, ip, bits in (("iptables", V4, 32), ("ip6tables", V6, 128))
)
NFT_REDIRECT = (
    f"ip nat_output \t\tip daddr {V4.metadata} tcp dport 80 counter packets 0 bytes 0 dnat to 10.88.0.3:1338\n"
)
NFT_GUARD, NFT_GUARD6 = (
    f"{ip.nft} guard \t\tcounter packets 0 bytes 0 {how}\n"
    f"{ip.nft} guard_output \t\t{ip.nft} daddr {ip.metadata} counter packets 0 bytes 0 jump guard\n"
    for ip, how in ((V4, "reject"), (V6, "drop"))
)
INSTALLED = REDIRECT + GUARD + GUARD6
STARTED = Ended(0, f"app {INSTANCE}\n", "imds-detour: x -> y, verified IMDSv2 i-1; exec app\n", 99.0, left=INSTALLED)


@pytest.mark.parametrize(
    "end",
    [
        FAILED,
        replace(FAILED, left=GUARD + GUARD6 + NFT_GUARD + NFT_GUARD6),
        STARTED,
        replace(STARTED, left=NFT_GUARD + NFT_REDIRECT + NFT_GUARD6),
    ],
)
def test_judge_accepts_good_ends(end: Ended) -> None:
    """A failure with one line, and a verified start of any duration, keep the contract. A failure leaves the guard."""
    assert violations(end) == []


@pytest.mark.parametrize("status", [143, -signal.SIGTERM])
def test_judge_accepts_the_status_of_a_sent_signal(status: int) -> None:
    """The status of a signal is right if the case names the signal, and wrong otherwise."""
    end = replace(FAILED, status=status, err="")
    assert violations(end, Case(signals=(signal.SIGTERM,))) == []
    assert violations(end, Case(signals=(signal.SIGKILL,))) == [f"status {status}"]
    assert violations(end) == [f"status {status}"]


def killed_with(rules: str) -> Ended:
    """Return the end of a start that was killed and left these rules."""
    return replace(FAILED, status=137, left=rules)


BROKEN = {
    "another status": replace(FAILED, status=1),
    "a crash": replace(FAILED, status=-signal.SIGSEGV, err=""),
    "a crash, as a shell reports it": replace(FAILED, status=128 + signal.SIGABRT, err=""),
    "the app's status": replace(FAILED, status=0),
    "late": replace(FAILED, seconds=1.6),
    "the app ran and the start failed": replace(FAILED, out="app R\n"),
    "no line": replace(FAILED, err=""),
    "two final lines": replace(FAILED, err=FAILED.err + "imds-detour: d\n"),
    "a line after the final one": replace(FAILED, err=FAILED.err + "imds-detour: waiting: e (0.2 of 1 s)\n"),
    "a foreign line": replace(FAILED, err="malloc failed\n" + FAILED.err),
    "a traceback": replace(FAILED, err=f"Traceback (most recent call last):\n{FAILED.err}"),
    "a fault of imds-detour": replace(FAILED, err="imds-detour: unexpected KeyError: 1; please report it\n"),
    "something leaked": replace(FAILED, leaked=True),
    "a process is left": replace(FAILED, alive=("helper",)),
    "a redirect remains and no line says so": replace(FAILED, left=INSTALLED),
    "the same in nftables, and no line says so": replace(FAILED, left=NFT_GUARD + NFT_REDIRECT),
    "a route remains and no line says so": replace(FAILED, left=f"{GUARD}{V4.metadata} dev lo src {V4.app}\n"),
    "a redirect without a guard": killed_with(REDIRECT),
    "a redirect, and the other IP version's guard": killed_with(REDIRECT + GUARD6),
    "the same in nftables": killed_with(NFT_REDIRECT + NFT_GUARD6),
    "the same in nftables, and a guard without a rule": killed_with(NFT_REDIRECT + NFT_GUARD.splitlines()[1]),
    "the same in nftables, and a guard without a jump": killed_with(NFT_REDIRECT + NFT_GUARD.splitlines()[0]),
    "a redirect, and a guard without a rule": killed_with(f"{REDIRECT}{GUARD.splitlines()[0]}\n{GUARD6}"),
    "a redirect, and a guard without a jump": killed_with(f"{REDIRECT}{GUARD.splitlines()[1]}\n{GUARD6}"),
    "a redirect, and the guard of another address": killed_with(REDIRECT + GUARD.replace(V4.metadata, "169.254.170.2")),
    "started with the other IP version's guard": replace(STARTED, left=REDIRECT + GUARD6),
    "started unverified": replace(STARTED, err="imds-detour: x -> y, not verified; exec app\n"),
    "started, the real service answers": replace(STARTED, out="app R\n"),
    "started without a redirect": replace(STARTED, left=""),
}


@pytest.mark.parametrize("end", BROKEN.values(), ids=BROKEN.keys())
def test_judge_detects_a_violation(end: Ended) -> None:
    """Negative control: the judge reports every end that breaks the contract."""
    assert violations(end)


def test_judge_detects_a_leak(judge: Judge) -> None:
    """Negative control: a wrapper that does nothing lets the app reach the real service, and the judge reports it."""
    judge.clean()
    app = judge.cloud.app.run("curl", "-sS", "--http0.9", f"http://{METADATA}/", check=False)
    end = judge.ended(0, f"app {app.stdout}", "imds-detour: x, verified y; exec app\n", 0.1, 1.0)
    assert end.leaked
    assert "something reached the real service" in violations(end)


def test_judge_detects_remaining_rules_and_processes(judge: Judge) -> None:
    """Negative control: the judge reports rules and a process that remain after a failed start."""
    judge.clean()
    assert judge.start(MOCK_HOSTNAME=MOCK, MOCK_TIMEOUT="20").status == 0
    with judge.cloud.app.popen(
        "sh", "-c", "echo there; exec cat", stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        end = judge.ended(125, "", "imds-detour: a; b\n", 0.1, 1.0)
        process.kill()
    assert {"a process is left", "failed, and more than the guard remains that no line reports"} <= set(violations(end))
    judge.clean()
    assert judge.ended(125, "", "imds-detour: a; b\n", 0.1, 1.0).left == ""


FLUSH = {"legacy": "iptables-legacy -F IMDS_DETOUR_GUARD", "nft": "nft flush chain ip imds_detour guard_output"}


@pytest.mark.parametrize("backend", FLUSH)
def test_judge_detects_a_missing_guard_of_one_ip_version(judge: Judge, backend: str) -> None:
    """Negative control: the guard of the other IP version does not excuse a missing one."""
    judge.clean()
    end = judge.start(MOCK_HOSTNAME=MOCK, MOCK_BACKEND=backend, MOCK_TIMEOUT="20")
    assert violations(end) == []
    guarded = rules_listing.guarded(end.left)
    assert (rules_listing.redirected(end.left), {V4.metadata, V6.metadata} < guarded) == ({V4.metadata}, True)
    judge.cloud.app.run("sh", "-c", FLUSH[backend])
    end = judge.ended(end.status, end.out, end.err, end.seconds, end.limit)
    assert violations(end) == ["a redirect without a guard"]
    assert rules_listing.guarded(end.left) == {address for address in guarded if ":" in address}
    judge.clean()


def test_held_lock_ends_the_start_at_its_deadline(judge: Judge) -> None:
    """If an iptables command holds its lock beyond the deadline, the start fails in time and names it."""
    judge.clean()
    with held_lock(judge.cloud.app):
        wait = {"MOCK_HOSTNAME": V4.mock, "MOCK_BACKEND": "legacy"}

        def play(longer: float) -> Ended:
            end = judge.start(**wait, MOCK_TIMEOUT=f"{longer:g}")
            return replace(end, alive=())  # the holder is one of them

        end = judge.until_kept(play, Case(says="an iptables command holds the firewall's lock"))
        assert (end.status, rules_listing.redirected(end.left)) == (125, set())
    assert LATE not in violations(end, start_up=judge.start_up)
