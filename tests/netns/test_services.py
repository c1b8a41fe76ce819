"""Several services of clouds at once: each is redirected and verified, by host name too if SDKs use one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from imds_detour.config.presets import PRESETS
from tests.support.hosts.network import CTL, METADATA, MOCK, PORT, Network, output, read_line

if TYPE_CHECKING:
    import subprocess

CREDENTIALS = '{"AccessKeyId": "MOCKID", "SecretAccessKey": "mock-secret", "Token": "mock-token"}'
GET = "curl -sS --max-time 5"


def start(
    network: Network, endpoints: str, *command: str, timeout: str = "20", **settings: str
) -> subprocess.CompletedProcess[str]:
    """Run a command under imds-detour, with the mock's address in MOCK_HOSTNAME."""
    return network.detour(
        *(command or ("true",)),
        environment=settings,
        MOCK_HOSTNAME=MOCK,
        MOCK_ENDPOINTS=endpoints,
        MOCK_TIMEOUT=timeout,
    )


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_redirected_and_verified(mocked: Network, preset: str, backend: str) -> None:
    """The mock serves every preset at one port, and the app reaches it at the cloud's address."""
    endpoint = PRESETS[preset].endpoints[0]
    done = start(
        mocked, preset, *f"{GET} -o /dev/null -w %{{http_code}} http://{endpoint}/".split(), MOCK_BACKEND=backend
    )
    assert done.returncode == 0, done.stderr
    assert f"{endpoint} -> {MOCK}:{PORT}, " in done.stderr
    assert f"verified {'IMDSv2' if preset == 'aws' else preset} " in done.stderr
    assert done.stdout in ("200", "404", "401", "403", "400"), "a server answered"


