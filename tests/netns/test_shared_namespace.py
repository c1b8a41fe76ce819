"""Several starts in one network namespace, as with Compose's ``network_mode: service:...``: none undoes another's."""

from __future__ import annotations

import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.hosts.cloud import BACKENDS
from tests.support.hosts.network import CTL, DETOUR, ID_URL, INSTANCE, METADATA, MOCK, NAME
from tests.support.judges import rules_listing

if TYPE_CHECKING:
    from tests.support.hosts.network import Network

ABSENT = "not_there_yet"


def waiting_start(network: Network, timeout: str) -> subprocess.Popen[str]:
    """Start one whose mock is not there, and return when it waits: its guard stands by then."""
    environ = network.settings(MOCK_HOSTNAME=ABSENT, MOCK_TIMEOUT=timeout)
    waiting = network.app.popen(DETOUR, "true", environ=environ, stderr=subprocess.PIPE)
    assert waiting.stderr is not None
    assert ABSENT in waiting.stderr.readline()
    return waiting


def test_a_start_that_fails_leaves_a_running_apps_redirect_and_guard(network: Network) -> None:
    """B waits, A succeeds behind B's guard, B gives up: A's app is still behind both."""
    network.start_dns()
    network.start_mock()
    with waiting_start(network, timeout="2") as failing:
        assert "IMDS_DETOUR_GUARD" in network.ours()
        assert network.detour("true").returncode == 0
        behind_both = network.ours()
        failing.communicate()
        assert failing.returncode == 125
    assert network.ours() == behind_both
    assert network.app.run("curl", "-sS", ID_URL).stdout == INSTANCE


def test_a_start_that_fails_alone_leaves_nothing(network: Network) -> None:
    """The control to the above: the guard of a failed start does go when nobody else lives behind it."""
    network.start_dns()
    with waiting_start(network, timeout="1") as failing:
        failing.communicate()
    assert network.ours() == ""


def test_a_start_whose_proof_fails_puts_the_earlier_redirect_back(network: Network) -> None:
    """A redirects to the mock; B replaces the target, cannot prove its own, and A's target is there again."""
    network.start_dns()
    network.start_mock()
    network.start(network.mock, CTL, "mock", "--listen", "0.0.0.0:1339", "--quiet")
    assert network.detour("true").returncode == 0
    earlier = network.ours()
    # Somebody's rule takes the address before ours: B's redirect is never used, and its proof fails.
    network.app.run("nft", "add table ip foreign")
    network.app.run("nft", "add chain ip foreign out { type nat hook output priority -150; }")
    network.app.run("nft", f"add rule ip foreign out ip daddr 169.254.169.254 tcp dport 80 dnat to {MOCK}:1338")
    failed = network.detour("true", MOCK_PORT="1339")
    assert failed.returncode == 125
    assert network.ours() == earlier


@pytest.mark.parametrize("backend", BACKENDS)
def test_turning_the_guard_off_takes_an_earlier_one_away(network: Network, backend: str) -> None:
    """MOCK_GUARD=off means that none stands, not that none is added."""
    network.start_dns()
    network.start_mock()
    assert network.detour("true", MOCK_BACKEND=backend).returncode == 0
    listed = network.app.run("sh", "-c", rules_listing.LISTED).stdout
    assert rules_listing.guarded(listed) == {METADATA, "fd00:ec2::254"}
    assert network.detour("true", MOCK_BACKEND=backend, MOCK_GUARD="off").returncode == 0
    listed = network.app.run("sh", "-c", rules_listing.LISTED).stdout
    assert (rules_listing.redirected(listed), rules_listing.guarded(listed)) == ({METADATA}, set())


@pytest.mark.parametrize("timeout", ["0.5"])
def test_a_lock_that_is_never_released_is_waited_for_no_longer_than_the_deadline(
    network: Network, timeout: str
) -> None:
    """Another writer holds the xtables lock: exit 125 by the deadline, and one line says who it was."""
    network.start_dns(f"{NAME}={MOCK}")
    network.start_mock()
    holder = network.start(network.app, "flock", "/run/xtables.lock", "sh", "-c", "echo held; exec sleep 60")
    begun = time.monotonic()
    done = network.detour("true", MOCK_TIMEOUT=timeout)
    assert time.monotonic() - begun < float(timeout) + 0.5
    assert done.returncode == 125
    assert "an iptables command holds the firewall's lock" in done.stderr
    holder.kill()
    holder.wait()
