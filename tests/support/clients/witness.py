"""A client that asks metadata addresses all the time: ``python tests/support/clients/witness.py ADDRESS...``.

For each line of input it asks every address once more, and prints a JSON object: the answer of each address now, and
how often the real service has answered since the line before. It asks in between only after the line ``hammer``.
"""

import json
import select
import socket
import sys
from itertools import cycle

TIMEOUT = 3.0
REAL = "R"
"""What the fake real service says (tests/support/servers/identity.py). It does not wait for a request."""


def ask(address: str) -> str:
    """Return ``mock`` for an answer over HTTP, ``R`` for the real service's, or the error's name."""
    try:
        with socket.create_connection((address, 80), timeout=TIMEOUT) as connection:
            connection.sendall(b"GET /latest/meta-data/instance-id HTTP/1.0\r\nHost: 169.254.169.254\r\n\r\n")
            answer = connection.recv(64)
    except OSError as error:
        return type(error).__name__
    return "mock" if answer.startswith(b"HTTP/") else answer.decode()


def main() -> None:
    """Ask until the input ends."""
    hammers, real = False, 0
    for address in cycle(sys.argv[1:]):
        if select.select([sys.stdin], [], [], 0 if hammers else None)[0]:
            line = sys.stdin.readline()
            if not line:
                return
            hammers = line == "hammer\n"
            answers = {asked: ask(asked) for asked in sys.argv[1:]}
            real += list(answers.values()).count(REAL)
            print(json.dumps({"answers": answers, "real": real}), flush=True)  # noqa: T201  (a program)
            real = 0
        elif hammers:
            real += ask(address) == REAL


if __name__ == "__main__":
    main()
