"""Where the development mock listens, and its life from the first connection to the signal that ends it."""

import asyncio
import contextlib
import errno
import ipaddress
import re
import signal
from collections.abc import Callable

from imds_detour.errors import DetourError
from imds_detour_mock.http_server import Connection, Server

_ADDRESS = re.compile(r"(?:\[(?P<v6>[^\[\]]+)\]|(?P<v4>[^:\[\]]+)):(?P<port>[0-9]{1,5})")
_FAMILY_OFF = {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, None}  # None: newer asyncio says so without a number
_KNOWN = {
    errno.EADDRINUSE: (": it is in use", "stop what listens there, or give another port with --listen"),
    errno.EACCES: (": not permitted", "ports below 1024 are root's: give another port with --listen"),
}
_OTHER = ("", "give another address with --listen")


class StartError(DetourError):
    """The server cannot start."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__("mock", reason, remedy)


def address(text: str) -> tuple[str, int]:
    """Read `IPv4:port` or `[IPv6]:port`; raise `StartError` for anything else."""
    match = _ADDRESS.fullmatch(text)
    with contextlib.suppress(ValueError):  # ipaddress's word for no address
        if match and int(match["port"]) <= 65535:
            v6 = match["v6"]
            return str(ipaddress.IPv6Address(v6) if v6 else ipaddress.IPv4Address(match["v4"])), int(match["port"])
    raise StartError(f"cannot listen on {text!r}", "write it like 127.0.0.1:1338 or [::1]:1338")


async def serve(
    server: Server, connect: Callable[[], Connection], addresses: list[tuple[str, int]], say: Callable[[str], None]
) -> None:
    """Listen, `say` where, and serve until SIGTERM or SIGINT; raise `StartError` if an address cannot be had.

    `connect` makes what takes a new connection.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    listening: list[str] = []
    with contextlib.ExitStack() as stack:
        for host, port in dict.fromkeys(addresses):
            listening += await _listen(connect, host, port, stack)
        say(f"listening on {', '.join(listening)}")
        await stop.wait()
    for connection in tuple(server.connections):
        connection.transport.abort()
    await asyncio.sleep(0)  # the loop closes the aborted sockets in its next round


async def _listen(connect: Callable[[], Connection], host: str, port: int, stack: contextlib.ExitStack) -> list[str]:
    """Listen until `stack` ends; return the real addresses, of both families for `::` where the machine has both."""
    hosts = (host, "0.0.0.0") if host == "::" else (host,)  # noqa: S104 - containers ask from other network namespaces
    listening = []
    code: int | None = None
    for each in hosts:
        try:
            listener = await asyncio.get_running_loop().create_server(connect, each, port, backlog=1024)
        except OSError as error:
            code = error.errno
            if code not in _FAMILY_OFF:
                break
        else:
            stack.callback(listener.close)
            for bound in listener.sockets:  # none where asyncio found the family off and said nothing
                port = bound.getsockname()[1]  # the second family gets the port the first one was given
                listening.append(f"[{each}]:{port}" if ":" in each else f"{each}:{port}")
    if code not in _FAMILY_OFF or not listening:
        why, remedy = _KNOWN.get(code or 0, _OTHER)
        raise StartError(f"cannot listen on {host} port {port}{why}", remedy)
    return listening
