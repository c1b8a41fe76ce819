"""Every cloud's service to its mock: several at once, each proven in its own way, by name where SDKs go by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from imds_detour.config.presets import PRESETS
from tests.support.hosts.network import CTL, METADATA, MOCK, PORT

if TYPE_CHECKING:
    import subprocess

    from tests.support.hosts.network import Network

CREDENTIALS = '{"AccessKeyId": "MOCKID", "SecretAccessKey": "mock-secret", "Token": "mock-token"}'
GET = "curl -sS --max-time 5"


def start(
    network: Network, endpoints: str, *command: str, timeout: str = "20", **settings: str
) -> subprocess.CompletedProcess[str]:
    """Run a command behind imds-detour, its mock at a known address."""
    return network.detour(
        *(command or ("true",)),
        environment=settings,
        MOCK_HOSTNAME=MOCK,
        MOCK_ENDPOINTS=endpoints,
        MOCK_TIMEOUT=timeout,
    )


@pytest.mark.parametrize("backend", ["legacy", "nft"])
@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_redirected_and_proven_by_its_own_question(network: Network, preset: str, backend: str) -> None:
    """Our mock serves them all at one port; the app reaches it at the cloud's own address."""
    network.start_mock()
    endpoint = PRESETS[preset].endpoints[0]
    done = start(
        network, preset, *f"{GET} -o /dev/null -w %{{http_code}} http://{endpoint}/".split(), MOCK_BACKEND=backend
    )
    assert done.returncode == 0, done.stderr
    assert f"{endpoint} -> {MOCK}:{PORT}, " in done.stderr
    assert f"verified {'IMDSv2' if preset == 'aws' else preset} " in done.stderr
    assert done.stdout in ("200", "404", "401", "403", "400"), "somebody answered"


@pytest.mark.parametrize("backend", ["legacy", "nft"])
def test_each_service_can_have_a_mock_of_its_own(network: Network, backend: str) -> None:
    """The names are looked up side by side; each address leads to its own server."""
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


def test_no_secret_is_told_even_in_debug(network: Network) -> None:
    """Requests and statuses, queries and answers, rules: but neither tokens nor keys. That there were some is seen."""
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
    # The controls: the app was given the keys, and our proof the token, which it sent on.
    assert all(secret in done.stdout for secret in secrets)
    mock.kill()
    assert "GET /latest/meta-data/instance-id token=b'AQAEAsession=='" in mock.communicate()[0]


def test_debug_shows_each_dns_query_and_what_came_of_it(network: Network) -> None:
    """When the system resolver has no answer, the servers are asked one by one."""
    network.start_dns("SERVFAIL*6", f"mock_metadata={MOCK}")
    network.start_mock()
    done = network.detour("true", MOCK_LOG="debug")
    assert done.returncode == 0, done.stderr
    assert f"DNS {MOCK}: A mock_metadata: answers SERVFAIL" in done.stderr


def test_two_services_at_one_address_share_a_mock(network: Network) -> None:
    """A mock of several clouds tells them apart by path and header; one rule serves both, and each is proven."""
    network.start_mock()
    done = start(network, "aws,gcp,azure")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("->") == 1
    assert network.ours().count("DNAT") == 1
    assert "verified IMDSv2 i-" in done.stderr
    assert ", gcp " in done.stderr


def test_an_address_of_ones_own_is_redirected_whatever_the_mock_says(network: Network) -> None:
    """Nothing is known of such a service, so any reply will do; still it is compared, and the rule's counter rises."""
    network.start_faulty("GET=404", port="8081")
    done = start(network, f"192.0.2.7:8000={MOCK}:8081", *f"{GET} http://192.0.2.7:8000/x".split())
    assert done.returncode == 0, done.stderr
    assert done.stdout == "i-from-a-bad-status"
    closed = network.app.run(*f"{GET} http://192.0.2.7:8001/".split(), check=False)
    assert closed.returncode == 7, "another port of that address is refused by the guard"


def test_a_mock_that_is_no_such_service_does_not_pass(network: Network) -> None:
    """A server without Metadata-Flavor on its answers is no mock of Google's service."""
    network.start_faulty("GET=body:instance/")
    done = start(network, "gcp", timeout="1")
    assert done.returncode == 125
    assert "lacks the header Metadata-Flavor: Google" in done.stderr
    assert network.ours() == ""


