"""A client that connects repeatedly: ``python tests/support/clients/reconnect.py ADDRESS PORT ENOUGH``.

It prints ``started`` after the first connection and ``enough`` after ENOUGH connections. When its input ends it prints
the counts as JSON, by server name or error.
"""

import json
import select
import socket
import struct
import sys
from collections import Counter

TIMEOUT = 3.0
"""Seconds for a connection: long enough for a first packet to be lost and sent again."""
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER that makes close() reset: neither side is left in TIME_WAIT, however many connections there are."""


def once(address: str, port: int) -> str:
    """Connect and return the name of the server that answers, or the error."""
    try:
        with socket.create_connection((address, port), timeout=TIMEOUT) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            return connection.recv(64).decode() or "nothing"
    except OSError as error:
        return type(error).__name__


def main() -> None:
    """Connect until the input ends."""
    address, port, enough = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    seen: Counter[str] = Counter()
    while seen.total() < enough or not select.select([sys.stdin], [], [], 0)[0]:
        seen[once(address, port)] += 1
        if said := {1: "started", enough: "enough"}.get(seen.total()):
            print(said, flush=True)  # noqa: T201  (a program)
    print(json.dumps(seen), flush=True)  # noqa: T201  (as above)


if __name__ == "__main__":
    main()
