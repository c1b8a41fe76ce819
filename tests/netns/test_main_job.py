"""A start from end to end: wait, redirect, verify, exec."""

from __future__ import annotations

from tests.support.hosts.network import APP, ID_URL, INSTANCE, METADATA, MOCK, NAME, PORT, Network

EXPECTED_RULES = f"""\
:IMDS_DETOUR -
-A OUTPUT -d {METADATA}/32 -m comment --comment imds-detour -j IMDS_DETOUR
-A IMDS_DETOUR -d {METADATA}/32 -p tcp -m tcp --dport 80 -m comment --comment imds-detour -j DNAT \
--to-destination {MOCK}:{PORT}
:IMDS_DETOUR_GUARD -
-A OUTPUT -d {METADATA}/32 -m comment --comment imds-detour -j IMDS_DETOUR_GUARD
-A IMDS_DETOUR_GUARD -p tcp -m comment --comment imds-detour -j REJECT --reject-with tcp-reset
-A IMDS_DETOUR_GUARD -m comment --comment imds-detour -j REJECT --reject-with icmp-port-unreachable"""


def test_client_reads_the_mocks_instance_id(ready: Network) -> None:
    """An unmodified client gets the mock's answer at the metadata address; stderr has one line of imds-detour."""
    done = ready.detour("curl", "-sS", "--fail", ID_URL)
    assert (done.returncode, done.stdout) == (0, INSTANCE)
    line = f"imds-detour: {METADATA}:80 -> {NAME} ({MOCK}:{PORT}), legacy iptables, verified IMDSv2 {INSTANCE}, "
    assert done.stderr.startswith(line)
    assert done.stderr.endswith(" ms; exec curl\n")
    assert done.stderr.count("\n") == 1


def test_start_installs_the_documented_rules(ready: Network) -> None:
    """A start installs two chains with one jump each, the exact port, and a comment on every rule."""
    assert ready.detour("true").returncode == 0
    assert sorted(ready.detour_rules().splitlines()) == sorted(EXPECTED_RULES.splitlines())


def test_imdsv2_client_reads_the_instance_id(network: Network) -> None:
    """With a mock that requires tokens, a client gets token and answer through the redirect."""
    network.start_dns()
    network.start_mock("--imdsv2", "required")
    assert f"verified IMDSv2 {INSTANCE}, " in network.success("true")
    script = (
        f'token=$(curl -sS --fail -X PUT -H "X-aws-ec2-metadata-token-ttl-seconds: 60" http://{METADATA}/latest/api/token)'
        f' && curl -sS --fail -H "X-aws-ec2-metadata-token: $token" {ID_URL}'
    )
    done = network.detour("sh", "-c", script)
    assert (done.returncode, done.stdout) == (0, INSTANCE)


def test_mock_sees_the_apps_address(network: Network) -> None:
    """The mock sees the app's source address, since the redirect only translates the destination."""
    network.start_dns()
    mock = network.start_mock()
    assert network.detour("curl", "-sS", "--fail", f"http://{METADATA}/latest/meta-data/hostname").returncode == 0
    mock.terminate()
    log, _ = mock.communicate()
    assert f"{APP} GET /latest/meta-data/hostname 200" in log
