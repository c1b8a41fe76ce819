"""A kernel with nf_tables and without an expression that the rules need."""

import pytest

from tests.netns.test_nft import OURS, ruleset
from tests.support.faults import nft_transactions
from tests.support.hosts.network import Network

pytestmark = pytest.mark.usefixtures("chosen")


def test_kernel_without_nat_fails_the_start(mocked: Network) -> None:
    """When the kernel refuses the redirect, the start exits with 125, names the modules and leaves the guard only."""
    _, redirect = nft_transactions.places(mocked)
    done = nft_transactions.refused(mocked, str(redirect), "echo", "started")
    assert (done.returncode, done.stdout) == (125, "")
    assert ("dnat" in ruleset(mocked), "reject" in ruleset(mocked)) == (False, True)
    assert done.stderr == (
        "imds-detour: nftables refuses imds-detour's rules: the kernel has no nat for it (No such file or directory);"
        " load it on the host: `modprobe -a nft_chain_nat nft_nat`; more: `imds-detourctl doctor`\n"
    )


def test_refused_roll_back_is_reported(mocked: Network) -> None:
    """When the kernel refuses the redirect and then its roll-back, the start fails and the message has both reasons."""
    _, redirect = nft_transactions.places(mocked)
    done = nft_transactions.refused(mocked, f"{redirect}+", "echo", "started")
    assert (done.returncode, done.stdout) == (125, "")
    last = done.stderr.splitlines()[-1]
    refusal = "nftables refuses imds-detour's rules: the kernel has no"
    assert f"{refusal} nat for it" in last
    assert f"; the change could not be undone: {refusal} reject for it" in last
    assert "dnat" not in ruleset(mocked)


def test_kernel_that_refuses_every_guard_fails_the_start(mocked: Network) -> None:
    """When the kernel can neither reject nor drop, the start exits with 125 and one line."""
    guard, _ = nft_transactions.places(mocked)
    done = nft_transactions.refused(mocked, f"{guard}+", "echo", "started")
    assert (done.returncode, done.stdout, ruleset(mocked)) == (125, "", "")
    assert done.stderr.count("\n") == 1, done.stderr
    assert "the kernel has no reject for it (No such file or directory); load it on the host: `modprobe " in done.stderr


def test_complete_kernel_starts_the_app(mocked: Network) -> None:
    """Control: under the same tracer, without a failing call, the app starts."""
    assert len(nft_transactions.places(mocked)) == 2
    assert (nft_transactions.refused(mocked, "1000", "echo", "started").stdout, ruleset(mocked)) == ("started\n", OURS)
