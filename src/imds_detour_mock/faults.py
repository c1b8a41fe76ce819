"""Faults of the development mock, to test an app's retries and timeouts."""

import asyncio
import http
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from imds_detour_mock.clouds.messages import Answer, Reply, refuse
from imds_detour_mock.http_server import Connection, Server

ERRORS = {status.value for status in http.HTTPStatus if status >= 400}  # statuses that a request can fail with


@dataclass(slots=True)
class Failures:
    """The requests that fail, counted over all clients."""

    status: int = 503  # the HTTP status of the next `left` requests
    left: int = 0  # how many of the next requests fail
    every: tuple[int, int] | None = None  # a status and N: each Nth request fails with the status

    def failing(self, answer: Answer) -> Answer:
        """Return an `Answer` that replies to some requests with an error."""
        numbers = itertools.count(1)

        def reply(method: str, target: str, headers: Mapping[str, str], now: float) -> Reply:
            usual = answer(method, target, headers, now)
            if self.left:
                self.left -= 1
                status, reason = self.status, "/fail"
            elif self.every and next(numbers) % self.every[1] == 0:
                status, reason = self.every[0], "--fail"
            else:
                return usual
            return replace(refuse(status, f"failed on purpose ({reason})"), cloud=usual.cloud)

        return reply


class DelayedConnection(Connection):
    """A connection that receives the client's data after a delay, as over a slow network."""

    def __init__(self, server: Server, delay: float) -> None:
        super().__init__(server)
        self._delay = delay

    def data_received(self, data: bytes) -> None:
        """Process the data after the delay, and read no more until then, to keep the buffer small."""
        self.transport.pause_reading()
        asyncio.get_running_loop().call_later(self._delay, self._process, data)

    def _process(self, data: bytes) -> None:
        super().data_received(data)
        if not self.paused:
            self.transport.resume_reading()


class HangingConnection(Connection):
    """A connection that reads and logs requests and never answers."""

    def send(self, reply: Reply, label: str, last: bool, head: bool = False) -> None:  # noqa: ARG002 - as in the base
        """Log the request and send nothing."""
        self.log(f"{label} - 0 {reply.cloud}")
        if last:
            self.finish()


def connection_factory(server: Server, *, delay: float = 0, hang: bool = False) -> Callable[[], Connection]:
    """Return the function that makes new connections, with a delay in seconds or without any answer."""
    if hang:
        return lambda: HangingConnection(server)
    if delay:
        return lambda: DelayedConnection(server, delay)
    return lambda: Connection(server)
