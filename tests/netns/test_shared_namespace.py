"""Several starts in one network namespace, as with Compose's ``network_mode: service:...``, do not undo each other."""

import subprocess

from tests.support.hosts.network import ID_URL, INSTANCE, METADATA, MOCK, Network, read_until
from tests.support.hosts.sidecars import Sidecars

ABSENT = "not_there_yet"


def waiting_start(network: Network, timeout: str) -> subprocess.Popen[str]:
    """Start imds-detour without a mock, and return when it waits, with its guard installed."""
    waiting = network.popen_detour("true", MOCK_HOSTNAME=ABSENT, MOCK_TIMEOUT=timeout)
    assert ABSENT in read_until(waiting)
    return waiting


def test_failed_start_keeps_the_rules_of_a_running_app(ready: Network) -> None:
    """B waits, A succeeds, and B fails: A's rules remain. Control: a failed start alone leaves its guard only."""
    with waiting_start(ready, timeout="1") as failing:
        failing.communicate()
    assert (ready.detour_redirects(), METADATA in ready.guarded()) == ("", True)
    with waiting_start(ready, timeout="2") as failing:
        assert "IMDS_DETOUR_GUARD" in ready.detour_rules()
        assert ready.detour("true").returncode == 0
        installed = ready.detour_rules()
        failing.communicate()
        assert failing.returncode == 125
    assert (ready.detour_rules(), ready.app.run("curl", "-sS", ID_URL).stdout) == (installed, INSTANCE)


def test_failed_verification_restores_the_earlier_redirect(ready: Network) -> None:
    """A redirects to the mock, and B replaces the target and fails its verification: A's target is back."""
    ready.start_mock("--quiet", port="1339")
    assert ready.detour("true").returncode == 0
    earlier = ready.detour_rules()
    ready.divert(MOCK, "1338")  # B's redirect is never used, and its verification fails
    ready.failure("true", MOCK_PORT="1339")
    assert ready.detour_rules() == earlier


def test_guard_off_keeps_an_earlier_guard(ready: Network, backend: str) -> None:
    """MOCK_GUARD=off keeps the guard of an earlier start, which its app may need. Control: alone, it installs none."""
    assert ready.detour("true", MOCK_BACKEND=backend, MOCK_GUARD="off").returncode == 0
    assert (ready.detour_redirects().count(f"{MOCK}:"), ready.guarded()) == (1, set())
    assert ready.detour("true", MOCK_BACKEND=backend).returncode == 0
    guarded = ready.guarded()
    assert {METADATA, "fd00:ec2::254"} < guarded
    assert ready.detour("true", MOCK_BACKEND=backend, MOCK_GUARD="off").returncode == 0
    assert (ready.detour_redirects().count(f"{MOCK}:"), ready.guarded()) == (1, guarded)


def test_end_of_a_sidecar_keeps_the_route_of_a_start_by_the_other_firewall(mocked: Network, sidecars: Sidecars) -> None:
    """Without a default route, an app by legacy iptables keeps its route when a sidecar by nftables ends."""
    mocked.app.ip("route", "del", "default")
    mocked.success("true", MOCK_HOSTNAME=MOCK, MOCK_BACKEND="legacy")
    assert sidecars.start(MOCK_HOSTNAME=MOCK, MOCK_BACKEND="nft").stop() == 0
    assert mocked.app.run("curl", "-sS", ID_URL).stdout == INSTANCE
    assert mocked.ctl("remove").returncode == 0
    assert mocked.detour_routes() == ""  # the control: the route was imds-detour's
