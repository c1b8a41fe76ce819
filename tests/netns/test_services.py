"""Several services of clouds at once: each is redirected and verified, by host name too if SDKs use one."""

import pytest

from imds_detour.config.presets import PRESETS
from tests.support.hosts.network import ID_URL, INSTANCE, METADATA, MOCK, NAME, PORT, Network, output, read_line

pytestmark = pytest.mark.usefixtures("by_address")
CREDENTIALS = '{"AccessKeyId": "MOCKID", "SecretAccessKey": "mock-secret", "Token": "mock-token"}'
GET = "curl -sS --max-time 5"


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_redirected_and_verified(mocked: Network, preset: str, backend: str) -> None:
    """The mock serves every preset at one port, and the app reaches it at the cloud's address."""
    endpoint = PRESETS[preset].endpoints[0]
    show = f"{GET} -o /dev/null -w %{{http_code}} http://{endpoint}/".split()
    done = mocked.detour(*show, MOCK_ENDPOINTS=preset, MOCK_BACKEND=backend)
    assert done.returncode == 0, done.stderr
    assert f"{endpoint} -> {MOCK}:{PORT}, " in done.stderr
    assert f"verified {'IMDSv2' if preset == 'aws' else preset} " in done.stderr
    assert done.stdout in ("200", "404", "401", "403", "400"), "a server answered"


def test_each_service_can_have_its_own_mock(network: Network, backend: str) -> None:
    """Each service's address is redirected to its own mock."""
    network.start_dns(f"mock_metadata={MOCK}+creds={MOCK}")
    network.start_mock()
    network.start_faulty(f"GET=body:{CREDENTIALS}", port="8081")
    network.wanted = {"MOCK_ENDPOINTS": "aws,ecs=creds:8081", "MOCK_BACKEND": backend}
    stderr = network.success(*GET.split(), "http://169.254.170.2/creds", ID_URL, stdout=CREDENTIALS + INSTANCE)
    assert f"{METADATA}:80 -> mock_metadata ({MOCK}:{PORT}), 169.254.170.2:80 -> creds ({MOCK}:8081), " in stderr
    assert f"verified IMDSv2 {INSTANCE}, ecs credentials, " in stderr
    assert "mock-secret" not in stderr


def test_debug_output_has_no_secret(network: Network) -> None:
    """MOCK_LOG=debug shows requests, queries and rules, without tokens and keys."""
    network.start_dns()
    mock = network.start_faulty("GET=ok", "PUT=body:AQAEAsession==")
    network.start_faulty(f"GET=body:{CREDENTIALS}", port="8081")
    show = f"{GET} http://169.254.170.2/creds"
    endpoints = f"aws,ecs={MOCK}:8081"
    done = network.detour(*show.split(), MOCK_HOSTNAME=NAME, MOCK_ENDPOINTS=endpoints, MOCK_LOG="debug")
    assert done.returncode == 0, done.stderr
    assert "PUT /latest/api/token at " in done.stderr
    assert "rule: nat -A " in done.stderr
    assert f"mock_metadata is at {MOCK}" in done.stderr
    secrets = ("MOCKID", "mock-secret", "mock-token")
    for secret in (*secrets, "AQAEA"):
        assert secret not in done.stderr
    # The controls: the app received the keys, and the probe sent the token.
    assert all(secret in done.stdout for secret in secrets)
    assert "GET /latest/meta-data/instance-id token=b'AQAEAsession=='" in output(mock)


def test_debug_output_shows_each_dns_query(network: Network) -> None:
    """If the system resolver fails, the servers are asked in turn, and MOCK_LOG=debug shows their answers."""
    network.start_dns("SERVFAIL*6", f"mock_metadata={MOCK}")
    network.start_mock()
    stderr = network.success("true", MOCK_HOSTNAME=NAME, MOCK_LOG="debug")
    assert f"DNS {MOCK}: A mock_metadata: answers SERVFAIL" in stderr


def test_two_services_at_one_address_share_a_mock(mocked: Network) -> None:
    """Services at one address share a rule and a mock, and each is verified."""
    stderr = mocked.success("true", MOCK_ENDPOINTS="aws,gcp,azure")
    assert (stderr.count("->"), mocked.detour_rules().count("DNAT")) == (1, 1)
    assert "verified IMDSv2 i-" in stderr
    assert ", gcp " in stderr


