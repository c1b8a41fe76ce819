"""Clients of the development mock that leave early, or that stay and use up its descriptors."""

import asyncio
import contextlib
import os
import resource
import socket
import struct
import sys

import pytest

from imds_detour_mock.listening import serve_until_signal
from tests.blackbox.test_mock_server import assert_served
from tests.support.servers.mock_process import COMMAND, GET, TIMEOUT, Mock, read_reply, running_mock

CHUNKED = b"POST /fail HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel"
HEAD = b"POST / HTTP/1.1\r\nContent-Length: 60000\r\n\r\n"
SENT = {
    "nothing": b"",
    "half a request": GET[:20],
    "half a body": HEAD + b"x" * 1000,
    "half a chunk": CHUNKED,
    "a request": GET,
    "a last request": GET.replace(b"HTTP/1.1", b"HTTP/1.0"),
    "many requests": GET * 5000,
}
"""What a client sends before it leaves."""
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: a close sends RST


def leave(stream: socket.socket, how: str) -> None:
    """Leave a connection without reading: by a FIN, by a reset, or by a FIN of the client's side and then a reset."""
    with contextlib.suppress(OSError):  # the mock may have closed first
        if how == "half-closed":
            stream.shutdown(socket.SHUT_WR)
        if how != "closed":
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    stream.close()


def assert_only_requests_are_logged(mock: Mock) -> None:
    """Stop the mock, and require that each line on stderr is one of the log's requests."""
    with mock.connect() as stream:
        stream.sendall(GET)
        assert read_reply(stream)[0] in {200, 503}
    mock.stop()
    assert mock.process.returncode == 0
    lines = mock.remaining_lines()
    assert [line for line in lines if not line.startswith("imds-detourctl mock: 127.0.0.1 ")] == []
    assert lines  # the control: the last client's request is logged


@pytest.mark.parametrize("flags", [(), ("--delay", "0.05"), ("--fail", "503:2")], ids=["plain", "slow", "failing"])
def test_client_that_leaves_early_causes_no_traceback(flags: tuple[str, ...]) -> None:
    """Clients that leave by FIN or reset, at any moment of a request or a reply, cause no line but the log's."""
    with running_mock(*flags) as mock:
        for sent in SENT.values():
            for how in ("closed", "reset", "half-closed"):
                for reads in (False, True):
                    stream = mock.connect()
                    with contextlib.suppress(OSError):
                        stream.sendall(sent)
                        if reads and sent.startswith(GET[:4]) and len(sent) > 20:
                            stream.recv(10)
                    leave(stream, how)
        assert_only_requests_are_logged(mock)


def test_hanging_mock_survives_clients_that_leave() -> None:
    """With --hang, clients that leave cause no line but the log's, and a stop ends the mock."""
    with running_mock("--hang") as mock:
        for how in ("closed", "reset", "half-closed"):
            stream = mock.connect()
            stream.sendall(GET)
            mock.lines.get(timeout=TIMEOUT)
            leave(stream, how)
        mock.stop()
        assert (mock.process.returncode, mock.remaining_lines()) == (0, [])


def test_unexpected_error_of_a_connection_is_one_line() -> None:
    """An error that asyncio would print with a traceback is one line that names it, and the mock serves on."""
    lines: list[str] = []

    async def serve() -> None:
        asyncio.get_running_loop().call_soon(int, "x")
        await asyncio.sleep(0.01)  # the loop's next rounds
        lines.append("served on")

    asyncio.run(serve_until_signal(serve(), lines.append))
    assert lines[0].startswith("a connection failed: Exception in callback")
    assert (len(lines), "\n" in lines[0], lines[1]) == (2, False, "served on")


LIMIT, CLIENTS = 64, 200
LIMITED = f"import os, resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, ({LIMIT}, {LIMIT})); "
LIMITED += "os.execv(sys.argv[1], sys.argv[1:])"


@pytest.fixture
def limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start mocks with LIMIT descriptors."""
    command = [sys.executable, "-c", LIMITED, *COMMAND]
    monkeypatch.setattr("tests.support.servers.mock_process.COMMAND", command)


@pytest.mark.usefixtures("limited")
def test_idle_clients_beyond_the_limit_cause_one_line_and_the_mock_recovers() -> None:
    """200 idle clients at a limit of 64 descriptors cause one line; when they leave, the mock answers again."""
    with running_mock("--quiet") as mock, contextlib.ExitStack() as clients:
        assert resource.prlimit(mock.process.pid, resource.RLIMIT_NOFILE)[0] == LIMIT
        idle = [clients.enter_context(mock.connect()) for _ in range(CLIENTS)]
        line = mock.lines.get(timeout=TIMEOUT)
        assert line.startswith("imds-detourctl mock: new clients wait: too many open files (limit 64); ")
        assert len(os.listdir(f"/proc/{mock.process.pid}/fd")) == LIMIT  # the control: it has reached the limit
        waiting = idle[-1]
        waiting.settimeout(TIMEOUT)
        waiting.sendall(GET)
        for stream in idle[:-1]:
            stream.close()
        assert read_reply(waiting)[0] == 200
        assert_served(mock)
        mock.stop()
        assert mock.remaining_lines() == []
