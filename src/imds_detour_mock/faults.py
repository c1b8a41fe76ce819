"""Ways for the development mock to misbehave, so that an app's retries and time-outs can be tried."""

import asyncio
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from imds_detour_mock.clouds.messages import Answer, Reply, refuse
from imds_detour_mock.http_server import Connection, Server


@dataclass(frozen=True, slots=True)
class Failing:
    """Answers every so many requests with an error instead of what was asked for."""

    answer: Answer
    """Answers the other requests."""
    status: int
    """The HTTP status of the failures, 400 to 599."""
    every: int = 1
    """1 fails each request, 3 the third, the sixth and so on, counted over all clients."""
    count: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))
    """Numbers the requests."""

    def __call__(self, method: str, target: str, headers: Mapping[str, str], now: float) -> Reply:
        """Answer one request; an `Answer`."""
        reply = self.answer(method, target, headers, now)
        if next(self.count) % self.every:
            return reply
        return replace(refuse(self.status, "failed on purpose (--fail)"), cloud=reply.cloud)


class Slow(Connection):
    """A connection that gets to see what the client sent only after a delay, as if the way to the mock were long."""

    def __init__(self, server: Server, delay: float) -> None:
        super().__init__(server)
        self._delay = delay

    def data_received(self, data: bytes) -> None:
        """Wait before looking at it, and read on only after that, so that nothing piles up here."""
        self.transport.pause_reading()
        asyncio.get_running_loop().call_later(self._delay, self._late, data)

    def _late(self, data: bytes) -> None:
        super().data_received(data)
        if not self.stuck:
            self.transport.resume_reading()


class Hanging(Connection):
    """A connection that reads requests and logs them, and never answers."""

    def send(self, reply: Reply, what: str, last: bool, head: bool = False) -> None:  # noqa: ARG002 - as the base has it
        """Leave the client waiting."""
        self.log(f"{what} - 0 {reply.cloud}")
        if last:
            self.finish()


def connections(server: Server, *, delay: float = 0, hang: bool = False) -> Callable[[], Connection]:
    """Return what makes a connection that behaves, or does not: `delay` in seconds."""
    if hang:
        return lambda: Hanging(server)
    if delay:
        return lambda: Slow(server, delay)
    return lambda: Connection(server)
