"""The examples of docs/clouds.md: your own credentials, and one mock for many containers."""

import json
import sys
from collections.abc import Iterator

import pytest

from imds_detour.ctl.lab.hosts import Host, link, start_host
from tests.netns.test_bridges import BRIDGE, FIRST, SECOND, Bridge
from tests.support import SUPPORT
from tests.support.hosts.network import APP, CTL, DETOUR, ID_URL, METADATA, MOCK, PORT, Network, output

BY_PEER = f"{SUPPORT}/servers/by_peer.py"
OTHER_APP = "10.89.0.2"
SECRETS = {"AccessKeyId": "AKIAMARKED", "SecretAccessKey": "marked-secret", "SessionToken": "marked-token"}
PRINTED = json.dumps({"Version": 1, **SECRETS})
IMDSV2 = f"""
token=$(curl -sSf -X PUT -H "X-aws-ec2-metadata-token-ttl-seconds: 60" http://{METADATA}/latest/api/token)
roles=http://{METADATA}/latest/meta-data/iam/security-credentials/
get() {{ curl -sSf -H "X-aws-ec2-metadata-token: $token" "$1"; }}
get $roles$(get $roles)
"""
"""What an SDK does for credentials: a session token, the role's name, and the role's credentials."""


@pytest.fixture
def other_app(network: Network) -> Iterator[Host]:
    """Give a second app's host, beside the network's own."""
    with start_host() as host:
        link(network.mock, host, "eth1", "10.89.0.3/24", f"{OTHER_APP}/24")
        host.ip("route", "add", "default", "via", "10.89.0.3")
        yield host


def on(host: Host, network: Network, *command: str, **settings: str) -> str:
    """Run imds-detour on a host, with the mock's address, and return the app's output."""
    environ = network.settings(None, MOCK_HOSTNAME=MOCK, **settings)
    done = host.run(DETOUR, *command, environ=environ, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def bridge(network: Network) -> Iterator[Bridge]:
    """Give a machine with a bridge and two containers, as a laptop with Docker."""
    with start_host() as first, start_host() as second:
        yield Bridge(network, {FIRST: first, SECOND: second})


def test_one_mock_tells_containers_apart_by_source_address(network: Network, other_app: Host, backend: str) -> None:
    """Redirects keep the source address, so one mock gives each container its own identity, over EC2 and ECS paths."""
    network.start(network.mock, sys.executable, BY_PEER, f"0.0.0.0:{PORT}", f"{APP}=one", f"{OTHER_APP}=two")
    for host, name in ((network.app, "one"), (other_app, "two")):
        assert on(host, network, "curl", "-sS", ID_URL, MOCK_BACKEND=backend) == f"i-{name}"
        read = ("curl", "-sS", "http://169.254.170.2/role/any")
        document = json.loads(on(host, network, *read, MOCK_BACKEND=backend, MOCK_ENDPOINTS="ecs"))
        assert document["AccessKeyId"] == f"AKIA-{name}"
        assert host.run("curl", "-sS", ID_URL).stdout == f"i-{name}"  # a later process of the container


def test_mock_behind_a_bridge_sees_the_machine(bridge: Bridge, backend: str) -> None:
    """The limit, and the control of the test above: by `init --host` all containers have the machine's address."""
    peers = (f"{FIRST}=one", f"{SECOND}=two", f"{APP}=machine")
    bridge.network.start(bridge.network.mock, sys.executable, BY_PEER, f"{MOCK}:{PORT}", *peers)
    done = bridge.network.ctl("init", "--host", MOCK_HOSTNAME=MOCK, MOCK_BACKEND=backend)
    assert done.returncode == 0, done.stderr
    seen = [container.run("curl", "-sS", ID_URL).stdout for container in bridge.containers.values()]
    assert seen == ["i-machine", "i-machine"]


def test_existing_credential_server_serves_an_app(network: Network, backend: str) -> None:
    """A local ECS endpoint, which has /creds and /role/NAME only, serves an app, and no output has a key."""
    network.start(network.mock, sys.executable, BY_PEER, f"0.0.0.0:{PORT}", f"{APP}=MARKED")
    script = "curl -sS http://169.254.170.2$AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"
    environment = {"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/role/app"}
    network.wanted = {"MOCK_HOSTNAME": MOCK, "MOCK_ENDPOINTS": "ecs", "MOCK_BACKEND": backend, "MOCK_LOG": "debug"}
    done = network.detour("sh", "-c", script, environment=environment)
    assert (done.returncode, json.loads(done.stdout)["AccessKeyId"]) == (0, "AKIA-MARKED"), done.stderr
    assert "marked" not in done.stderr.lower()


def test_stock_container_reads_your_own_credentials(bridge: Bridge, backend: str) -> None:
    """After `init --host` an unmodified container reads what the credential process prints, and no output has it."""
    bridge.host.run("sh", "-c", f"printf '%s' '{PRINTED}' > /run/printed")
    flags = ("--listen", f"{BRIDGE}:{PORT}", "--credential-process", "cat /run/printed")
    mock = bridge.network.start(bridge.host, CTL, "mock", *flags)
    done = bridge.network.ctl("init", "--host", MOCK_HOSTNAME=BRIDGE, MOCK_BACKEND=backend, MOCK_LOG="debug")
    assert done.returncode == 0, done.stderr
    served = json.loads(bridge.containers[FIRST].run("sh", "-euc", IMDSV2).stdout)
    names = ("AccessKeyId", "SecretAccessKey", "Token")
    assert [served[name] for name in names] == [*SECRETS.values()]  # the control, too
    lines = output(mock) + done.stdout + done.stderr
    assert "security-credentials/imds-detour-mock-role 200 " in lines
    assert not [secret for secret in SECRETS.values() if secret in lines]
