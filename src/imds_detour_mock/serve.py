"""Start the development mock: options, data and faults become a server."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from imds_detour_mock.clouds.credentials import Rotation
from imds_detour_mock.clouds.dispatch import make_clouds
from imds_detour_mock.clouds.messages import Answer
from imds_detour_mock.clouds.notices import Notices
from imds_detour_mock.faults import connection_factory, failing
from imds_detour_mock.http_server import Server
from imds_detour_mock.listening import serve_until_signal
from imds_detour_mock.values import read_values


@dataclass(frozen=True, slots=True)
class Options:
    """What the mock serves, and how. Times are in seconds; a time of None means that the event does not happen."""

    addresses: tuple[tuple[str, int], ...]
    """Hosts and ports to listen on."""
    data: str | None = None
    """The path of a JSON file that overrides built-in values."""
    require_token: bool = False
    """Refuse an EC2 read without a session token (IMDSv2 only)."""
    log_requests: bool = True
    """Log a line per request."""
    credentials_ttl: float | None = None
    """Lifetime of rotating credentials."""
    spot_in: float | None = None
    """Time from the start to EC2's Spot interruption notice."""
    rebalance_in: float | None = None
    """Time from the start to EC2's rebalance recommendation."""
    delay: float = 0
    """Delay of each answer."""
    hang: bool = False
    """Never answer."""
    fail: tuple[int, int] | None = None
    """An HTTP status, and N to fail each Nth request with it."""


def make_answer(options: Options, start: float) -> Answer:
    """Return the function that answers requests. The options' times count from `start`, in seconds since 1970."""

    def due(delay: float | None) -> float | None:
        return None if delay is None else start + delay

    answer = make_clouds(
        read_values(options.data),
        require_token=options.require_token,
        rotation=None if options.credentials_ttl is None else Rotation(options.credentials_ttl, start),
        notices=Notices(due(options.spot_in), due(options.rebalance_in)),
    ).answer
    return failing(answer, *options.fail) if options.fail else answer


def serve(options: Options, write_line: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT. `write_line` takes the addresses, once the mock listens, and the request log."""
    server = Server(make_answer(options, time.time()), write_line if options.log_requests else lambda _line: None)
    connect = connection_factory(server, delay=options.delay, hang=options.hang)
    asyncio.run(serve_until_signal(server, connect, options.addresses, write_line))
