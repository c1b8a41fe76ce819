"""A kernel with nf_tables and without a part of it that our rules need."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.netns.test_nft import OURS, ruleset
from tests.support.faults import batches
from tests.support.hosts.world import METADATA

if TYPE_CHECKING:
    from tests.support.hosts.world import World


def test_a_kernel_without_nat_names_it(world: World) -> None:
    """The guard can be made and the redirect cannot: 125, one line with the modules, and nothing stands."""
    world.start_mock()
    _, redirect = batches.places(world)
    done = batches.refused(world, str(redirect), "echo", "started")
    assert (done.returncode, done.stdout, ruleset(world)) == (125, "", "")
    assert done.stderr == (
        "imds-detour: nftables refuses our rules: the kernel has no nat for it (No such file or directory);"
        " load it on the host: `modprobe -a nft_chain_nat nft_nat`\n"
    )


def test_a_kernel_without_reject_gets_a_guard_that_drops(world: World) -> None:
    """The app starts, and the line before says what is missing."""
    world.start_mock()
    guard, _ = batches.places(world)
    done = batches.refused(world, str(guard), "echo", "started")
    assert (done.returncode, done.stdout) == (0, "started\n"), done
    assert done.stderr.splitlines()[0] == (
        "imds-detour: the guard drops instead of rejecting, so that SDKs wait for a timeout:"
        " nftables refuses our rules: the kernel has no reject for it (No such file or directory)"
    )
    assert f"ip daddr {METADATA} counter packets N bytes N drop" in ruleset(world)
    assert "reject" not in ruleset(world)


def test_a_kernel_that_takes_no_guard_at_all_starts_no_app(world: World) -> None:
    """Neither rejecting nor dropping: 125, and one line."""
    world.start_mock()
    guard, _ = batches.places(world)
    done = batches.refused(world, f"{guard}+", "echo", "started")
    assert (done.returncode, done.stdout, ruleset(world)) == (125, "", "")
    assert done.stderr.count("\n") == 1, done.stderr
    assert "the kernel has no reject for it (No such file or directory); load it on the host: `modprobe " in done.stderr


def test_a_kernel_that_lacks_nothing_starts_it(world: World) -> None:
    """The control to the three above: under the same tracer, with the call behind the last one."""
    world.start_mock()
    assert len(batches.places(world)) == 2
    assert batches.refused(world, "1000", "echo", "started").stdout == "started\n"
    assert ruleset(world) == OURS
