"""Several starts in one network namespace, as with Compose's ``network_mode: service:...``, do not undo each other."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.hosts.cloud import BACKENDS
from tests.support.hosts.network import CTL, DETOUR, ID_URL, INSTANCE, METADATA, MOCK
from tests.support.judges import rules_listing

if TYPE_CHECKING:
    from tests.support.hosts.network import Network

ABSENT = "not_there_yet"


def waiting_start(network: Network, timeout: str) -> subprocess.Popen[str]:
    """Start imds-detour without a mock, and return when it waits, with its guard installed."""
    environ = network.settings(MOCK_HOSTNAME=ABSENT, MOCK_TIMEOUT=timeout)
    waiting = network.app.popen(DETOUR, "true", environ=environ, stderr=subprocess.PIPE)
    assert waiting.stderr is not None
    assert ABSENT in waiting.stderr.readline()
    return waiting


def test_a_failed_start_keeps_the_rules_of_a_running_app(network: Network) -> None:
    """B waits, A succeeds, and B fails: A's redirect and guard remain."""
    network.start_dns()
    network.start_mock()
    with waiting_start(network, timeout="2") as failing:
        assert "IMDS_DETOUR_GUARD" in network.detour_rules()
        assert network.detour("true").returncode == 0
        installed = network.detour_rules()
        failing.communicate()
        assert failing.returncode == 125
    assert network.detour_rules() == installed
    assert network.app.run("curl", "-sS", ID_URL).stdout == INSTANCE


def test_a_failed_start_alone_removes_its_guard(network: Network) -> None:
    """Negative control: if no other start uses its guard, a failed start removes it."""
    network.start_dns()
    with waiting_start(network, timeout="1") as failing:
        failing.communicate()
    assert network.detour_rules() == ""


def test_a_failed_verification_restores_the_earlier_redirect(network: Network) -> None:
    """A redirects to the mock, and B replaces the target and fails its verification: A's target is back."""
    network.start_dns()
    network.start_mock()
    network.start(network.mock, CTL, "mock", "--listen", "0.0.0.0:1339", "--quiet")
    assert network.detour("true").returncode == 0
    earlier = network.detour_rules()
    # A foreign rule redirects the address first: B's redirect is never used, and its verification fails.
    network.app.run("nft", "add table ip foreign")
    network.app.run("nft", "add chain ip foreign out { type nat hook output priority -150; }")
    network.app.run("nft", f"add rule ip foreign out ip daddr 169.254.169.254 tcp dport 80 dnat to {MOCK}:1338")
    failed = network.detour("true", MOCK_PORT="1339")
    assert failed.returncode == 125
    assert network.detour_rules() == earlier


@pytest.mark.parametrize("backend", BACKENDS)
def test_guard_off_removes_an_earlier_guard(network: Network, backend: str) -> None:
    """MOCK_GUARD=off removes the guard of an earlier start."""
    network.start_dns()
    network.start_mock()
    assert network.detour("true", MOCK_BACKEND=backend).returncode == 0
    listed = network.app.run("sh", "-c", rules_listing.LISTED).stdout
    assert rules_listing.guarded(listed) == {METADATA, "fd00:ec2::254"}
    assert network.detour("true", MOCK_BACKEND=backend, MOCK_GUARD="off").returncode == 0
    listed = network.app.run("sh", "-c", rules_listing.LISTED).stdout
    assert (rules_listing.redirected(listed), rules_listing.guarded(listed)) == ({METADATA}, set())
