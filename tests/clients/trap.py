"""A proxy that nobody should use: ``python trap.py PORT`` on loopback says which requests came, one a line."""

from __future__ import annotations

import socket
import sys

REFUSAL = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


def refuse(connection: socket.socket) -> None:
    """Say what a connection is for, and end it at once, so that clients do not wait."""
    with connection:
        connection.settimeout(2)
        try:
            first = connection.recv(65536).partition(b"\r\n")[0]
            say(first.decode(errors="replace") or "a connection without a request")
            connection.sendall(REFUSAL)
        except OSError as error:
            say(f"a connection that broke: {error}")


def say(line: str) -> None:
    """Print a line in one piece."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """Listen until killed. One connection after the other: what is said of the last one comes after all the others."""
    listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
    say("listening")
    while True:
        refuse(listener.accept()[0])


if __name__ == "__main__":
    main()
