"""The development mock as a process on loopback: its answers to clients and its messages on stderr."""

import json
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.servers.mock_process import COMMAND, GET, ID, TIMEOUT, Mock, read_reply, running_mock, start_failure


@pytest.fixture
def mock() -> Iterator[Mock]:
    """Return a running mock with default values."""
    with running_mock() as started:
        yield started


def assert_served(mock: Mock, host: str = "127.0.0.1") -> None:
    """Read the instance id on a new connection."""
    with socket.create_connection((host, mock.port), timeout=TIMEOUT) as stream:
        stream.sendall(GET)
        assert read_reply(stream)[2] == ID


def test_connection_is_kept_open(mock: Mock) -> None:
    """The mock answers several requests on one connection, with the complete set of headers."""
    with mock.connect() as stream:
        for _ in range(3):
            stream.sendall(GET)
            assert read_reply(stream) == (
                200,
                {"Server": "imds-detour-mock", "Content-Type": "text/plain", "Content-Length": str(len(ID))},
                ID,
            )


def test_pipelined_requests_are_answered_in_order(mock: Mock) -> None:
    """The mock answers requests that were sent together in order, with a 404 among them."""
    paths = ["latest/meta-data/mac", "no", "latest/meta-data/placement/region", "/latest/meta-data/instance-id/"]
    with mock.connect() as stream:
        stream.sendall(b"".join(f"GET /{path} HTTP/1.1\r\nHost: x\r\n\r\n".encode() for path in paths))
        answers = [read_reply(stream) for _ in paths]
    assert [answer[0] for answer in answers] == [200, 404, 200, 200]
    assert [answers[n][2] for n in (0, 2, 3)] == [b"02:00:00:00:13:38", b"us-east-1", ID]


def test_client_that_reads_late_gets_every_answer(mock: Mock) -> None:
    """A client that sends thousands of requests before it reads gets all answers, and meanwhile others get theirs."""
    request, count = b"GET / HTTP/1.1\r\n\r\n", 20_000
    with mock.connect() as stream, mock.connect() as other:
        stream.sendall(request)
        _, headers, body = read_reply(stream)
        fields = [f"{name}: {value}" for name, value in headers.items()]
        expected = count * len("\r\n".join(["HTTP/1.1 200 OK", *fields, "", ""]).encode() + body)
        sender = threading.Thread(target=stream.sendall, args=[request * count])
        sender.start()
        other.sendall(GET)
        assert read_reply(other)[0] == 200
        received = 0
        while received < expected:
            received += len(stream.recv(1 << 20))
        sender.join(TIMEOUT)
        stream.sendall(GET)
        assert (received, read_reply(stream)[2]) == (expected, ID)


def test_request_in_single_bytes_is_answered(mock: Mock) -> None:
    """The mock answers a request that arrives byte by byte, and ignores its body."""
    request = b"\r\nGET / HTTP/1.1\nContent-Length: 3\r\n\r\nabc"
    with mock.connect() as stream:
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for index in range(len(request)):
            stream.sendall(request[index : index + 1])
        assert read_reply(stream)[0] == 200
        stream.sendall(GET)
        assert read_reply(stream)[2] == ID


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /latest/meta-data/instance-id HTTP/1.0\r\n\r\n",
        b"GET /latest/meta-data/instance-id HTTP/1.0\nConnection: keep-alive\n\n",
        b"GET /latest/meta-data/instance-id HTTP/1.1\r\nConnection: close\r\n\r\n",
        b"GET /latest/meta-data/instance-id HTTP/1.1\r\nConnection: TE, Close\r\n\r\n",
        b"GET http://mock/latest/meta-data/instance-id HTTP/1.1\r\nConnection: close\r\n\r\n",
    ],
)
def test_connection_closes_when_the_client_asks(mock: Mock, request_bytes: bytes) -> None:
    """HTTP/1.0 and `Connection: close` get one answer with `Connection: close`; a later request gets none."""
    with mock.connect() as stream:
        stream.sendall(request_bytes + GET)
        status, headers, body = read_reply(stream)
        assert (status, headers["Connection"], body, stream.recv(1)) == (200, "close", ID, b"")