def test_each_service_can_have_its_own_mock(network: Network, backend: str) -> None:
    """Each service's address is redirected to its own mock."""
    network.start_dns(f"mock_metadata={MOCK}+creds={MOCK}")
    network.start_mock()
    network.start_faulty(f"GET=body:{CREDENTIALS}", port="8081")
    done = network.detour(
        *f"{GET} http://169.254.170.2/creds http://{METADATA}/latest/meta-data/instance-id".split(),
        MOCK_ENDPOINTS="aws,ecs=creds:8081",
        MOCK_BACKEND=backend,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == CREDENTIALS + "i-1234567890abcdef0"
    assert f"{METADATA}:80 -> mock_metadata ({MOCK}:{PORT}), 169.254.170.2:80 -> creds ({MOCK}:8081), " in done.stderr
    assert "verified IMDSv2 i-1234567890abcdef0, ecs credentials, " in done.stderr
    assert "mock-secret" not in done.stderr


def test_debug_output_has_no_secret(network: Network) -> None:
    """MOCK_LOG=debug shows requests, queries and rules, without tokens and keys."""
    network.start_dns()
    mock = network.start_faulty("GET=ok", "PUT=body:AQAEAsession==")
    network.start_faulty(f"GET=body:{CREDENTIALS}", port="8081")
    show = f"{GET} http://169.254.170.2/creds"
    done = network.detour(*show.split(), MOCK_ENDPOINTS=f"aws,ecs={MOCK}:8081", MOCK_LOG="debug")
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
    done = network.detour("true", MOCK_LOG="debug")
    assert done.returncode == 0, done.stderr
    assert f"DNS {MOCK}: A mock_metadata: answers SERVFAIL" in done.stderr


def test_two_services_at_one_address_share_a_mock(mocked: Network) -> None:
    """Services at one address share a rule and a mock, and each is verified."""
    done = start(mocked, "aws,gcp,azure")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("->") == 1
    assert mocked.detour_rules().count("DNAT") == 1
    assert "verified IMDSv2 i-" in done.stderr
    assert ", gcp " in done.stderr


def test_custom_address_accepts_any_reply(network: Network) -> None:
    """For a custom address any reply is right; replies are compared, and the counter of the rule counts."""
    network.start_faulty("GET=404", port="8081")
    done = start(network, f"192.0.2.7:8000={MOCK}:8081", *f"{GET} http://192.0.2.7:8000/x".split())
    assert done.returncode == 0, done.stderr
    assert done.stdout == "i-from-a-bad-status"
    closed = network.app.run(*f"{GET} http://192.0.2.7:8001/".split(), check=False)
    assert closed.returncode == 7, "another port of that address is refused by the guard"


def test_mock_without_googles_header_fails(network: Network) -> None:
    """A server without the header Metadata-Flavor is no mock of Google's service."""
    network.start_faulty("GET=body:instance/")
    done = start(network, "gcp", timeout="1")
    assert done.returncode == 125
    assert "lacks the header Metadata-Flavor: Google" in done.stderr
    assert network.detour_rules() == ""


def test_missing_mock_of_one_service_fails_the_start(mocked: Network) -> None:
    """If one of two services has no mock, the app does not start, and nothing remains of the other."""
    done = start(mocked, f"aws,ecs={MOCK}:9", timeout="1")
    assert done.returncode == 125
    assert f"{MOCK}:9: connection refused" in done.stderr
    assert (mocked.detour_rules(), mocked.detour_routes()) == ("", "")


def test_host_names_are_added_and_removed(mocked: Network) -> None:
    """Google's host name resolves by one marked line in /etc/hosts, and `remove` deletes that line only."""
    before = mocked.app.run("cat", "/etc/hosts").stdout
    for _ in range(2):
        done = start(mocked, "gcp", *f"{GET} -H Metadata-Flavor:Google http://metadata.google.internal/".split())
        assert done.returncode == 0, done.stderr
        assert "computeMetadata" in done.stdout
    assert mocked.app.run("cat", "/etc/hosts").stdout.count("# imds-detour") == 1
    removed = mocked.app.run(CTL, "remove")
    assert "removed" in removed.stdout
    assert mocked.app.run("cat", "/etc/hosts").stdout == before


def divert_requests(network: Network) -> None:
    """Redirect the metadata address to another server by a foreign rule, so that no verification succeeds."""
    network.start_faulty("GET=body:other", port="8081")
    network.app.run(
        "nft",
        "add table ip foreign; add chain ip foreign output { type nat hook output priority -150; };"
        f" add rule ip foreign output ip daddr {METADATA} tcp dport 80 dnat to {MOCK}:8081",
    )


def test_failed_start_restores_earlier_host_names(mocked: Network) -> None:
    """A failed start restores the host names of an earlier start, because its app uses them."""
    assert start(mocked, "gcp").returncode == 0
    before = mocked.app.run("cat", "/etc/hosts").stdout
    assert before.count("# imds-detour") == 1
    divert_requests(mocked)
    failed = start(mocked, "ibm,gcp", timeout="1", MOCK_LOG="debug")
    assert failed.returncode == 125
    assert "/etc/hosts: api.metadata.cloud.ibm.com" in failed.stderr  # it had added its line
    assert mocked.app.run("cat", "/etc/hosts").stdout == before


def test_failed_start_removes_its_host_names(mocked: Network) -> None:
    """If verification fails, the start removes its line from /etc/hosts."""
    divert_requests(mocked)
    before = mocked.app.run("cat", "/etc/hosts").stdout
    assert start(mocked, "gcp", timeout="1").returncode == 125
    assert mocked.app.run("cat", "/etc/hosts").stdout == before


def test_read_only_hosts_file_fails_the_start(mocked: Network) -> None:
    """With a read-only /etc/hosts, a start with gcp fails, and the line shows Compose's extra_hosts."""
    mocked.app.run("sh", "-c", "mount -o remount,ro,bind $(readlink -m /etc/hosts)")
    done = start(mocked, "gcp")
    assert done.returncode == 125
    assert f'extra_hosts: ["metadata.google.internal:{METADATA}"]' in done.stderr
    assert mocked.detour_rules() == ""


def test_read_only_hosts_file_with_the_name_is_enough(mocked: Network) -> None:
    """A read-only /etc/hosts that has the name already, as by extra_hosts, is enough."""
    mocked.app.run("sh", "-c", f"echo '{METADATA} x metadata.google.internal' >> /etc/hosts")
    mocked.app.run("sh", "-c", "mount -o remount,ro,bind $(readlink -m /etc/hosts)")
    assert start(mocked, "gcp").returncode == 0


def test_ecs_is_probed_at_the_path_of_sdks(network: Network) -> None:
    """AWS_CONTAINER_CREDENTIALS_RELATIVE_URI is the path of the probe for ecs."""
    server = network.start_faulty(f"GET=body:{CREDENTIALS}")
    environment = {"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/credentials/task"}
    done = network.detour("true", environment=environment, MOCK_HOSTNAME=MOCK, MOCK_ENDPOINTS="ecs")
    assert done.returncode == 0, done.stderr
    assert read_line(server) == "GET /v2/credentials/task no token\n"


def test_dns_server_at_the_metadata_address_gives_a_warning(mocked: Network) -> None:
    """On Google Cloud the guard blocks the DNS server at the metadata address, and a warning suggests another one."""
    mocked.app.write("resolv.conf", f"nameserver {METADATA}\n")
    done = start(mocked, "aws")
    assert done.returncode == 0, done.stderr
    assert f"{METADATA} is this container's DNS server too, and the guard closes it" in done.stderr
    assert "dns: [1.1.1.1]" in done.stderr
