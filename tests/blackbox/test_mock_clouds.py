"""The development mock with every cloud, over real sockets: its log, its faults, and what changes with time."""

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
from tests.support.servers.mock_process import COMMAND, GET, ID, TIMEOUT, Mock, fails, reply, running


def ask(stream: socket.socket, path: str, *headers: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    """Ask one question on an open connection."""
    stream.sendall("\r\n".join([f"{method} {path} HTTP/1.1", "Host: mock", *headers, "\r\n"]).encode())
    return reply(stream)


@pytest.fixture(scope="module")
def every() -> Iterator[Mock]:
    """Return one mock for all presets, as a multi-cloud user has it."""
    with running() as started:
        yield started


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_one_port_answers_for_every_cloud(host: str) -> None:
    """The clouds answer beside each other on one connection, over IPv4 and IPv6."""
    listen = "127.0.0.1:0" if host == "127.0.0.1" else "[::1]:0"
    with running(listen=listen) as mock, socket.create_connection((host, mock.port), timeout=TIMEOUT) as stream:
        assert ask(stream, "/latest/meta-data/instance-id")[2] == ID
        assert json.loads(ask(stream, "/v2/credentials/id")[2])["AccessKeyId"] == "MOCKMOCKMOCKMOCKMOCK"
        status, headers, body = ask(stream, "/computeMetadata/v1/project/project-id", "Metadata-Flavor: Google")
        assert (status, headers["Metadata-Flavor"], body) == (200, "Google", b"imds-detour-mock")
        assert ask(stream, "/computeMetadata/v1/project/project-id")[0] == 403
        assert ask(stream, "/metadata/instance?api-version=2021-02-01", "Metadata: true")[0] == 200
        assert ask(stream, "/metadata/instance?api-version=2021-02-01")[0] == 400
        assert ask(stream, "/v1/credentials", "Authorization: x")[0] == 200
        assert ask(stream, "/v1/credentials")[0] == 401


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_every_preset_takes_it_for_its_service(preset: Preset, every: Mock) -> None:
    """The mock passes the proof that imds-detour asks of each service, twice alike, and the log says for which."""
    at = Endpoint(IPv4Address("127.0.0.1"), every.port)
    question = Question(preset.name, preset.endpoints[0].host, preset.proof)
    first, second = (identify(at, question, Deadline(TIMEOUT)) for _ in range(2))
    assert first == second
    assert first.version == ("IMDSv2" if preset.name == "aws" else preset.name)
    for _ in range(2 * (2 if preset.proof.token else 1)):
        assert every.lines.get(timeout=TIMEOUT).split()[-1] == preset.name


def test_the_log_names_the_cloud_and_gives_no_secret_away() -> None:
    """Each line ends with the cloud; tokens, given or taken, and credentials never appear."""
    identity = "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=r"
    google = "/computeMetadata/v1/instance/service-accounts/default/token"
    with running() as mock, mock.connect() as stream:
        given = [
            ask(stream, "/latest/api/token", "X-aws-ec2-metadata-token-ttl-seconds: 60", method="PUT")[2],
            ask(stream, "/v1/token", "Metadata-Token-Expiry-Seconds: 60", method="PUT")[2],
            ask(stream, google, "Metadata-Flavor: Google")[2],
            ask(stream, identity, "Metadata: true")[2],
        ]
        ask(stream, "/creds")
        ask(stream, "/v1/credentials", "Authorization: a-pods-secret")
        mock.stop()
        lines = mock.rest()
    assert [line.split()[-1] for line in lines] == ["aws", "akamai", "gcp", "azure", "ecs", "eks"]
    assert [line.split()[4:6] for line in lines[2:]] == [
        [google, "200"],
        [identity, "200"],
        ["/creds", "200"],
        ["/v1/credentials", "200"],
    ]
    secrets = ("a-pods-secret", "MOCKMOCK", "opens-nothing", given[0].decode(), given[1].decode())
    assert b"opens-nothing" in given[2]  # the answers did carry what the log must not
    assert not [line for line in lines if any(secret in line for secret in secrets)]


def test_a_delay_holds_every_answer_back() -> None:
    """With --delay no answer comes earlier, requests at once share the wait, and each keeps its place."""
    with running("--delay", "0.3") as mock, mock.connect() as stream:
        for _ in range(2):
            start = time.monotonic()
            stream.sendall(GET + GET.replace(b"instance-id", b"mac"))
            assert [reply(stream)[2], reply(stream)[2]] == [ID, b"02:00:00:00:13:38"]
            assert time.monotonic() - start >= 0.3


def test_a_delayed_client_may_close_its_half_or_leave() -> None:
    """A client that closes its direction still gets the late answer, and one that leaves harms nobody."""
    with running("--delay", "0.2") as mock:
        with mock.connect() as stream, mock.connect() as gone:
            gone.sendall(GET)
            gone.close()
            stream.sendall(GET)
            stream.shutdown(socket.SHUT_WR)
            assert reply(stream)[2] == ID
            assert stream.recv(1) == b""
        with mock.connect() as stream:
            stream.sendall(GET)
            assert reply(stream)[2] == ID


@pytest.mark.parametrize(
    ("flag", "statuses"), [("503", [503] * 4), ("500:1", [500] * 4), ("429:3", [200, 200, 429, 200])]
)
def test_failures_come_as_often_as_asked(flag: str, statuses: list[int]) -> None:
    """--fail answers each request, or each Nth over all connections, with the status."""
    with running("--fail", flag) as mock:
        seen = []
        for _ in range(2):
            with mock.connect() as stream:
                seen += [ask(stream, "/latest/meta-data/instance-id")[0] for _ in range(2)]
        assert seen == statuses


def test_a_hanging_mock_reads_and_says_nothing() -> None:
    """--hang takes requests, logs them, answers none, keeps the connection, and still stops at a signal."""
    with running("--hang") as mock, mock.connect() as stream, mock.connect() as closing:
        stream.sendall(GET)
        closing.sendall(GET.replace(b"Host: mock", b"Connection: close"))
        for _ in range(2):
            line = mock.lines.get(timeout=TIMEOUT)
            assert line == "imds-detourctl mock: 127.0.0.1 GET /latest/meta-data/instance-id - 0 aws\n"
        for each in (stream, closing):
            each.settimeout(0.2)
            with pytest.raises(TimeoutError):
                each.recv(1)
        mock.stop(signal.SIGTERM)
        assert mock.process.returncode == 0


def test_a_mock_that_does_not_hang_answers() -> None:
    """The control of the test above: without --hang the same request is answered within the same time."""
    with running() as mock, mock.connect() as stream:
        stream.sendall(GET)
        assert reply(stream)[2] == ID


def test_credentials_rotate_while_it_runs() -> None:
    """With --credentials-ttl 2 other credentials are there after a second or so."""
    with running("--credentials-ttl", "2") as mock, mock.connect() as stream:
        first = json.loads(ask(stream, "/creds")[2])
        deadline = time.monotonic() + TIMEOUT
        while (now := json.loads(ask(stream, "/creds")[2]))["AccessKeyId"] == first["AccessKeyId"]:
            assert time.monotonic() < deadline
            time.sleep(0.05)  # time itself is what the test waits for
        assert now["Token"] != first["Token"]
        assert now["Expiration"] > first["Expiration"]


def test_notices_appear_when_they_are_due() -> None:
    """A notice due at once is there at once, and one due in an hour is not."""
    with running("--spot-in", "0", "--rebalance-in", "3600") as mock, mock.connect() as stream:
        assert json.loads(ask(stream, "/latest/meta-data/spot/instance-action")[2])["action"] == "terminate"
        assert ask(stream, "/latest/meta-data/events/recommendations/rebalance")[0] == 404
    with running("--rebalance-in", "0") as mock, mock.connect() as stream:
        assert ask(stream, "/latest/meta-data/spot/instance-action")[0] == 404
        assert ask(stream, "/latest/meta-data/events/recommendations/rebalance")[0] == 200


@pytest.mark.parametrize(
    ("flag", "text", "words"),
    [
        *((flag, "soon", "write a number of seconds") for flag in ("--delay", "--spot-in", "--rebalance-in")),
        *((flag, "-1", "write a number of seconds") for flag in ("--delay", "--spot-in", "--rebalance-in")),
        *(("--delay", text, "write a number of seconds from 0 to 1000000") for text in ("nan", "inf", "")),
        *(("--credentials-ttl", text, "write a number of seconds from 2") for text in ("0", "1", "x")),
        *(("--fail", text, "write an HTTP error such as 503") for text in ("200", "301", "599", "503:0", "x", "")),
    ],
)
def test_a_bad_flag_is_one_line(flag: str, text: str, words: str) -> None:
    """A value that makes no sense is refused in one line that names the flag and what to write."""
    line = fails(f"{flag}={text}")
    assert f"{flag} {text!r} is not valid; " in line
    assert words in line


def test_the_values_can_be_printed_changed_and_served(tmp_path: Path) -> None:
    """--print-data prints what --data takes."""
    done = subprocess.run([*COMMAND, "--print-data"], capture_output=True, text=True, timeout=TIMEOUT, check=True)
    data = json.loads(done.stdout)
    assert {"meta-data", "ecs", "eks", "gcp", "azure", "oci"} <= data.keys()
    data["gcp"]["$json"]["project"]["project-id"] = "mine"
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(data), encoding="utf-8")
    with running("--data", str(file)) as mock, mock.connect() as stream:
        assert ask(stream, "/computeMetadata/v1/project/project-id", "Metadata-Flavor: Google")[2] == b"mine"


def test_the_help_says_what_to_take_for_real_work() -> None:
    """The help names the mocks for real work, every flag, and the clouds."""
    done = subprocess.run([*COMMAND, "--help"], capture_output=True, text=True, timeout=TIMEOUT, check=True)
    text = " ".join(done.stdout.split())
    assert "For real work take amazon-ec2-metadata-mock (AEMM) or moto" in text
    for word in ("--credentials-ttl", "--spot-in", "--rebalance-in", "--delay", "--fail", "--hang", "Azure", "Google"):
        assert word in text
