"""Faults of the development mock, to test an app's retries and timeouts."""

import asyncio
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from imds_detour_mock.clouds.messages import Answer, Reply, refuse
from imds_detour_mock.http_server import Connection, Server


@dataclass(frozen=True, slots=True)
class FailingAnswer:
    """An `Answer` that replies to each Nth request with an error."""

    answer: Answer
    """Answers the other requests."""
    status: int
    """The HTTP status of the errors, 400 to 599."""
    every: int = 1
    """N: 1 fails all requests, 3 the third, the sixth and so on, counted over all clients."""
    count: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))
    """Numbers the requests."""

    def __call__(self, method: str, target: str, headers: Mapping[str, str], now: float) -> Reply:
        """Answer one request, as an `Answer`."""
        reply = self.answer(method, target, headers, now)
        if next(self.count) % self.every:
            return reply
        return replace(refuse(self.status, "failed on purpose (--fail)"), cloud=reply.cloud)


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
