"""Mocks as colleagues write them: the app starts and reads what its mock has; no output shows a secret."""

import os
import sys
from typing import NamedTuple

import pytest

from imds_detour.config.presets import PRESETS
from tests.support import SUPPORT
from tests.support.hosts.network import CTL, ID_URL, INSTANCE, METADATA, MOCK, MOCK6, NAME, PORT, Network
from tests.support.hosts.sidecars import LISTEN, Sidecars
from tests.support.marks import first_quick
from tests.support.servers.homemade import DOCUMENT, MARK, RAW, ROLES, SERVERS, SHAPES

SERVER = f"{SUPPORT}/servers/homemade.py"
TASK = "/v2/credentials/task"
HEADER = "X-aws-ec2-metadata-token"


class Case(NamedTuple):
    """A mock and its user.

    Attributes:
        preset: the service in MOCK_ENDPOINTS.
        path: what the app reads, with the headers of its SDK.
        seen: a part of what it reads.
        warned: a part of the warning, empty if the mock is certain.
        headers: the headers of that request.
        environment: other variables of the container.

    """

    preset: str
    path: str
    seen: str
    warned: str = ""
    headers: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()


CREDENTIALS = Case("aws", f"{ROLES}role", MARK)
NOT_FOUND = "it answers 404 to GET /latest/meta-data/instance-id"
CASES = {
    "credentials": CREDENTIALS,
    "credentials by tokens": CREDENTIALS._replace(headers=(f"{HEADER}: {MARK}",)),
    "one role without a list": CREDENTIALS._replace(warned=NOT_FOUND),
    "credentials at the list": Case("aws", ROLES, MARK),
    "document": Case("aws", DOCUMENT, "i-document"),
    "document with a time": Case("aws", DOCUMENT, "eu-west-1"),
    "region": Case("aws", "/latest/meta-data/placement/region", "eu-west-1"),
    "zone": Case("aws", "/latest/meta-data/placement/availability-zone", "eu-west-1a", NOT_FOUND),
    "user data": Case("aws", "/latest/user-data", MARK, NOT_FOUND),
    "redirects to a slash": Case("aws", "/latest/meta-data/instance-id/", "i-slash"),
    "JSON for everything": Case("aws", "/any", MARK),
    "empty for everything": Case("aws", "/any", "", "it answers GET /latest/meta-data/instance-id with nothing"),
    "one word for everything": Case("aws", "/any", "ok"),
    "a page for everything": Case("aws", "/any", "hello", "/instance-id with a web page"),
    "a large document": Case("aws", DOCUMENT, "eu-west-1"),
    "errors with a time": Case("aws", "/any", "timestamp", NOT_FOUND),
    "no login": Case("aws", "/any", "", "it answers 401 to GET /latest/meta-data/instance-id"),
    "by its host": CREDENTIALS,
    "loads its data": CREDENTIALS,
    "tokens fail": CREDENTIALS,
    "identity token": Case(
        "azure", "/metadata/identity/oauth2/token?resource=r", MARK, "it answers 404 to GET /metadata/instance"
    ),
    "Google's leaves": Case("gcp", "/computeMetadata/v1/project/project-id", "a-project", "it answers 404 to GET"),
    "Google's root": Case("gcp", "/computeMetadata/v1/project/project-id", "p"),
    "Google's leaves without the header": Case(
        "gcp", "/computeMetadata/v1/project/project-id", "a-project", "it answers 404 to GET"
    ),
    "ECS": Case("ecs", "/creds", MARK),
    "ECS by path": Case(
        "ecs",
        "/v2/credentials/task",
        MARK,
        environment=(("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/credentials/task"),),
    ),
    "task metadata": Case(
        "ecs", "/v4/task", "DockerId", environment=(("ECS_CONTAINER_METADATA_URI_V4", "http://169.254.170.2/v4/task"),)
    ),
    "EKS": Case("eks", "/v1/credentials", MARK, headers=("Authorization: token",)),
    "netcat": Case("aws", "/any", "i-netcat"),
    "answers without reading": Case("aws", "/any", "i-blind"),
    "early hints": Case("aws", "/any", "i-hints"),
    **dict.fromkeys(SERVERS, CREDENTIALS),
}
SECRET_SHAPES = {"secrets for everything", "secrets in errors"}
NEVER = {
    "500": "it answers 500 to GET /latest/meta-data/instance-id",
    "503 without tokens": "it answers 503 to PUT /latest/api/token",
    "no HTTP": "it does not speak HTTP",
    "nothing": "it closed the connection before the end of its reply's head",
}
ADDRESSES = {"ecs": "169.254.170.2", "eks": "169.254.170.23"}


def start(network: Network, shape: str) -> None:
    """Start a home-made mock with its name in DNS, and wait until it listens."""
    network.start_dns()
    network.start(network.mock, sys.executable, SERVER, shape, f"{MOCK}:{PORT}")


def test_catalogue_has_every_shape() -> None:
    """Each shape of the catalogue is tried."""
    assert CASES.keys() | NEVER.keys() | SECRET_SHAPES == SHAPES.keys() | RAW.keys() | set(SERVERS)


