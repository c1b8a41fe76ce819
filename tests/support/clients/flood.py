"""A client that sends by each protocol to an address: ``python tests/support/clients/flood.py ADDRESS``.

It sends TCP to two ports, UDP, an echo request and an unknown protocol, without pauses. For each number N on its input
it makes N rounds and prints the outcomes by protocol, as JSON. It ends with its input.
"""

import errno
import json
import select
import socket
import struct
import sys
from collections.abc import Callable

TIMEOUT = 0.5
ECHO = {4: struct.pack("!BBHI", 8, 0, 0xF7FF, 0), 6: struct.pack("!BBHI", 128, 0, 0, 0)}
"""An echo request, by IP version; the kernel computes the checksum of version 6 alone."""
ICMP = {4: socket.IPPROTO_ICMP, 6: socket.IPPROTO_ICMPV6}
SCTP = 132
"""IANA's number of a protocol without a rule in either backend."""


def senders(address: str) -> dict[str, Callable[[], None]]:
    """Return a function for each protocol, which sends a packet to the address."""
    version = 6 if ":" in address else 4
    family = socket.AF_INET6 if version == 6 else socket.AF_INET
    host, _, *scope = socket.getaddrinfo(address, 0, family, socket.SOCK_DGRAM)[0][4]  # of a link-local address

    def tcp(port: int) -> None:
        socket.create_connection((address, port), timeout=TIMEOUT).close()

    def send(kind: socket.SocketKind, protocol: int, data: bytes, port: int) -> None:
        with socket.socket(family, kind, protocol) as sender:
            sender.sendto(data, (host, port, *scope))

    return {
        "tcp 80": lambda: tcp(80),
        "tcp 8080": lambda: tcp(8080),
        "udp": lambda: send(socket.SOCK_DGRAM, 0, b"x", 53),
        "icmp": lambda: send(socket.SOCK_RAW, ICMP[version], ECHO[version], 0),
        "other": lambda: send(socket.SOCK_RAW, SCTP, bytes(12), 0),
    }


def outcome(send: Callable[[], None]) -> str:
    """Send a packet and return the outcome."""
    try:
        send()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, type(error).__name__)
    return "sent"


def main() -> None:
    """Send until the input ends."""
    protocols = senders(sys.argv[1])
    while True:
        asked = select.select([sys.stdin], [], [], 0)[0]
        line = sys.stdin.readline() if asked else "1"
        if not line:
            return
        seen: dict[str, set[str]] = {name: set() for name in protocols}
        for _ in range(int(line)):
            for name, send in protocols.items():
                seen[name].add(outcome(send))
        if asked:
            print(json.dumps({name: sorted(outcomes) for name, outcomes in seen.items()}), flush=True)  # noqa: T201  (a program)


if __name__ == "__main__":
    main()
