"""The main job, end to end: wait, redirect, verify, exec."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.hosts.network import APP, ID_URL, INSTANCE, METADATA, MOCK, NAME, PORT

if TYPE_CHECKING:
    from tests.support.hosts.network import Network

OURS = f"""\
:IMDS_DETOUR -
-A OUTPUT -d {METADATA}/32 -m comment --comment imds-detour -j IMDS_DETOUR
-A IMDS_DETOUR -d {METADATA}/32 -p tcp -m tcp --dport 80 -m comment --comment imds-detour -j DNAT \
--to-destination {MOCK}:{PORT}
:IMDS_DETOUR_GUARD -
-A OUTPUT -d {METADATA}/32 -m comment --comment imds-detour -j IMDS_DETOUR_GUARD
-A IMDS_DETOUR_GUARD -p tcp -m comment --comment imds-detour -j REJECT --reject-with tcp-reset
-A IMDS_DETOUR_GUARD -m comment --comment imds-detour -j REJECT --reject-with icmp-port-unreachable"""


def test_an_unmodified_client_reads_the_mocks_instance_id(network: Network) -> None:
    """The app asks the metadata address and gets the mock's answer; stderr says one line, stdout is the app's."""
    network.start_dns()
    network.start_mock()
    done = network.detour("curl", "-sS", "--fail", ID_URL)
    assert (done.returncode, done.stdout) == (0, INSTANCE)
    line = f"imds-detour: {METADATA}:80 -> {NAME} ({MOCK}:{PORT}), legacy iptables, verified IMDSv2 {INSTANCE}, "
    assert done.stderr.startswith(line)
    assert done.stderr.endswith(" ms; exec curl\n")
    assert done.stderr.count("\n") == 1


def test_the_rules_in_the_kernel_are_the_documented_ones(network: Network) -> None:
    """Own chains, one jump each, exact port, a comment on every rule."""
    network.start_dns()
    network.start_mock()
    assert network.detour("true").returncode == 0
    assert sorted(network.ours().splitlines()) == sorted(OURS.splitlines())


def test_running_twice_leaves_one_copy(network: Network) -> None:
    """A second start in the same namespace finds its rules there and changes nothing."""
    network.start_dns()
    network.start_mock()
    assert network.detour("true").returncode == 0
    once = network.rules()
    assert network.detour("true").returncode == 0
    assert network.rules() == once


def test_a_client_that_speaks_imdsv2_is_served(network: Network) -> None:
    """With a mock that requires tokens, token and answer both come through the redirect."""
    network.start_dns()
    network.start_mock("--imdsv2", "required")
    script = (
        f'token=$(curl -sS --fail -X PUT -H "X-aws-ec2-metadata-token-ttl-seconds: 60" http://{METADATA}/latest/api/token)'
        f' && curl -sS --fail -H "X-aws-ec2-metadata-token: $token" {ID_URL}'
    )
    done = network.detour("sh", "-c", script)
    assert (done.returncode, done.stdout) == (0, INSTANCE)


def test_the_mock_sees_the_apps_own_address(network: Network) -> None:
    """The redirect is a translation of the destination alone: no proxy, no other source."""
    network.start_dns()
    mock = network.start_mock()
    assert network.detour("curl", "-sS", "--fail", f"http://{METADATA}/latest/meta-data/hostname").returncode == 0
    mock.terminate()
    log, _ = mock.communicate()
    assert f"{APP} GET /latest/meta-data/hostname 200" in log
