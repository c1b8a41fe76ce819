"""A start from end to end: wait, redirect, verify, exec."""

from tests.netns.test_rules import GUARD, REDIRECT
from tests.support.hosts.network import APP, ID_URL, INSTANCE, METADATA, MOCK, NAME, PORT, Network, output


def test_client_reads_the_mocks_instance_id(network: Network) -> None:
    """A client gets the mock's answer by the documented rules, the log has one line, and the mock sees its address."""
    network.start_dns()
    mock = network.start_mock()
    stderr = network.success("curl", "-sS", "--fail", ID_URL, stdout=INSTANCE, MOCK_GUARD="chosen")
    line = f"imds-detour: {METADATA}:80 -> {NAME} ({MOCK}:{PORT}), legacy iptables, verified IMDSv2 {INSTANCE}, "
    assert stderr.startswith(line)
    assert stderr.endswith(" ms; exec curl\n")
    assert stderr.count("\n") == 1
    assert sorted(network.detour_rules().splitlines()) == sorted(f"{REDIRECT}\n{GUARD}".splitlines())
    # Two requests of the probe, a direct one and one through the redirect, and that of the client.
    assert output(mock).count(f"{APP} GET /latest/meta-data/instance-id 200") == 3


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
