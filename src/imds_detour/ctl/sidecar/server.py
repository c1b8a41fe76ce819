"""The sidecar's door: HTTP where the user asked for it, and a socket without a file for `imds-detourctl status`.

One thread, one connection at a time, each with little time: what is asked here are health checks. http.server would add
10 MB to the resident memory (measured as for the metrics in pages.py).
"""

from __future__ import annotations

import selectors
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from imds_detour import lean
from imds_detour.ctl.sidecar import pages
from imds_detour.ctl.sidecar.last_probe import ADDRESS, LastProbe
from imds_detour.errors import DetourError

if TYPE_CHECKING:
    from collections.abc import Callable

    from imds_detour.ctl.sidecar.state import State
    from imds_detour.endpoint import Endpoint

TIMEOUT = 1.0
"""Seconds for a client to send its request, and to take the answer."""
MAX_HEAD = 8192
"""Bytes of a request's head."""


class Server:
    """Answers from the latest state, in a thread of its own; it ends with the process."""

    def __init__(self, listen: Endpoint | None, latest: Callable[[], State]) -> None:
        """Listen, and start to answer.

        Raises:
            DetourError: when an address is taken: for the socket without a name, by another sidecar; or when there is
                no thread to be had.

        """
        self._latest = latest
        self._ready = selectors.DefaultSelector()
        self._add(_unix(), self._tell)
        if listen is not None:
            self._add(_tcp(listen), self._answer)
        try:
            lean.start(self._serve)
        except RuntimeError:
            raise DetourError(
                "sidecar",
                "cannot start a thread for those who ask how it stands",
                "raise the limit on processes (`pids_limit`, `ulimits`)",
            ) from None

    def _add(self, listener: socket.socket, handle: Callable[[socket.socket], None]) -> None:
        listener.listen(64)
        self._ready.register(listener, selectors.EVENT_READ, handle)

    def _serve(self) -> None:
        while True:
            for key, _ in self._ready.select():
                listener = key.fileobj
                assert isinstance(listener, socket.socket)  # noqa: S101  (nothing else was registered)
                with suppress(OSError):  # the client is gone, or too slow
                    connection, _ = listener.accept()
                    with connection:
                        connection.settimeout(TIMEOUT)
                        key.data(connection)

    def _tell(self, connection: socket.socket) -> None:
        state = self._latest()
        text = "; ".join(f"{each.name}: {each.text}" for each in state.services)
        probed = min(each.probed or each.since for each in state.services)
        connection.sendall(LastProbe(state.ready, text, probed).encode())

    def _answer(self, connection: socket.socket) -> None:
        give_up, head = time.monotonic() + TIMEOUT, b""
        while b"\r\n\r\n" not in head and len(head) < MAX_HEAD and time.monotonic() < give_up:
            data = connection.recv(MAX_HEAD)
            if not data:
                return
            head += data
        method, path, *_ = (*head.partition(b"\r\n")[0].decode("latin-1").split(" "), "", "")
        page = pages.answer(method, path, self._latest(), time.time())
        connection.sendall(page.encode(head=method == "HEAD"))


def _unix() -> socket.socket:
    door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        door.bind(ADDRESS)
    except OSError:
        door.close()
        raise DetourError(
            "sidecar",
            "another imds-detour sidecar is at work in this network namespace",
            "one is enough: stop one of the two",
        ) from None
    return door


def _tcp(listen: Endpoint) -> socket.socket:
    family = socket.AF_INET if listen.address.version == 4 else socket.AF_INET6
    door = socket.socket(family, socket.SOCK_STREAM)
    door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        door.bind((str(listen.address), listen.port))
    except OSError as error:
        door.close()
        raise DetourError(
            "sidecar", f"cannot listen on {listen}: {error.strerror}", "give another address with --listen"
        ) from None
    return door
