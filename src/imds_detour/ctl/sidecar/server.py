"""The sidecar's server: HTTP where the user asked for it, and an abstract socket for `imds-detourctl status`.

One thread serves one connection at a time, each with a short timeout. http.server would need more memory than the rest
of the sidecar (bench/NOTES.md).
"""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Callable
from contextlib import suppress

from imds_detour.ctl.sidecar import pages
from imds_detour.ctl.sidecar.last_probe import ADDRESS, LastProbe
from imds_detour.ctl.sidecar.state import State
from imds_detour.endpoint import Endpoint
from imds_detour.errors import DetourError
from imds_detour.lean import start_thread

TIMEOUT = 1.0
"""Seconds for a client to send its request, and to take the answer."""
MAX_HEAD = 8192
"""Bytes of a request's head."""


def start_server(listen: Endpoint | None, latest: Callable[[], State]) -> None:
    """Answer `imds-detourctl status`, and HTTP at ``listen``, in a thread that ends with the process.

    ``latest`` returns the state to answer from.
    """
    server = _Server(latest)
    other = "another imds-detour sidecar is at work in this network namespace", "one is enough: stop one of the two"
    server.add(_bind(socket.AF_UNIX, ADDRESS, *other), server.answer_status)
    if listen is not None:
        family = socket.AF_INET if listen.address.version == 4 else socket.AF_INET6
        refused = f"cannot listen on {listen}: {{}}", "give another address with --listen"
        server.add(_bind(family, (str(listen.address), listen.port), *refused), server.answer_http)
    try:
        start_thread(server.serve)
    except RuntimeError:
        raise DetourError(
            "sidecar",
            "cannot start a thread that answers `imds-detourctl status`",
            "raise the limit on processes (`pids_limit`, `ulimits`)",
        ) from None


class _Server:
    def __init__(self, latest: Callable[[], State]) -> None:
        self._latest = latest
        self._selector = selectors.DefaultSelector()

    def add(self, listener: socket.socket, handle: Callable[[socket.socket], None]) -> None:
        listener.listen(64)
        self._selector.register(listener, selectors.EVENT_READ, handle)

    def serve(self) -> None:
        while True:
            for key, _ in self._selector.select():
                listener = key.fileobj
                assert isinstance(listener, socket.socket)  # noqa: S101  (nothing else was registered)
                with suppress(OSError):  # the client has left, or is too slow
                    connection, _ = listener.accept()
                    with connection:
                        connection.settimeout(TIMEOUT)
                        key.data(connection)

    def answer_status(self, connection: socket.socket) -> None:
        state = self._latest()
        text = "; ".join(f"{service.name}: {service.text}" for service in state.services)
        probed = min(service.probed or service.since for service in state.services)
        connection.sendall(LastProbe(state.ready, text, probed).encode())

    def answer_http(self, connection: socket.socket) -> None:
        deadline, head = time.monotonic() + TIMEOUT, b""
        while b"\r\n\r\n" not in head and len(head) < MAX_HEAD and time.monotonic() < deadline:
            data = connection.recv(MAX_HEAD)
            if not data:
                return
            head += data
        method, path, *_ = (*head.partition(b"\r\n")[0].decode("latin-1").split(" "), "", "")
        page = pages.answer(method, path, self._latest(), time.time())
        connection.sendall(page.encode(head=method == "HEAD"))


def _bind(family: int, address: str | tuple[str, int], problem: str, remedy: str) -> socket.socket:
    """Return a bound socket; DetourError if that fails. ``problem`` may have a field for the system's error."""
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise DetourError("sidecar", problem.format(error.strerror), remedy) from None
    return listener