def test_a_service_that_has_no_mock_keeps_the_app_from_starting(network: Network) -> None:
    """One of two is not enough, and nothing is left of the one."""
    network.start_mock()
    done = start(network, f"aws,ecs={MOCK}:9", timeout="1")
    assert done.returncode == 125
    assert f"{MOCK}:9: connection refused" in done.stderr
    assert (network.ours(), network.our_routes()) == ("", "")


def test_the_names_that_sdks_go_by_resolve_and_are_taken_out_again(network: Network) -> None:
    """One marked line in /etc/hosts; `remove` takes it, and it alone, out."""
    network.start_mock()
    before = network.app.run("cat", "/etc/hosts").stdout
    for _ in range(2):
        done = start(network, "gcp", *f"{GET} -H Metadata-Flavor:Google http://metadata.google.internal/".split())
        assert done.returncode == 0, done.stderr
        assert "computeMetadata" in done.stdout
    assert network.app.run("cat", "/etc/hosts").stdout.count("# imds-detour") == 1
    removed = network.app.run(CTL, "remove")
    assert "removed" in removed.stdout
    assert network.app.run("cat", "/etc/hosts").stdout == before


def take_requests_away(network: Network) -> None:
    """Let somebody else's rule lead the metadata address to another server, so that no proof succeeds."""
    network.start_faulty("GET=body:other", port="8081")
    network.app.run(
        "nft",
        "add table ip foreign; add chain ip foreign output { type nat hook output priority -150; };"
        f" add rule ip foreign output ip daddr {METADATA} tcp dport 80 dnat to {MOCK}:8081",
    )


def test_a_start_that_fails_puts_back_the_names_of_an_earlier_one(network: Network) -> None:
    """Its app lives by them. That a start of its own takes out what it put in is shown below."""
    network.start_mock()
    assert start(network, "gcp").returncode == 0
    before = network.app.run("cat", "/etc/hosts").stdout
    assert before.count("# imds-detour") == 1
    take_requests_away(network)
    failed = start(network, "ibm,gcp", timeout="1", MOCK_LOG="debug")
    assert failed.returncode == 125
    assert "/etc/hosts: api.metadata.cloud.ibm.com" in failed.stderr  # it had its line by then
    assert network.app.run("cat", "/etc/hosts").stdout == before


def test_a_start_that_fails_leaves_no_name_behind(network: Network) -> None:
    """The line goes when the proof fails: here somebody else's rule takes the requests."""
    network.start_mock()
    take_requests_away(network)
    before = network.app.run("cat", "/etc/hosts").stdout
    assert start(network, "gcp", timeout="1").returncode == 125
    assert network.app.run("cat", "/etc/hosts").stdout == before


def test_a_hosts_file_that_cannot_be_written_is_named_with_the_compose_line(network: Network) -> None:
    """Without the name Google's SDKs fail after half a minute: better not to start."""
    network.start_mock()
    network.app.run("sh", "-c", "mount -o remount,ro,bind $(readlink -m /etc/hosts)")
    done = start(network, "gcp")
    assert done.returncode == 125
    assert f'extra_hosts: ["metadata.google.internal:{METADATA}"]' in done.stderr
    assert network.ours() == ""


def test_a_hosts_file_that_has_the_name_already_need_not_be_written(network: Network) -> None:
    """The remedy of the test above works."""
    network.start_mock()
    network.app.run("sh", "-c", f"echo '{METADATA} x metadata.google.internal' >> /etc/hosts")
    network.app.run("sh", "-c", "mount -o remount,ro,bind $(readlink -m /etc/hosts)")
    assert start(network, "gcp").returncode == 0


def test_ecs_is_asked_what_sdks_will_ask_there(network: Network) -> None:
    """AWS_CONTAINER_CREDENTIALS_RELATIVE_URI is the path; the mock's log shows it."""
    server = network.start_faulty(f"GET=body:{CREDENTIALS}")
    told = {"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/credentials/task"}
    done = network.detour("true", environment=told, MOCK_HOSTNAME=MOCK, MOCK_ENDPOINTS="ecs")
    assert done.returncode == 0, done.stderr
    assert server.stdout is not None
    assert server.stdout.readline() == "GET /v2/credentials/task no token\n"


def test_a_dns_server_at_the_metadata_address_is_warned_of(network: Network) -> None:
    """As on Google Cloud: the guard closes it with all else, and the line says what to do instead."""
    network.start_mock()
    network.app.write("resolv.conf", f"nameserver {METADATA}\n")
    done = start(network, "aws")
    assert done.returncode == 0, done.stderr
    assert f"{METADATA} is this container's DNS server too, and the guard closes it" in done.stderr
    assert "dns: [1.1.1.1]" in done.stderr
