"""The development mock as a program on loopback: what its clients see on the wire and its user on stderr."""

import json
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator

import pytest

from tests.support.servers.mock_process import COMMAND, GET, ID, READY, TIMEOUT, Mock, fails, reply, running


@pytest.fixture
def mock() -> Iterator[Mock]:
    """Return a running mock with default values."""
    with running() as started:
        yield started


def test_a_connection_is_kept(mock: Mock) -> None:
    """Requests follow each other on one connection, each answered with the full set of headers."""
    with mock.connect() as stream:
        for _ in range(3):
            stream.sendall(GET)
            assert reply(stream) == (
                200,
                {"Server": "imds-detour-mock", "Content-Type": "text/plain", "Content-Length": str(len(ID))},
                ID,
            )


def test_pipelined_requests_are_answered_in_order(mock: Mock) -> None:
    """Requests sent at once are answered one after the other, the unknown between them too."""
    paths = ["latest/meta-data/mac", "no", "latest/meta-data/placement/region", "/latest/meta-data/instance-id/"]
    with mock.connect() as stream:
        stream.sendall(b"".join(f"GET /{path} HTTP/1.1\r\nHost: x\r\n\r\n".encode() for path in paths))
        answers = [reply(stream) for _ in paths]
    assert [answer[0] for answer in answers] == [200, 404, 200, 200]
    assert [answers[n][2] for n in (0, 2, 3)] == [b"02:00:00:00:13:38", b"us-east-1", ID]


def test_a_client_that_reads_late_gets_every_answer(mock: Mock) -> None:
    """Thousands of requests sent before an answer is read are all answered, and others are served meanwhile."""
    request, count = b"GET / HTTP/1.1\r\n\r\n", 20_000
    with mock.connect() as stream, mock.connect() as other:
        stream.sendall(request)
        _, headers, body = reply(stream)
        fields = [f"{name}: {value}" for name, value in headers.items()]
        expected = count * len("\r\n".join(["HTTP/1.1 200 OK", *fields, "", ""]).encode() + body)
        sender = threading.Thread(target=stream.sendall, args=[request * count])
        sender.start()
        other.sendall(GET)
        assert reply(other)[0] == 200
        received = 0
        while received < expected:
            received += len(stream.recv(1 << 20))
        sender.join(TIMEOUT)
        stream.sendall(GET)
        assert (received, reply(stream)[2]) == (expected, ID)


def test_a_request_in_single_bytes_is_understood(mock: Mock) -> None:
    """A request, its body included, may arrive in as many pieces as it likes, and a body is ignored."""
    request = b"\r\nGET / HTTP/1.1\nContent-Length: 3\r\n\r\nabc"
    with mock.connect() as stream:
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for place in range(len(request)):
            stream.sendall(request[place : place + 1])
        assert reply(stream)[0] == 200
        stream.sendall(GET)
        assert reply(stream)[2] == ID


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
def test_the_connection_ends_when_the_client_wants_that(mock: Mock, request_bytes: bytes) -> None:
    """HTTP/1.0 and `Connection: close` get one answer that says so, and the end; a request behind is not answered."""
    with mock.connect() as stream:
        stream.sendall(request_bytes + GET)
        status, headers, body = reply(stream)
        assert (status, headers["Connection"], body) == (200, "close", ID)
        assert stream.recv(1) == b""


def test_a_client_may_close_its_half_first(mock: Mock) -> None:
    """A client that sends and then closes its direction still gets its answers."""
    with mock.connect() as stream:
        stream.sendall(GET * 2)
        stream.shutdown(socket.SHUT_WR)
        assert [reply(stream)[2] for _ in range(2)] == [ID, ID]
        assert stream.recv(1) == b""


def test_head_has_no_body(mock: Mock) -> None:
    """HEAD answers the headers of GET, its Content-Length included, and no body."""
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
def test_what_cannot_be_answered_is_refused_and_ends(mock: Mock, request_bytes: bytes, status: int) -> None:
    """A request that is malformed or too large is told so on a connection that then ends; the next client is served."""
    with mock.connect() as stream:
        stream.sendall(request_bytes)
        got, headers, body = reply(stream)
        assert (got, headers["Connection"], headers["Content-Type"]) == (status, "close", "text/plain")
        assert body.startswith(f"{status}: ".encode())
        assert stream.recv(1) == b""
    with mock.connect() as stream:
        stream.sendall(GET)
        assert reply(stream)[2] == ID


def test_the_largest_head_and_body_pass(mock: Mock) -> None:
    """A head and a body just within the limits are taken."""
    head = b"POST / HTTP/1.1\r\nContent-Length: 65536\r\nA: "
    with mock.connect() as stream:
        stream.sendall(head + b"a" * (65536 - len(head)) + b"\r\n\r\n" + b"b" * 65536 + GET)
        assert [reply(stream)[0], reply(stream)[2]] == [405, ID]


def test_imdsv2_required_needs_the_token() -> None:
    """With --imdsv2 required a read is 401 until it carries a token from the PUT."""
    with running("--imdsv2", "required") as mock, mock.connect() as stream:
        stream.sendall(GET)
        assert reply(stream)[0] == 401
        stream.sendall(b"PUT /latest/api/token HTTP/1.1\r\nX-aws-ec2-metadata-token-ttl-seconds: 60\r\n\r\n")
        status, headers, token = reply(stream)
        assert (status, headers["X-aws-ec2-metadata-token-ttl-seconds"]) == (200, "60")
        stream.sendall(GET[:-2] + b"X-AWS-EC2-Metadata-Token: " + token + b"\r\n\r\n")
        assert reply(stream)[2] == ID


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_at_once(mock: Mock, number: signal.Signals) -> None:
    """SIGTERM and SIGINT end the mock without waiting for open connections, with exit code 0 and in silence."""
    with mock.connect() as idle, mock.connect() as halfway:
        idle.sendall(GET)
        reply(idle)
        halfway.sendall(GET[:20])
        took = mock.stop(number)
    assert mock.process.returncode == 0
    assert took < TIMEOUT / 2  # it takes milliseconds; a busy machine may not have them to give
    assert mock.rest() == ["imds-detourctl mock: 127.0.0.1 GET /latest/meta-data/instance-id 200 19 aws\n"]


