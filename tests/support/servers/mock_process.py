"""The development mock as a process on loopback."""

import contextlib
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

COMMAND = [sys.executable, "-W", "error", "-m", "imds_detour.ctl.main", "mock"]
READY = "imds-detourctl mock: listening on "
GET = b"GET /latest/meta-data/instance-id HTTP/1.1\r\nHost: mock\r\n\r\n"
ID = b"i-1234567890abcdef0"
TIMEOUT = 10.0  # seconds until a wait fails the test


@dataclass(frozen=True, slots=True)
class Mock:
    """A running mock."""

    process: subprocess.Popen[str]
    ready: str
    """Its first line, which names the addresses."""
    lines: queue.Queue[str]
    """The lines on stderr after the first one, and an empty string at their end."""

    @property
    def port(self) -> int:
        """The port of the last address in the first line."""
        return int(self.ready.rpartition(":")[2])

    def connect(self) -> socket.socket:
        """Return a new connection to the mock."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=TIMEOUT)

    def stop(self, number: int = signal.SIGTERM) -> float:
        """Send a signal and return the seconds until the process ended."""
        start = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(TIMEOUT)
        return time.monotonic() - start

    def remaining_lines(self) -> list[str]:
        """Return all lines on stderr that were not read yet."""
        return list(iter(lambda: self.lines.get(timeout=TIMEOUT), ""))


def drain(stderr: IO[str], lines: "queue.Queue[str]") -> None:
    """Put all lines into the queue, then an empty string."""
    for line in iter(stderr.readline, ""):
        lines.put(line)
    lines.put("")


@contextlib.contextmanager
def running_mock(*arguments: str, listen: str = "127.0.0.1:0") -> Iterator[Mock]:
    """Run a mock on a free port and wait until it listens."""
    with subprocess.Popen([*COMMAND, "--listen", listen, *arguments], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines: queue.Queue[str] = queue.Queue()
        # A thread reads the log, so that the mock never waits for a reader.
        reader = threading.Thread(target=drain, args=[process.stderr, lines])
        reader.start()
        try:
            first = lines.get(timeout=TIMEOUT)
            assert first.startswith(READY), first
            yield Mock(process, first, lines)
        finally:
            process.kill()
            reader.join(TIMEOUT)


def read_reply(stream: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Read exactly one reply, to a request other than HEAD, and return status, headers and body."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = stream.recv(1)
        assert byte, f"the connection ended after {head!r}"
        head += byte
    status, *fields = head.decode().split("\r\n")[:-2]
    headers = dict(field.split(": ", 1) for field in fields)
    body = b""
    while len(body) < int(headers["Content-Length"]):
        body += stream.recv(int(headers["Content-Length"]) - len(body))
    return int(status.split()[1]), headers, body


def start_failure(*arguments: str) -> str:
    """Run a mock that cannot start and return its error, one line as of any failing verb."""
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert done.returncode == 125, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("imds-detour: ")
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr
