"""Servers that answer with their name: ``python tests/support/servers/identity.py NAME=ADDRESS,PORT...``.

Each TCP connection is answered with NAME and kept until the client ends it. A server at port 80 also answers UDP at
port 53.
"""

import selectors
import socket
import sys
from contextlib import suppress


def main() -> None:
    """Serve without end, in one thread."""
    selector = selectors.DefaultSelector()
    for argument in sys.argv[1:]:
        name, _, place = argument.partition("=")
        host, _, port = place.rpartition(",")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        tcp = socket.create_server((host, int(port)), family=family, backlog=1024)
        selector.register(tcp, selectors.EVENT_READ, name.encode())
        if port == "80":
            udp = socket.socket(family, socket.SOCK_DGRAM)
            udp.bind((host, 53))
            selector.register(udp, selectors.EVENT_READ, name.encode())
    sys.stdout.write("listening\n")
    sys.stdout.flush()
    while True:
        for key, _ in selector.select():
            with suppress(OSError):  # the client has left, or the network refuses the answer
                _serve(selector, key)


def _serve(selector: selectors.BaseSelector, key: selectors.SelectorKey) -> None:
    ready = key.fileobj
    assert isinstance(ready, socket.socket)
    if not key.data:  # a client: whatever comes is its end
        selector.unregister(ready)
        ready.close()
    elif ready.type == socket.SOCK_STREAM:
        client, _ = ready.accept()
        selector.register(client, selectors.EVENT_READ, b"")
        client.send(key.data)
    else:
        _, sender = ready.recvfrom(64)
        ready.sendto(key.data, sender)


if __name__ == "__main__":
    main()
