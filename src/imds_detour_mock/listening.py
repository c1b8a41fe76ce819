"""Listen on addresses and serve until a signal."""

import asyncio
import contextlib
import errno
import ipaddress
import re
import resource
import signal
from collections.abc import Callable, Coroutine
from typing import Any

from imds_detour.errors import DetourError, error_text
from imds_detour_mock.http_server import Connection

_ADDRESS = re.compile(r"(?:\[(?P<v6>[^\[\]]+)\]|(?P<v4>[^:\[\]]+)):(?P<port>[0-9]{1,5})")
_NO_SUCH_FAMILY = {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, None}  # None: newer asyncio raises it without a number
_NO_MORE = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_REMEDIES = {
    errno.EADDRINUSE: (": it is in use", "stop the program that listens there, or give another port with"),
    errno.EACCES: (": not permitted", "ports below 1024 need root: give another port with"),
}
_BACKLOG = 1024  # clients that the kernel lets wait
_NOISE_INTERVAL = 60.0  # seconds between two lines about the limit of open files


class StartError(DetourError):
    """The mock cannot start."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__("mock", reason, remedy)


def parse_address(text: str, example: str = "127.0.0.1:1338 or [::1]:1338") -> tuple[str, int]:
    """Return the host and the port of `IPv4:port` or `[IPv6]:port`; raise `StartError` for any other text."""
    match = _ADDRESS.fullmatch(text)
    with contextlib.suppress(ValueError):  # ipaddress raises it for text that is no address
        if match and int(match["port"]) <= 65535:
            v6 = match["v6"]
            return str(ipaddress.IPv6Address(v6) if v6 else ipaddress.IPv4Address(match["v4"])), int(match["port"])
    raise StartError(f"cannot listen on {text!r}", f"write it like {example}")


def parse_control(text: str) -> tuple[str, int]:
    """Return the host and the port of `[HOST:]PORT`; raise `StartError` unless the host is a loopback address."""
    host, port = parse_address(text if ":" in text else f"127.0.0.1:{text}", "1339 or 127.0.0.1:1339")
    if not ipaddress.ip_address(host).is_loopback:
        raise StartError(f"--control {text!r} is not on loopback", "anyone could use it: write 1339 or 127.0.0.1:1339")
    return host, port


async def start_listening(
    connect: Callable[[], Connection], host: str, port: int, listeners: contextlib.ExitStack, flag: str
) -> str:
    """Listen until `listeners` closes. Return the bound addresses: `::` binds IPv4 too, if the machine has both.

    `connect` makes the protocol of a new connection. Raises `StartError`, which names the flag, if that fails.
    """
    hosts = (host, "0.0.0.0") if host == "::" else (host,)  # noqa: S104 - containers connect from other namespaces
    listening = []
    code: int | None = None
    for bound_host in hosts:
        try:
            listener = await asyncio.get_running_loop().create_server(connect, bound_host, port, backlog=1)
        except OSError as error:
            code = error.errno
            if code not in _NO_SUCH_FAMILY:
                break
        else:
            listeners.callback(listener.close)
            for bound in listener.sockets:  # empty if asyncio skips a disabled family
                # asyncio accepts as many clients at once as its backlog, and fails as often without descriptors.
                with bound.dup() as same:
                    same.listen(_BACKLOG)
                port = bound.getsockname()[1]  # the second family binds the first one's port, also for port 0
                listening.append(f"[{bound_host}]:{port}" if ":" in bound_host else f"{bound_host}:{port}")
    if code not in _NO_SUCH_FAMILY or not listening:
        cause, remedy = _REMEDIES.get(code or 0, ("", "give another address with"))
        raise StartError(f"cannot listen on {host} port {port}{cause}", f"{remedy} {flag}")
    return ", ".join(listening)


async def serve_until_signal(serve: Coroutine[None, None, None], write_line: Callable[[str], None]) -> None:
    """Run until SIGTERM or SIGINT, which cancel `serve`. An error of a connection is one line, without a traceback."""
    loop = asyncio.get_running_loop()
    quiet_until = 0.0

    def report(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        nonlocal quiet_until
        error = context.get("exception")
        if not (isinstance(error, OSError) and error.errno in _NO_MORE):
            write_line(f"a connection failed: {context['message']}: {error!r}")
        elif loop.time() >= quiet_until:  # asyncio tries again each second
            quiet_until = loop.time() + _NOISE_INTERVAL
            limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            write_line(f"new clients wait: {error_text(error)} (limit {limit}); close idle ones, or raise ulimit -n")

    loop.set_exception_handler(report)
    task = loop.create_task(serve)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task
