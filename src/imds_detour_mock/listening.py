"""Listen on addresses and serve until a signal."""

import asyncio
import contextlib
import errno
import ipaddress
import re
import signal
from collections.abc import Callable, Iterable

from imds_detour.errors import DetourError
from imds_detour_mock.http_server import Connection, Server

_ADDRESS = re.compile(r"(?:\[(?P<v6>[^\[\]]+)\]|(?P<v4>[^:\[\]]+)):(?P<port>[0-9]{1,5})")
_NO_SUCH_FAMILY = {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, None}  # None: newer asyncio raises it without a number
_REMEDIES = {
    errno.EADDRINUSE: (": it is in use", "stop the program that listens there, or give another port with --listen"),
    errno.EACCES: (": not permitted", "ports below 1024 need root: give another port with --listen"),
}
_OTHER_REMEDY = ("", "give another address with --listen")


class StartError(DetourError):
    """The mock cannot start."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__("mock", reason, remedy)


def parse_address(text: str) -> tuple[str, int]:
    """Return the host and the port of `IPv4:port` or `[IPv6]:port`; raise `StartError` for any other text."""
    match = _ADDRESS.fullmatch(text)
    with contextlib.suppress(ValueError):  # ipaddress raises it for text that is no address
        if match and int(match["port"]) <= 65535:
            v6 = match["v6"]
            return str(ipaddress.IPv6Address(v6) if v6 else ipaddress.IPv4Address(match["v4"])), int(match["port"])
    raise StartError(f"cannot listen on {text!r}", "write it like 127.0.0.1:1338 or [::1]:1338")


async def serve_until_signal(
    server: Server,
    connect: Callable[[], Connection],
    addresses: Iterable[tuple[str, int]],
    write_line: Callable[[str], None],
) -> None:
    """Listen, write a line that names the addresses, and serve until SIGTERM or SIGINT.

    `connect` makes the protocol of a new connection. Raises `StartError` if the mock cannot listen on an address.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    listening: list[str] = []
    with contextlib.ExitStack() as listeners:
        for host, port in dict.fromkeys(addresses):
            listening += await _start_listening(connect, host, port, listeners)
        write_line(f"listening on {', '.join(listening)}")
        await stop.wait()
    for connection in tuple(server.connections):
        connection.transport.abort()
    await asyncio.sleep(0)  # the loop closes the aborted sockets in its next round


async def _start_listening(
    connect: Callable[[], Connection], host: str, port: int, listeners: contextlib.ExitStack
) -> list[str]:
    """Listen until `listeners` closes. Return the bound addresses: `::` binds IPv4 too, if the machine has both."""
    hosts = (host, "0.0.0.0") if host == "::" else (host,)  # noqa: S104 - containers connect from other namespaces
    listening = []
    code: int | None = None
    for address in hosts:
        try:
            listener = await asyncio.get_running_loop().create_server(connect, address, port, backlog=1024)
        except OSError as error:
            code = error.errno
            if code not in _NO_SUCH_FAMILY:
                break
        else:
            listeners.callback(listener.close)
            for bound in listener.sockets:  # empty if asyncio skips a disabled family
                port = bound.getsockname()[1]  # the second family binds the first one's port, also for port 0
                listening.append(f"[{address}]:{port}" if ":" in address else f"{address}:{port}")
    if code not in _NO_SUCH_FAMILY or not listening:
        cause, remedy = _REMEDIES.get(code or 0, _OTHER_REMEDY)
        raise StartError(f"cannot listen on {host} port {port}{cause}", remedy)
    return listening
