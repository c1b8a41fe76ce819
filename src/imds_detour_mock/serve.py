"""Start the development mock: options, data and faults become a server."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from imds_detour_mock.clouds.credentials import Rotation
from imds_detour_mock.clouds.dispatch import make_clouds
from imds_detour_mock.clouds.notices import Notices
from imds_detour_mock.control import USAGE, Control
from imds_detour_mock.credential_process import CredentialProcess, ProcessError
from imds_detour_mock.faults import Failures, connection_factory
from imds_detour_mock.http_server import Connection, Server
from imds_detour_mock.listening import StartError, serve_until_signal, start_listening
from imds_detour_mock.values import read_values


@dataclass(frozen=True, slots=True)
class Options:
    """What the mock serves, and how. Times are in seconds; a time of None means that the event does not happen."""

    addresses: tuple[tuple[str, int], ...]  # hosts and ports to listen on
    data: str | None = None  # the path of a JSON file that overrides built-in values
    require_token: bool = False  # refuse an EC2 read without a session token (IMDSv2 only)
    log_requests: bool = True  # log a line per request
    credentials_ttl: float | None = None  # lifetime of rotating credentials
    spot_in: float | None = None  # time from the start to EC2's Spot interruption notice
    rebalance_in: float | None = None  # time from the start to EC2's rebalance recommendation
    delay: float = 0  # delay of each answer
    hang: bool = False  # never answer
    fail: tuple[int, int] | None = None  # an HTTP status, and N to fail each Nth request with it
    control: tuple[str, int] | None = None  # host and port of the control path
    command: tuple[str, ...] = ()  # the credential process, which prints AWS credentials, and its arguments
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)  # the environment of the credential process


def serve(options: Options, write_line: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT. `write_line` takes the addresses, once the mock listens, and the request log.

    Raises `StartError` if the mock cannot listen, or if the credential process fails.
    """
    start = time.time()
    process = CredentialProcess(options.command, options.environ, write_line) if options.command else None
    rotation = Rotation(options.credentials_ttl, start, issued=process.current if process else None)
    delays = (options.spot_in, options.rebalance_in)
    notices = Notices(*(None if delay is None else start + delay for delay in delays))
    failures = Failures(every=options.fail)
    clouds = make_clouds(
        read_values(options.data), require_token=options.require_token, rotation=rotation, notices=notices
    )
    server = Server(failures.failing(clouds.answer), write_line if options.log_requests else lambda _line: None)
    control = Control(notices, rotation, failures, process.rotate if process else lambda: None)
    asyncio.run(serve_until_signal(_serve(options, server, control, process, write_line), write_line))


async def _serve(
    options: Options,
    server: Server,
    control: Control,
    process: CredentialProcess | None,
    write_line: Callable[[str], None],
) -> None:
    """Serve until a cancellation, which closes all connections."""
    if process:
        try:
            await process.refresh()
        except ProcessError as error:
            raise StartError(f"--credential-process: {error}", "run the command in a terminal to see why") from None
    connect = connection_factory(server, delay=options.delay, hang=options.hang)
    controller = replace(server, answer=control.answer)
    with contextlib.ExitStack() as listeners:
        addresses = dict.fromkeys(options.addresses)
        bound = [await start_listening(connect, *address, listeners, "--listen") for address in addresses]
        lines = [f"listening on {', '.join(bound)}"]
        if options.control:
            bound_control = await start_listening(
                lambda: Connection(controller), *options.control, listeners, "--control"
            )
            lines.append(f"control on http://{bound_control} ({USAGE})")
        for line in lines:
            write_line(line)
        try:
            await (process.refresh_forever() if process else asyncio.Event().wait())
        finally:
            for connection in tuple(server.connections):
                connection.transport.abort()
            await asyncio.sleep(0)  # the loop closes the aborted sockets in its next round
