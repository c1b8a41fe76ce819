"""A proxy that refuses all requests: ``python trap.py PORT`` on loopback prints one line per request."""

import socket
import sys

REFUSAL = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


def refuse(connection: socket.socket) -> None:
    """Print the request of a connection, refuse it and close, so that clients do not wait."""
    with connection:
        connection.settimeout(2)
        try:
            first = connection.recv(65536).partition(b"\r\n")[0]
            write_line(first.decode(errors="replace") or "a connection without a request")
            connection.sendall(REFUSAL)
        except OSError as error:
            write_line(f"a failed connection: {error}")


def write_line(line: str) -> None:
    """Print a line and flush it."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """Listen until killed. Connections are handled one after the other, so the lines are in their order."""
    listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
    write_line("listening")
    while True:
        refuse(listener.accept()[0])


if __name__ == "__main__":
    main()
