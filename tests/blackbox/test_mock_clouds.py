"""The development mock over real sockets: all clouds, the log, faults, rotation and notices."""

import json
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from imds_detour.config.presets import PRESETS, Preset
from imds_detour.deadline import Deadline
from imds_detour.discovery.probe import Question, identify
from imds_detour.endpoint import Endpoint
from tests.blackbox.test_mock_server import assert_served
from tests.support.servers.mock_process import COMMAND, GET, ID, TIMEOUT, Mock, read_reply, running_mock, start_failure


def ask(stream: socket.socket, path: str, *headers: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    """Send a request on an open connection and return status, headers and body."""
    stream.sendall("\r\n".join([f"{method} {path} HTTP/1.1", "Host: mock", *headers, "\r\n"]).encode())
    return read_reply(stream)


@pytest.fixture(scope="module")
def shared_mock() -> Iterator[Mock]:
    """Return one mock that serves all presets."""
    with running_mock() as started:
        yield started


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_one_port_serves_several_clouds(host: str) -> None:
    """One connection to the mock reads several clouds, over IPv4 and IPv6."""
    listen = "127.0.0.1:0" if host == "127.0.0.1" else "[::1]:0"
    with running_mock(listen=listen) as mock, socket.create_connection((host, mock.port), timeout=TIMEOUT) as stream:
        assert ask(stream, "/latest/meta-data/instance-id")[2] == ID
        assert json.loads(ask(stream, "/v2/credentials/id")[2])["AccessKeyId"] == "MOCKMOCKMOCKMOCKMOCK"
        status, headers, body = ask(stream, "/computeMetadata/v1/project/project-id", "Metadata-Flavor: Google")
        assert (status, headers["Metadata-Flavor"], body) == (200, "Google", b"imds-detour-mock")
        assert ask(stream, "/computeMetadata/v1/project/project-id")[0] == 403
        assert ask(stream, "/metadata/instance?api-version=2021-02-01", "Metadata: true")[0] == 200
        assert ask(stream, "/metadata/instance?api-version=2021-02-01")[0] == 400
        assert (ask(stream, "/v1/credentials", "Authorization: x")[0], ask(stream, "/v1/credentials")[0]) == (200, 401)


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_mock_passes_the_proof_of_every_preset(preset: Preset, shared_mock: Mock) -> None:
    """The mock passes imds-detour's proof of each service, with the same result twice, and logs the service's name."""
    endpoint = Endpoint(IPv4Address("127.0.0.1"), shared_mock.port)
    question = Question(preset.name, preset.endpoints[0].host, preset.proof)
    first, second = (identify(endpoint, question, Deadline(TIMEOUT)) for _ in range(2))
    assert (first, first.version) == (second, "IMDSv2" if preset.name == "aws" else preset.name)
    for _ in range(2 * (2 if preset.proof.token else 1)):
        assert shared_mock.lines.get(timeout=TIMEOUT).split()[-1] == preset.name


def test_log_names_the_cloud_and_contains_no_secret() -> None:
    """Each log line ends with the cloud's name and contains no token or credential."""
    identity = "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=r"
    google = "/computeMetadata/v1/instance/service-accounts/default/token"
    with running_mock() as mock, mock.connect() as stream:
        given = [
            ask(stream, "/latest/api/token", "X-aws-ec2-metadata-token-ttl-seconds: 60", method="PUT")[2],
            ask(stream, "/v1/token", "Metadata-Token-Expiry-Seconds: 60", method="PUT")[2],
            ask(stream, google, "Metadata-Flavor: Google")[2],
            ask(stream, identity, "Metadata: true")[2],
        ]
        ask(stream, "/creds")
        ask(stream, "/v1/credentials", "Authorization: a-pods-secret")
        mock.stop()
        lines = mock.remaining_lines()
    assert [line.split()[-1] for line in lines] == ["aws", "akamai", "gcp", "azure", "ecs", "eks"]
    assert [line.split()[4:6] for line in lines[2:]] == [
        [google, "200"],
        [identity, "200"],
        ["/creds", "200"],
        ["/v1/credentials", "200"],
    ]
    secrets = ("a-pods-secret", "MOCKMOCK", "opens-nothing", given[0].decode(), given[1].decode())
    assert b"opens-nothing" in given[2]  # the control: the answers contain the secrets
    assert not [line for line in lines if any(secret in line for secret in secrets)]


def test_delay_delays_every_answer() -> None:
    """With --delay no answer is early, and requests that were sent together share one delay."""
    with running_mock("--delay", "0.3") as mock, mock.connect() as stream:
        for _ in range(2):
            start = time.monotonic()
            stream.sendall(GET + GET.replace(b"instance-id", b"mac"))
            assert [read_reply(stream)[2], read_reply(stream)[2]] == [ID, b"02:00:00:00:13:38"]
            assert time.monotonic() - start >= 0.3


def test_delayed_mock_survives_clients_that_close_or_leave() -> None:
    """With --delay, a half-closed client gets its answer, and one that left causes no traceback."""
    with running_mock("--delay", "0.2") as mock:
        with mock.connect() as stream, mock.connect() as leaving:
            leaving.sendall(GET.replace(b"Host: mock", b"Connection: close"))
            leaving.close()
            stream.sendall(GET)
            stream.shutdown(socket.SHUT_WR)
            assert (read_reply(stream)[2], stream.recv(1)) == (ID, b"")
        assert_served(mock)
        mock.stop()
        line = "imds-detourctl mock: 127.0.0.1 GET /latest/meta-data/instance-id 200 19 aws\n"
        assert mock.remaining_lines() == [line] * 3


@pytest.mark.parametrize(
    ("flag", "statuses"), [("503", [503] * 4), ("500:1", [500] * 4), ("429:3", [200, 200, 429, 200])]
)
def test_fail_answers_each_nth_request_with_the_status(flag: str, statuses: list[int]) -> None:
    """--fail answers each request, or each Nth over all connections, with the status."""
    with running_mock("--fail", flag) as mock:
        seen = []
        for _ in range(2):
            with mock.connect() as stream:
                seen += [ask(stream, "/latest/meta-data/instance-id")[0] for _ in range(2)]
        assert seen == statuses


def test_hanging_mock_logs_requests_and_never_answers() -> None:
    """--hang logs requests, answers none (control: test_connection_is_kept_open), and stops at a signal."""
    with running_mock("--hang") as mock, mock.connect() as stream, mock.connect() as closing:
        stream.sendall(GET)
        closing.sendall(GET.replace(b"Host: mock", b"Connection: close"))
        for _ in range(2):
            line = mock.lines.get(timeout=TIMEOUT)
            assert line == "imds-detourctl mock: 127.0.0.1 GET /latest/meta-data/instance-id - 0 aws\n"
        for connection in (stream, closing):
            connection.settimeout(0.2)
            with pytest.raises(TimeoutError):
                connection.recv(1)
        mock.stop(signal.SIGTERM)
        assert mock.process.returncode == 0


def test_credentials_rotate_while_the_mock_runs() -> None:
    """With --credentials-ttl 2 the credentials change after about a second."""
    with running_mock("--credentials-ttl", "2") as mock, mock.connect() as stream:
        first = json.loads(ask(stream, "/creds")[2])
        deadline = time.monotonic() + TIMEOUT
        while (second := json.loads(ask(stream, "/creds")[2]))["AccessKeyId"] == first["AccessKeyId"]:
            assert time.monotonic() < deadline
            time.sleep(0.05)  # the rotation depends on the clock alone
        assert second["Token"] != first["Token"]
        assert second["Expiration"] > first["Expiration"]


def test_notices_appear_when_they_are_due() -> None:
    """A notice that is due at once is served, and one that is due in an hour is 404."""
    with running_mock("--spot-in", "0", "--rebalance-in", "3600") as mock, mock.connect() as stream:
        assert json.loads(ask(stream, "/latest/meta-data/spot/instance-action")[2])["action"] == "terminate"
        assert ask(stream, "/latest/meta-data/events/recommendations/rebalance")[0] == 404
    with running_mock("--rebalance-in", "0") as mock, mock.connect() as stream:
        assert ask(stream, "/latest/meta-data/spot/instance-action")[0] == 404
        assert ask(stream, "/latest/meta-data/events/recommendations/rebalance")[0] == 200


@pytest.mark.parametrize(
    ("flag", "text", "remedy"),
    [
        *((flag, "soon", "write a number of seconds") for flag in ("--delay", "--spot-in", "--rebalance-in")),
        *((flag, "-1", "write a number of seconds") for flag in ("--delay", "--spot-in", "--rebalance-in")),
        *(("--delay", text, "write a number of seconds from 0 to 1000000") for text in ("nan", "inf", "")),
        *(("--credentials-ttl", text, "write a number of seconds from 2") for text in ("0", "1", "x")),
        *(("--fail", text, "write an HTTP error such as 503") for text in ("200", "301", "599", "503:0", "x", "")),
    ],
)
def test_invalid_flag_is_refused_in_one_line(flag: str, text: str, remedy: str) -> None:
    """An invalid value is refused in one line that names the flag and a valid value."""
    line = start_failure(f"{flag}={text}")
    assert f"{flag} {text!r} is not valid; " in line
    assert remedy in line


def test_print_data_output_is_valid_data_and_help_is_complete(tmp_path: Path) -> None:
    """The output of --print-data, with a changed value, is valid input of --data; --help names flags and clouds."""
    done = subprocess.run([*COMMAND, "--print-data"], capture_output=True, text=True, timeout=TIMEOUT, check=True)
    data = json.loads(done.stdout)
    assert {"meta-data", "ecs", "eks", "gcp", "azure", "oci"} <= data.keys()
    data["gcp"]["$json"]["project"]["project-id"] = "mine"
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(data), encoding="utf-8")
    with running_mock("--data", str(file)) as mock, mock.connect() as stream:
        assert ask(stream, "/computeMetadata/v1/project/project-id", "Metadata-Flavor: Google")[2] == b"mine"
    # The help names the mocks for real work, the flags and the clouds.
    done = subprocess.run([*COMMAND, "--help"], capture_output=True, text=True, timeout=TIMEOUT, check=True)
    text = " ".join(done.stdout.split())
    assert "For real work take amazon-ec2-metadata-mock (AEMM) or moto" in text
    flags = ("--credentials-ttl", "--spot-in", "--rebalance-in", "--delay", "--fail", "--hang", "--control")
    for word in (*flags, "--credential-process", "Azure", "Google"):
        assert word in text
