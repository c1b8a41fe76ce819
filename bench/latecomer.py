"""A DNS server and a mock that appear on command: ``python bench/latecomer.py ADDRESS NAME PORT``.

Each line of input is a command. The answer is a line with the time at which it took effect, in nanoseconds of the
monotonic clock:

    dns on | off | silent    answer with the address; answer NXDOMAIN; do not answer
    http on | off | failing  listen on PORT at each address; refuse; answer 503
    address ADDRESS          change the name's address
    ttl SECONDS              change the TTL of the answers, 1 at first
    count                    answer the number of DNS questions since the last count instead
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from contextlib import suppress
from functools import partial
from typing import cast

import dns.message

from imds_detour.ctl.lab.nameserver import addresses, refusal

SO_RCVBUFFORCE, LARGE = 33, 4 << 20  # asm-generic/socket.h; bytes
NICENESS = -15  # nice(1)'s measure
EVERYWHERE = "0.0.0.0"  # noqa: S104  (in a network namespace of the benchmark)
TOKEN, INSTANCE = b"token-of-the-benchmark", b"i-1234567890abcdef0"


class NameServer(asyncio.DatagramProtocol):
    """A DNS server with one name."""

    def __init__(self, name: str, address: str) -> None:
        self._name, self.address = name, address
        self.state = "on"
        self.ttl = 1
        self.asked = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where to send replies."""
        self._transport = cast("asyncio.DatagramTransport", transport)  # Python 3.11's class has another base

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Answer according to the state."""
        self.asked += 1
        if self.state == "silent":
            return
        question = dns.message.from_wire(data)
        assert isinstance(question, dns.message.QueryMessage)
        known = self.state == "on"
        answer = addresses(question, self._name, [self.address], ttl=self.ttl)
        self._transport.sendto(answer if known else refusal(question, "NXDOMAIN"), addr)


class Mock(asyncio.Protocol):
    """A metadata service with a token and an instance id, as fast as possible."""

    status = b"200 OK"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where to send replies."""
        self._transport = cast("asyncio.Transport", transport)
        self._request = b""

    def data_received(self, data: bytes) -> None:
        """Answer at the end of the request's head; no client sends a body."""
        self._request += data
        if self._request.endswith(b"\r\n\r\n"):
            body = TOKEN if self._request.startswith(b"PUT ") else INSTANCE
            close = b"\nconnection: close" in self._request.lower()
            self._request = b""
            head = b"HTTP/1.1 %s\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n%s\r\n"
            self._transport.write(head % (self.status, len(body), b"Connection: close\r\n" if close else b"") + body)
            if close:
                self._transport.close()


async def serve(address: str, name: str, port: int) -> None:
    """Run commands until the input ends."""
    loop = asyncio.get_running_loop()
    # A name server that waits for a processor during 200 starts would be asked twice by libc.
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, NICENESS)
    transport, names = await loop.create_datagram_endpoint(lambda: NameServer(name, address), (address, 53))
    # Two questions of each of 200 starts are more than a socket holds by default, and libc repeats those after 5 s.
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, LARGE)
    listen = partial(loop.create_server, Mock, EVERYWHERE, port, backlog=1024)
    listener: asyncio.Server | None = await listen()
    commands = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    _write_line("ready")
    while command := (await commands.readline()).decode().split():
        now = time.monotonic_ns()
        match command:
            case ["dns", state]:
                names.state = state
            case ["http", "on"] if listener is None:
                listener = await listen()
            case ["http", "failing"]:
                Mock.status = b"503 Service Unavailable"
            case ["http", "off"] if listener is not None:
                listener.close()
                listener = None
            case ["ttl", seconds]:
                names.ttl = int(seconds)
            case ["address", to]:
                names.address = to
            case ["count"]:
                now, names.asked = names.asked, 0
        _write_line(str(now))


def _write_line(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], sys.argv[2], int(sys.argv[3])))
