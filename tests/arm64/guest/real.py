"""The real service at the metadata addresses, and on a second port: it answers all requests with i-0real."""

import selectors
import socket

ADDRESSES = (("169.254.169.254", 80), ("169.254.169.254", 8080), ("169.254.170.2", 80), ("fd00:ec2::254", 80))


def main() -> None:
    """Serve until the machine ends."""
    ready = selectors.DefaultSelector()
    for address, port in ADDRESSES:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        server = socket.create_server((address, port), family=family)
        ready.register(server, selectors.EVENT_READ, server)
    while True:
        for key, _ in ready.select():
            connection, _ = key.data.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.0 200 OK\r\n\r\ni-0real")


main()