def test_half_closed_client_gets_its_answers_and_head_no_body(mock: Mock) -> None:
    """A client that closes its sending side gets its answers; HEAD has GET's headers and no body."""
    with mock.connect() as stream:
        stream.sendall(GET * 2)
        stream.shutdown(socket.SHUT_WR)
        assert ([read_reply(stream)[2] for _ in range(2)], stream.recv(1)) == ([ID, ID], b"")
    with mock.connect() as stream:
        stream.sendall(GET.replace(b"GET", b"HEAD") + GET.replace(b"HTTP/1.1", b"HTTP/1.0"))
        stream.shutdown(socket.SHUT_WR)
        received = b"".join(iter(lambda: stream.recv(65536), b""))
    head, second, body = received.split(b"\r\n\r\n")
    assert b"Content-Length: 19" in head
    assert second.startswith(b"HTTP/1.1 200 OK\r\n")
    assert body == ID


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 400),
        (b"GET  / HTTP/1.1\r\n\r\n", 400),
        (b"GET /\x9b31m HTTP/1.1\r\n\r\n", 400),
        (b"GET latest HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nName : value\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: b\x00c\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411),
        (b"POST / HTTP/1.1\r\nContent-Length: 65537\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n", 413),
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nA: " + b"a" * 70_000, 431),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 100_000 + b"\r\n", 431),
    ],
)
def test_invalid_request_is_refused_and_the_connection_closes(mock: Mock, request_bytes: bytes, status: int) -> None:
    """A malformed or too large request gets an error and a closed connection; the next client is served."""
    with mock.connect() as stream:
        stream.sendall(request_bytes)
        actual, headers, body = read_reply(stream)
        assert (actual, headers["Connection"], headers["Content-Type"]) == (status, "close", "text/plain")
        assert body.startswith(f"{status}: ".encode())
        assert stream.recv(1) == b""
    assert_served(mock)


def test_largest_head_and_body_are_accepted(mock: Mock) -> None:
    """A request head and body of exactly the limits are accepted."""
    head = b"POST / HTTP/1.1\r\nContent-Length: 65536\r\nA: "
    with mock.connect() as stream:
        stream.sendall(head + b"a" * (65536 - len(head)) + b"\r\n\r\n" + b"b" * 65536 + GET)
        assert [read_reply(stream)[0], read_reply(stream)[2]] == [405, ID]


def test_imdsv2_required_refuses_reads_without_a_token() -> None:
    """With --imdsv2 required a read is 401 unless it has a token from the PUT."""
    with running_mock("--imdsv2", "required") as mock, mock.connect() as stream:
        stream.sendall(GET)
        assert read_reply(stream)[0] == 401
        stream.sendall(b"PUT /latest/api/token HTTP/1.1\r\nX-aws-ec2-metadata-token-ttl-seconds: 60\r\n\r\n")
        status, headers, token = read_reply(stream)
        assert (status, headers["X-aws-ec2-metadata-token-ttl-seconds"]) == (200, "60")
        stream.sendall(GET[:-2] + b"X-AWS-EC2-Metadata-Token: " + token + b"\r\n\r\n")
        assert read_reply(stream)[2] == ID


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_stops_the_mock_at_once(mock: Mock, number: signal.Signals) -> None:
    """SIGTERM and SIGINT stop the mock with exit status 0 and without output, also with open connections."""
    with mock.connect() as idle, mock.connect() as halfway:
        idle.sendall(GET)
        read_reply(idle)
        halfway.sendall(GET[:20])
        took = mock.stop(number)
    assert mock.process.returncode == 0
    assert took < TIMEOUT / 2  # a generous limit, for a busy machine
    assert mock.remaining_lines() == ["imds-detourctl mock: 127.0.0.1 GET /latest/meta-data/instance-id 200 19 aws\n"]


def test_request_is_logged_in_one_line(mock: Mock) -> None:
    """A log line names client, method, path, status and size, and no header such as a token. --quiet logs none."""
    with mock.connect() as stream:
        stream.sendall(b"GET /no?x HTTP/1.1\r\nX-aws-ec2-metadata-token: secret\r\n\r\nbad\r\n\r\n")
        read_reply(stream)
        read_reply(stream)
    mock.stop()
    first, second = mock.remaining_lines()
    assert first.startswith("imds-detourctl mock: 127.0.0.1 GET /no?x 401 ")
    assert second.startswith("imds-detourctl mock: 127.0.0.1 - 400 ")
    with running_mock("--quiet") as quiet:
        assert_served(quiet)
        quiet.stop()
        assert quiet.remaining_lines() == []


