"""A kernel with nf_tables and without a part of it that our rules need."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.netns.test_nft import OURS, ruleset
from tests.support.faults import nft_transactions
from tests.support.hosts.network import METADATA

if TYPE_CHECKING:
    from tests.support.hosts.network import Network


def test_a_kernel_without_nat_names_it(network: Network) -> None:
    """The guard can be made and the redirect cannot: 125, one line with the modules, and nothing stands."""
    network.start_mock()
    _, redirect = nft_transactions.places(network)
    done = nft_transactions.refused(network, str(redirect), "echo", "started")
    assert (done.returncode, done.stdout, ruleset(network)) == (125, "", "")
    assert done.stderr == (
        "imds-detour: nftables refuses our rules: the kernel has no nat for it (No such file or directory);"
        " load it on the host: `modprobe -a nft_chain_nat nft_nat`\n"
    )


def test_a_kernel_without_reject_gets_a_guard_that_drops(network: Network) -> None:
    """The app starts, and the line before says what is missing."""
    network.start_mock()
    guard, _ = nft_transactions.places(network)
    done = nft_transactions.refused(network, str(guard), "echo", "started")
    assert (done.returncode, done.stdout) == (0, "started\n"), done
    assert done.stderr.splitlines()[0] == (
        "imds-detour: the guard drops instead of rejecting, so that SDKs wait for a timeout:"
        " nftables refuses our rules: the kernel has no reject for it (No such file or directory)"
    )
    assert f"ip daddr {METADATA} counter packets N bytes N drop" in ruleset(network)
    assert "reject" not in ruleset(network)


def test_a_kernel_that_takes_no_guard_at_all_starts_no_app(network: Network) -> None:
    """Neither rejecting nor dropping: 125, and one line."""
    network.start_mock()
    guard, _ = nft_transactions.places(network)
    done = nft_transactions.refused(network, f"{guard}+", "echo", "started")
    assert (done.returncode, done.stdout, ruleset(network)) == (125, "", "")
    assert done.stderr.count("\n") == 1, done.stderr
    assert "the kernel has no reject for it (No such file or directory); load it on the host: `modprobe " in done.stderr


def test_a_kernel_that_lacks_nothing_starts_it(network: Network) -> None:
    """The control to the three above: under the same tracer, with the call behind the last one."""
    network.start_mock()
    assert len(nft_transactions.places(network)) == 2
    assert nft_transactions.refused(network, "1000", "echo", "started").stdout == "started\n"
    assert ruleset(network) == OURS
