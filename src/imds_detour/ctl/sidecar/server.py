"""The sidecar's server: HTTP where the user asked for it, and an abstract socket for `imds-detourctl status`.

One thread serves a bounded number of clients at the same time, each until its deadline. http.server would need more
memory than the rest of the sidecar (bench/NOTES.md).
"""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from selectors import EVENT_READ, EVENT_WRITE, DefaultSelector

from imds_detour.ctl.sidecar import last_probe, pages
from imds_detour.ctl.sidecar.last_probe import LastProbe
from imds_detour.ctl.sidecar.state import State
from imds_detour.endpoint import Endpoint
from imds_detour.errors import DetourError
from imds_detour.lean import start_thread
from imds_detour.log import Log

TIMEOUT = 2.0
"""Seconds for a client to send its request and to take the answer."""
MAX_CLIENTS = 32
"""Clients at the same time. One more replaces the oldest: an honest one needs some milliseconds."""
MAX_HEAD = 8192
"""Bytes of a request's head."""
PAUSE = 0.1
"""Seconds to wait when no client can be accepted, and for another sidecar to listen."""

Work = Iterator[int]
"""What is done for a socket: it yields the event to wait for."""


def start_server(listen: Endpoint | None, latest: Callable[[], State], log: Log) -> None:
    """Answer `imds-detourctl status`, and HTTP at ``listen``, in a thread that ends with the process.

    ``latest`` returns the state to answer from. Raises DetourError if another sidecar is at work.
    """
    server = _Server(latest)
    other = "another imds-detour sidecar is at work in this network namespace", "one is enough: stop one of the two"
    try:
        server.add(_bind(socket.AF_UNIX, last_probe.ADDRESS, *other), server.answer_status)
    except DetourError:
        if _is_at_work():
            raise
        problem = "a process of another user holds the sidecar's socket"
        log.warning(f"{problem}: `imds-detourctl status` lacks the last probe")
    if listen is not None:
        host, family = str(listen.address), socket.AF_INET if listen.address.version == 4 else socket.AF_INET6
        if host == "::" and not socket.has_dualstack_ipv6():  # a kernel without IPv6; otherwise "::" is IPv4 too
            host, family = "0.0.0.0", socket.AF_INET  # noqa: S104  (the user asked for every address)
        refused = f"cannot listen on {listen}: {{}}", "give another address with --listen"
        server.add(_bind(family, (host, listen.port), *refused), server.answer_http)
    try:
        start_thread(server.serve)
    except RuntimeError:
        reason = "cannot start a thread that answers `imds-detourctl status`"
        raise DetourError("sidecar", reason, "raise the limit on processes (`pids_limit`, `ulimits`)") from None


class _Server:
    def __init__(self, latest: Callable[[], State]) -> None:
        self._latest = latest
        self._selector = DefaultSelector()
        self._ends: dict[socket.socket, float] = {}  # each client's deadline by time.monotonic(), the oldest first

    def add(self, listener: socket.socket, answer: Callable[[socket.socket], Work]) -> None:
        listener.listen(64)
        listener.setblocking(False)
        self._selector.register(listener, EVENT_READ, self._accept(listener, answer))

    def serve(self) -> None:
        while True:
            first = next(iter(self._ends.values()), None)
            timeout = None if first is None else max(0.0, first - time.monotonic())
            for key, _ in self._selector.select(timeout):
                assert isinstance(key.fileobj, socket.socket)  # noqa: S101  (nothing else was registered)
                if key.fileobj.fileno() >= 0:  # else a new client has just replaced it
                    self._continue(key.fileobj, key.data)
            now = time.monotonic()
            for connection in [connection for connection, end in self._ends.items() if end <= now]:
                self._drop(connection)

    def answer_status(self, connection: socket.socket) -> Work:
        state = self._latest()
        text = "; ".join(f"{service.name}: {service.text}" for service in state.services)
        probed = min(service.probed or service.since for service in state.services)
        return _send(connection, LastProbe(state.ready, text, time.monotonic() - probed).encode())

    def answer_http(self, connection: socket.socket) -> Work:
        head = b""
        while b"\r\n\r\n" not in head and len(head) < MAX_HEAD:
            yield EVENT_READ
            if not (data := connection.recv(MAX_HEAD)):
                return
            head += data
        method, path, *_ = (*head.partition(b"\r\n")[0].decode("latin-1").split(" "), "", "")
        page = pages.answer(method, path, self._latest(), time.monotonic())
        yield from _send(connection, page.encode(head=method == "HEAD"))

    def _accept(self, listener: socket.socket, answer: Callable[[socket.socket], Work]) -> Work:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:  # the client has left, or there is no descriptor for it
                time.sleep(PAUSE)
            else:
                if len(self._ends) >= MAX_CLIENTS:
                    self._drop(next(iter(self._ends)))
                connection.setblocking(False)
                self._ends[connection] = time.monotonic() + TIMEOUT
                self._selector.register(connection, EVENT_READ)
                self._continue(connection, answer(connection))
            yield EVENT_READ

    def _continue(self, connection: socket.socket, work: Work) -> None:
        try:
            self._selector.modify(connection, next(work), work)
        except (StopIteration, OSError):  # it is served, or has left
            self._drop(connection)

    def _drop(self, connection: socket.socket) -> None:
        self._selector.unregister(connection)
        del self._ends[connection]
        connection.close()


def _send(connection: socket.socket, data: bytes) -> Work:
    while data:
        yield EVENT_WRITE
        data = data[connection.send(data) :]


def _is_at_work() -> bool:
    """Return whether the process that holds the sidecar's socket can be another sidecar."""
    for _ in range(2):
        with suppress(OSError), socket.socket(socket.AF_UNIX) as other:
            return last_probe.connect(other, last_probe.TIMEOUT)
        time.sleep(PAUSE)  # it may be about to listen
    return False


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