def test_mock_serves_on_when_its_log_reader_has_gone() -> None:
    """The mock answers after the reader of its log has closed the pipe."""
    read, write = os.pipe()
    with subprocess.Popen([*COMMAND, "--listen", "127.0.0.1:0"], stderr=write) as process:
        try:
            os.close(write)
            with os.fdopen(read, encoding="utf-8") as stderr:
                port = int(stderr.readline().rpartition(":")[2])
            with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT) as stream:
                for _ in range(3):
                    stream.sendall(GET)
                    assert read_reply(stream)[2] == ID
        finally:
            process.kill()


def test_data_file_overrides_the_defaults(tmp_path: Path) -> None:
    """Values of --data replace default values, and the other defaults stay."""
    file = tmp_path / "mine.json"
    file.write_text("\ufeff" + json.dumps({"meta-data": {"instance-id": "i-mine"}}), encoding="utf-8")
    with running_mock("--data", str(file)) as mock, mock.connect() as stream:
        stream.sendall(GET + GET.replace(b"instance-id", b"mac"))
        assert [read_reply(stream)[2], read_reply(stream)[2]] == [b"i-mine", b"02:00:00:00:13:38"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "not JSON"),
        (b"\xff", "not UTF-8"),
        (b'{"metadata": {}}', "outermost level"),
        (b"[" * 200_000, "nested too deeply"),
        (None, "No such file"),
    ],
)
def test_invalid_data_file_is_refused_in_one_line(tmp_path: Path, content: bytes | None, reason: str) -> None:
    """A --data file that cannot be read or served is named in one line, with exit status 125."""
    file = tmp_path / "mine.json"
    if content is not None:
        file.write_bytes(content)
    line = start_failure("--listen", "127.0.0.1:0", "--data", str(file))
    assert str(file) in line
    assert reason in line


def test_port_in_use_is_refused_in_one_line(mock: Mock) -> None:
    """A port in use is named in one line with a remedy, also if it is the second address."""
    taken = f"127.0.0.1:{mock.port}"
    for arguments in (["--listen", taken], ["--listen", "127.0.0.1:0", "--listen", taken]):
        assert start_failure(*arguments) == (
            f"imds-detour: cannot listen on 127.0.0.1 port {mock.port}: "
            "it is in use; stop the program that listens there, or give another port with --listen\n"
        )


INVALID = (
    *("", "1338", ":1338", "127.0.0.1", "localhost:1338", "::1:1338", "[127.0.0.1]:1", "[]:1", "127.0.0.1:65536"),
    *("127.0.0.1:x", "127.0.0.1:", "127.1:80", "[::1]1338"),
)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        *((address, f"{address!r}; write it like 127.0.0.1:1338 or [::1]:1338\n") for address in INVALID),
        ("192.0.2.1:0", "192.0.2.1 port 0; give another address"),  # this machine does not have it
    ],
)
def test_invalid_or_foreign_address_is_refused_in_one_line(address: str, words: str) -> None:
    """An invalid --listen address, or one of another machine, is refused in one line that shows what to give."""
    assert start_failure("--listen", address).startswith(f"imds-detour: cannot listen on {words}")


def test_listen_adds_addresses_and_any_address_includes_both_families() -> None:
    """--listen adds an address, once if it is given twice; [::] answers IPv4 too, and IPv6 if the machine has it."""
    with running_mock("--listen", "127.0.0.2:0", "--listen", "127.0.0.1:0") as mock:
        assert_served(mock, "127.0.0.2")
        assert mock.ready.count("127.0.0.1:") == 1
    with running_mock(listen="[::]:0") as mock:
        hosts = ["127.0.0.1"]
        if "[::]" in mock.ready:
            assert mock.ready.endswith(f" on [::]:{mock.port}, 0.0.0.0:{mock.port}\n")
            hosts.append("::1")
        for host in hosts:
            assert_served(mock, host)