def test_custom_address_accepts_any_reply(network: Network) -> None:
    """For a custom address any reply is right; replies are compared, and the counter of the rule counts."""
    network.start_faulty("GET=404", port="8081")
    show = f"{GET} http://192.0.2.7:8000/x".split()
    network.success(*show, stdout="i-from-a-bad-status", MOCK_ENDPOINTS=f"192.0.2.7:8000={MOCK}:8081")
    closed = network.app.run(*f"{GET} http://192.0.2.7:8001/".split(), check=False)
    assert closed.returncode == 7, "another port of that address is refused by the guard"


def test_mock_without_googles_header_gives_a_warning(network: Network) -> None:
    """A server without the header Metadata-Flavor is used, with a warning: Google's SDKs require the header."""
    network.start_faulty("GET=body:instance/")
    lines = network.success("true", MOCK_ENDPOINTS="gcp").splitlines()
    assert "lacks the header Metadata-Flavor: Google, which SDKs require: " in lines[0]
    assert len(lines) == 2


def test_missing_mock_of_one_service_fails_the_start(mocked: Network) -> None:
    """If one of two services has no mock, the app does not start, and no redirect of the other remains."""
    stderr = mocked.failure("true", MOCK_ENDPOINTS=f"aws,ecs={MOCK}:9", MOCK_TIMEOUT="1")
    assert f"{MOCK}:9: connection refused" in stderr
    assert (mocked.detour_redirects(), mocked.detour_routes()) == ("", "")


def test_host_names_are_added_and_removed(mocked: Network) -> None:
    """Google's host name resolves by one marked line in /etc/hosts, and `remove` deletes that line only."""
    before = mocked.hosts()
    show = f"{GET} -H Metadata-Flavor:Google http://metadata.google.internal/".split()
    for _ in range(2):
        mocked.success(*show, stdout="computeMetadata/\n", MOCK_ENDPOINTS="gcp")
    assert mocked.hosts().count("# imds-detour") == 1
    assert "removed" in mocked.ctl("remove").stdout
    assert mocked.hosts() == before


@pytest.mark.parametrize("earlier", [True, False], ids=["after another start", "alone"])
def test_failed_start_restores_the_host_names(mocked: Network, *, earlier: bool) -> None:
    """If verification fails, the start removes its line from /etc/hosts, and keeps the line of an earlier start."""
    if earlier:
        mocked.success("true", MOCK_ENDPOINTS="gcp")
    before = mocked.hosts()
    assert before.count("# imds-detour") == earlier
    mocked.start_faulty("GET=body:other", port="8081")
    mocked.divert(MOCK, "8081")
    failed = mocked.failure("true", MOCK_ENDPOINTS="ibm,gcp", MOCK_TIMEOUT="1", MOCK_LOG="debug")
    assert "/etc/hosts: api.metadata.cloud.ibm.com" in failed  # it had added its line
    assert mocked.hosts() == before


def test_read_only_hosts_file_needs_the_name(mocked: Network) -> None:
    """With a read-only /etc/hosts, a start shows Compose's extra_hosts, and succeeds if the file has that line."""
    mocked.remount_hosts()
    stderr = mocked.failure("true", MOCK_ENDPOINTS="gcp")
    assert f'extra_hosts: ["metadata.google.internal:{METADATA}"]' in stderr
    assert mocked.detour_redirects() == ""
    mocked.remount_hosts("rw")
    mocked.app.run("sh", "-c", f"echo '{METADATA} x metadata.google.internal' >> /etc/hosts")
    mocked.remount_hosts()
    mocked.success("true", MOCK_ENDPOINTS="gcp")


def test_ecs_is_probed_at_the_path_of_sdks(network: Network) -> None:
    """AWS_CONTAINER_CREDENTIALS_RELATIVE_URI is the path of the probe for ecs."""
    server = network.start_faulty(f"GET=body:{CREDENTIALS}")
    environment = {"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/credentials/task"}
    network.success("true", environment=environment, MOCK_ENDPOINTS="ecs")
    assert read_line(server) == "GET /v2/credentials/task no token\n"


def test_dns_server_at_the_metadata_address_gives_a_warning(mocked: Network) -> None:
    """On Google Cloud the guard blocks the DNS server at the metadata address, and a warning suggests another one."""
    mocked.app.write("resolv.conf", f"nameserver {METADATA}\n")
    stderr = mocked.success("true")
    assert f"{METADATA} is this container's DNS server too, and the guard closes it" in stderr
    assert "dns: [1.1.1.1]" in stderr
