"""imds-detourctl at the limit on processes: legacy iptables has no helper, and nftables needs none."""

import json

import pytest

from tests.support.faults.seccomp import kernel_without
from tests.support.hosts.network import CTL, INSTANCE, METADATA, METADATA6, MOCK, PORT, Network

WITHOUT_PROCESSES = kernel_without("processes")
NO_HELPER = "cannot start the firewall helper: resource temporarily unavailable"


@pytest.mark.slow
def test_nftables_rules_are_listed_checked_and_removed_without_a_helper(ready: Network) -> None:
    """Without a helper, status, check and remove work on nftables, and status and remove name the reason."""
    assert ready.detour("true", MOCK_BACKEND="nft").returncode == 0
    status = ready.ctl("status", "--json", prefix=WITHOUT_PROCESSES)
    facts = json.loads(status.stdout)
    assert (status.returncode, facts["redirects"][0]["backend"]) == (0, "nftables")
    assert facts["unseen"] == {"legacy iptables": NO_HELPER}
    check = ready.ctl("check", prefix=WITHOUT_PROCESSES)
    assert (check.returncode, check.stderr) == (0, "")
    assert check.stdout.endswith(f"verified IMDSv2 {INSTANCE}, by the rule\n")
    removed = ready.ctl("remove", prefix=WITHOUT_PROCESSES)
    assert (removed.returncode, removed.stderr) == (0, f"legacy iptables cannot be read: {NO_HELPER}\n")
    assert ready.app.run(CTL, "status", check=False).returncode == 1


def test_remove_fails_when_a_table_that_it_cannot_read_may_have_rules(ready: Network) -> None:
    """Without a helper, remove exits with 125 while a legacy table exists, and leaves nftables' guard of IPv6."""
    assert ready.detour("true", MOCK_BACKEND="legacy").returncode == 0
    removed = ready.ctl("remove", prefix=WITHOUT_PROCESSES)
    assert (removed.returncode, removed.stdout) == (125, "")
    assert f"legacy iptables cannot be read: {NO_HELPER}; it may hold rules of imds-detour" in removed.stderr
    assert "DNAT" in ready.detour_rules()
    assert METADATA6 in ready.app.run("nft", "list", "ruleset").stdout
    assert ready.app.run(CTL, "remove").returncode == 0  # the control: with a helper, the rules are removed


def test_remove_succeeds_on_a_kernel_without_nftables(ready: Network) -> None:
    """A firewall that the kernel lacks has no rules, so remove reports nothing to remove."""
    absent = ready.ctl("remove", prefix=kernel_without("nftables"))
    assert (absent.returncode, absent.stdout) == (0, "nothing to remove\n")


def test_legacy_rules_are_not_reported_missing_without_a_helper(ready: Network) -> None:
    """Without a helper, check cannot read legacy rules, so it compares the answers."""
    assert ready.detour("true", MOCK_BACKEND="legacy").returncode == 0
    check = ready.ctl("check", prefix=WITHOUT_PROCESSES)
    assert (check.returncode, check.stderr) == (0, "")
    assert f"{METADATA}:80 -> mock_metadata ({MOCK}:{PORT}), verified" in check.stdout
    assert check.stdout.endswith("by comparison alone: the rule cannot be seen from here\n")


def test_doctor_without_a_helper_agrees_with_a_start(ready: Network) -> None:
    """With auto, doctor and a start use nftables. With MOCK_BACKEND=legacy, both fail for the same reason."""
    auto = ready.ctl("doctor", "--all", prefix=WITHOUT_PROCESSES)
    assert (auto.returncode, auto.stderr) == (0, "")
    assert f"\nok    {'libraries':27}{NO_HELPER}; nftables takes its place\n" in auto.stdout
    legacy = json.loads(ready.ctl("doctor", "--json", prefix=WITHOUT_PROCESSES, MOCK_BACKEND="legacy").stdout)
    failed = [finding for finding in legacy["findings"] if finding["state"] == "fail"]
    assert [(finding["name"], finding["seen"]) for finding in failed] == [("libraries", NO_HELPER)]
    for backend, status in (("auto", 0), ("legacy", 125)):
        start = ready.detour("true", prefix=WITHOUT_PROCESSES, MOCK_BACKEND=backend)
        assert (start.returncode, NO_HELPER in start.stderr) == (status, bool(status)), start.stderr


def test_status_without_a_helper_and_nftables_fails(ready: Network) -> None:
    """Control: without both firewalls, status exits with 125 and one line, the reason of nftables."""
    done = ready.ctl("status", prefix=(*WITHOUT_PROCESSES, *kernel_without("nftables")))
    assert (done.returncode, done.stderr.count("\n")) == (125, 1)
    assert "nftables cannot be used here: the kernel has none" in done.stderr