def test_each_request_is_logged_in_one_line(mock: Mock) -> None:
    """The log names client, method, path, status and size, and never a header such as a token."""
    with mock.connect() as stream:
        stream.sendall(b"GET /no?x HTTP/1.1\r\nX-aws-ec2-metadata-token: secret\r\n\r\nbad\r\n\r\n")
        reply(stream)
        reply(stream)
    mock.stop()
    first, second = mock.rest()
    assert first.startswith("imds-detourctl mock: 127.0.0.1 GET /no?x 401 ")
    assert second.startswith("imds-detourctl mock: 127.0.0.1 - 400 ")


def test_quiet_logs_nothing() -> None:
    """With --quiet nothing follows the handshake."""
    with running("--quiet") as mock:
        with mock.connect() as stream:
            stream.sendall(GET)
            assert reply(stream)[2] == ID
        mock.stop()
        assert mock.rest() == []


def test_it_goes_on_when_nobody_reads_its_log() -> None:
    """A log whose reader is gone does not stop the answers."""
    read, write = os.pipe()
    with subprocess.Popen([*COMMAND, "--listen", "127.0.0.1:0"], stderr=write) as process:
        try:
            os.close(write)
            with os.fdopen(read, encoding="utf-8") as stderr:
                port = int(stderr.readline().rpartition(":")[2])
            with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT) as stream:
                for _ in range(3):
                    stream.sendall(GET)
                    assert reply(stream)[2] == ID
        finally:
            process.kill()


def test_a_users_file_is_merged(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Values of --data are served in place of the defaults, which stay beside them."""
    file = tmp_path_factory.mktemp("data") / "mine.json"
    file.write_text("\ufeff" + json.dumps({"meta-data": {"instance-id": "i-mine"}}), encoding="utf-8")
    with running("--data", str(file)) as mock, mock.connect() as stream:
        stream.sendall(GET + GET.replace(b"instance-id", b"mac"))
        assert [reply(stream)[2], reply(stream)[2]] == [b"i-mine", b"02:00:00:00:13:38"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "not JSON"),
        (b"\xff", "not UTF-8"),
        (b'{"metadata": {}}', "outermost level"),
        (b"[" * 200_000, "nested too deeply"),
        (None, "No such file"),
    ],
)
def test_a_bad_file_is_one_line(tmp_path_factory: pytest.TempPathFactory, content: bytes | None, words: str) -> None:
    """A --data file that cannot be read or served is named in one line, with exit status 125."""
    file = tmp_path_factory.mktemp("data") / "mine.json"
    if content is not None:
        file.write_bytes(content)
    line = fails("--listen", "127.0.0.1:0", "--data", str(file))
    assert str(file) in line
    assert words in line


def test_a_port_in_use_is_one_line(mock: Mock) -> None:
    """A port that is taken is named in one line with the way out, even as the second address."""
    taken = f"127.0.0.1:{mock.port}"
    for arguments in (["--listen", taken], ["--listen", "127.0.0.1:0", "--listen", taken]):
        assert fails(*arguments) == (
            f"imds-detour: cannot listen on 127.0.0.1 port {mock.port}: "
            "it is in use; stop what listens there, or give another port with --listen\n"
        )


@pytest.mark.parametrize(
    "address",
    [
        *("", "1338", ":1338", "127.0.0.1", "localhost:1338", "::1:1338", "[127.0.0.1]:1", "[]:1", "127.0.0.1:65536"),
        *("127.0.0.1:x", "127.0.0.1:", "127.1:80", "[::1]1338"),
    ],
)
def test_a_bad_address_is_one_line(address: str) -> None:
    """An address that is none is refused in one line that shows how to write one."""
    assert fails("--listen", address) == (
        f"imds-detour: cannot listen on {address!r}; write it like 127.0.0.1:1338 or [::1]:1338\n"
    )


def test_an_address_of_another_machine_is_one_line() -> None:
    """An address this machine does not have is refused in one line."""
    assert "cannot listen on 192.0.2.1 port 0; give another address" in fails("--listen", "192.0.2.1:0")


def test_several_addresses_each_listen() -> None:
    """--listen may be repeated, and the same one twice counts once."""
    with running("--listen", "127.0.0.2:0", "--listen", "127.0.0.1:0") as mock:
        with socket.create_connection(("127.0.0.2", mock.port), timeout=TIMEOUT) as stream:
            stream.sendall(GET)
            assert reply(stream)[2] == ID
        assert mock.ready.count("127.0.0.1:") == 1


def test_every_address_means_both_families() -> None:
    """[::] answers IPv4 clients on the same port, and IPv6 clients where the machine has IPv6."""
    with running(listen="[::]:0") as mock:
        hosts = ["127.0.0.1"]
        if "[::]" in mock.ready:
            assert mock.ready == f"{READY}[::]:{mock.port}, 0.0.0.0:{mock.port}\n"
            hosts.append("::1")
        for host in hosts:
            with socket.create_connection((host, mock.port), timeout=TIMEOUT) as stream:
                stream.sendall(GET)
                assert reply(stream)[2] == ID