@pytest.mark.parametrize("shape", first_quick(CASES, 6))
def test_homemade_mock_starts_the_app(network: Network, shape: str) -> None:
    """The app starts and reads its mock's answer. A warning says what the mock lacks. No line has a secret."""
    case = CASES[shape]
    start(network, shape)
    curl = ["curl", "-sS", "--max-time", "5", *(f"-H{header}" for header in ("Metadata: true", *case.headers))]
    command = (*curl, f"http://{ADDRESSES.get(case.preset, METADATA)}{case.path}")
    done = network.detour(*command, environment=dict(case.environment), MOCK_ENDPOINTS=case.preset)
    assert (done.returncode, case.seen in done.stdout) == (0, True), done
    *warnings, last = [line for line in done.stderr.splitlines() if ": waiting: " not in line]
    assert ", verified " in last
    assert len(warnings) == bool(case.warned), warnings
    assert not case.warned or (case.warned in warnings[0] and "MOCK_PROBE" in warnings[0])
    assert MARK not in done.stderr


@pytest.mark.parametrize("shape", first_quick(NEVER, 1))
def test_failing_mock_never_starts_the_app(network: Network, shape: str) -> None:
    """A server that fails or speaks no HTTP starts no app, and the last line says what it answered."""
    start(network, shape)
    stderr = network.failure("true", MOCK_TIMEOUT="1")
    assert NEVER[shape] in stderr.splitlines()[-1]
    assert MARK not in stderr


PROBES = ("on", f"{ROLES}role", "/latest/api/token", f"/latest/user-data?key={MARK}")
LOGS = ("text", "json", "debug")
VERBS = ("check", "doctor", "doctor --json", "status", "status --json", "plan")
ALL = PROBES, LOGS, VERBS
FEWER = PROBES[:2], ("json", "debug"), ("doctor --json", "status --json")


@pytest.mark.parametrize("shape", first_quick(["secrets for everything", "secrets in errors"]))
@pytest.mark.parametrize("preset", first_quick(sorted(PRESETS, key="aws".__eq__)))  # aws takes longest
def test_no_output_shows_a_secret(network: Network, sidecars: Sidecars, preset: str, shape: str) -> None:
    """No log format, tool, page or metric shows a secret that a mock sent, for any preset and path in MOCK_PROBE.

    For one preset in all formats, for the others in those that contain most. Control: the mock did send it, in its
    answers to PUT and GET.
    """
    start(network, shape)
    outputs: list[str] = []
    probes, logs, verbs = ALL if preset == "aws" else FEWER
    for probe in probes:
        for log in logs:
            done = network.detour("true", MOCK_ENDPOINTS=preset, MOCK_PROBE=probe, MOCK_LOG=log, MOCK_TIMEOUT="1")
            outputs.append(done.stderr)
        for verb in verbs:
            done = network.ctl(*verb.split(), MOCK_ENDPOINTS=preset, MOCK_PROBE=probe)
            outputs.append(done.stdout + done.stderr)
    sidecar = sidecars.start("--listen", LISTEN, MOCK_ENDPOINTS=preset, MOCK_LOG="debug", says="verified|is closed")
    outputs += [sidecar.get(path)[1] for path in ("/", "/status.json", "/metrics", "/readyz", "/healthz")]
    sidecar.stop()
    assert sidecar.process.stderr is not None
    outputs.append(sidecar.process.stderr.read())
    assert [output for output in outputs if MARK in output] == []
    assert all(outputs[:2])
    for method in ("GET", "PUT"):
        url = f"http://{MOCK}:{PORT}/latest/api/token"
        assert MARK in network.app.run("curl", "-sSi", "-X", method, url).stdout


def test_mock_at_1338_is_found_without_a_port(network: Network) -> None:
    """If no port is given and port 80 is refused, a mock at 1338 is taken, and a line says so. A given port is kept."""
    start(network, "credentials")
    first, last = network.success("true", MOCK_PORT="").splitlines()
    assert "MOCK_PORT is not set, and port 80 is refused" in first
    assert f":{PORT}), " in last
    assert network.ctl("check", MOCK_PORT="").returncode == 0
    assert "connection refused" in network.failure("true", MOCK_PORT="80", MOCK_TIMEOUT="1")


OWN_SCRIPT = """
imds-detourctl mock --listen 127.0.0.1:1338 --quiet &
imds-detourctl init >&2 || exit
curl -sS --fail "$1"
status=$?
kill $!
exit $status
"""
"""An app's own script that starts the mock in the same container, and redirects after that."""


def test_mock_started_by_the_apps_own_script_is_used_by_init(network: Network) -> None:
    """The script starts its mock on localhost and runs init. Control: imds-detour before the script says that way."""
    variables = {
        "MOCK_HOSTNAME": "localhost",
        "MOCK_PORT": PORT,
        "PATH": f"{os.path.dirname(CTL)}:{os.environ['PATH']}",
    }
    environ = network.settings(None, **variables)
    done = network.app.run("sh", "-c", OWN_SCRIPT, "sh", ID_URL, environ=environ, check=False)
    assert (done.returncode, done.stdout) == (0, INSTANCE), done
    assert network.ctl("remove").returncode == 0
    last = network.failure("sh", "-c", OWN_SCRIPT, "sh", ID_URL, **variables, MOCK_TIMEOUT="1").splitlines()[-1]
    assert (
        "localhost is this container itself: if the app's own script starts the mock, run `imds-detourctl init`" in last
    )


def test_mock_at_1338_is_found_over_both_ip_versions(network: Network) -> None:
    """Without a port, the mock at 1338 is used over IPv6 too. Control: with a given port, it is the same."""
    network.add_ipv6()
    network.start_mock(at="[::]")
    network.start_dns(f"{NAME}={MOCK},{MOCK6}")
    with_port = network.detour_redirects() if network.success("true", MOCK_ENDPOINTS="aws") else ""
    assert network.ctl("remove").returncode == 0
    network.success("true", MOCK_PORT="")
    assert (with_port.count(MOCK6), network.detour_redirects().count(MOCK6)) == (1, 1)
