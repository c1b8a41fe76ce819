"""The main job, end to end: wait, redirect, verify, exec."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.hosts.world import APP, ID_URL, INSTANCE, METADATA, MOCK, NAME, PORT

if TYPE_CHECKING:
    from tests.support.hosts.world import World

OURS = f"""\
:IMDS_DETOUR -
-A OUTPUT -d {METADATA}/32 -m comment --comment imds-detour -j IMDS_DETOUR
-A IMDS_DETOUR -d {METADATA}/32 -p tcp -m tcp --dport 80 -m comment --comment imds-detour -j DNAT \
--to-destination {MOCK}:{PORT}
:IMDS_DETOUR_GUARD -
-A OUTPUT -d {METADATA}/32 -m comment --comment imds-detour -j IMDS_DETOUR_GUARD
-A IMDS_DETOUR_GUARD -p tcp -m comment --comment imds-detour -j REJECT --reject-with tcp-reset
-A IMDS_DETOUR_GUARD -m comment --comment imds-detour -j REJECT --reject-with icmp-port-unreachable"""


def test_an_unmodified_client_reads_the_mocks_instance_id(world: World) -> None:
    """The app asks the metadata address and gets the mock's answer; stderr says one line, stdout is the app's."""
    world.start_dns()
    world.start_mock()
    done = world.detour("curl", "-sS", "--fail", ID_URL)
    assert (done.returncode, done.stdout) == (0, INSTANCE)
    line = f"imds-detour: {METADATA}:80 -> {NAME} ({MOCK}:{PORT}), legacy iptables, verified IMDSv2 {INSTANCE}, "
    assert done.stderr.startswith(line)
    assert done.stderr.endswith(" ms; exec curl\n")
    assert done.stderr.count("\n") == 1


def test_the_rules_in_the_kernel_are_the_documented_ones(world: World) -> None:
    """Own chains, one jump each, exact port, a comment on every rule."""
    world.start_dns()
    world.start_mock()
    assert world.detour("true").returncode == 0
    assert sorted(world.ours().splitlines()) == sorted(OURS.splitlines())


def test_running_twice_leaves_one_copy(world: World) -> None:
    """A second start in the same namespace finds its rules there and changes nothing."""
    world.start_dns()
    world.start_mock()
    assert world.detour("true").returncode == 0
    once = world.rules()
    assert world.detour("true").returncode == 0
    assert world.rules() == once


def test_a_client_that_speaks_imdsv2_is_served(world: World) -> None:
    """With a mock that requires tokens, token and answer both come through the redirect."""
    world.start_dns()
    world.start_mock("--imdsv2", "required")
    script = (
        f'token=$(curl -sS --fail -X PUT -H "X-aws-ec2-metadata-token-ttl-seconds: 60" http://{METADATA}/latest/api/token)'
        f' && curl -sS --fail -H "X-aws-ec2-metadata-token: $token" {ID_URL}'
    )
    done = world.detour("sh", "-c", script)
    assert (done.returncode, done.stdout) == (0, INSTANCE)


def test_the_mock_sees_the_apps_own_address(world: World) -> None:
    """The redirect is a translation of the destination alone: no proxy, no other source."""
    world.start_dns()
    mock = world.start_mock()
    assert world.detour("curl", "-sS", "--fail", f"http://{METADATA}/latest/meta-data/hostname").returncode == 0
    mock.terminate()
    log, _ = mock.communicate()
    assert f"{APP} GET /latest/meta-data/hostname 200" in log
