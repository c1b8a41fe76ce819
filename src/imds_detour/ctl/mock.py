"""imds-detourctl mock: a small metadata service for development."""

import argparse
import asyncio
import contextlib
import errno
import importlib.resources
import ipaddress
import re
import signal
import sys

from imds_detour.ctl.clouds.dispatch import clouds
from imds_detour.ctl.http_server import Connection, Server
from imds_detour.ctl.mock_values import DataError, Json, load

DEFAULT_LISTEN = "[::]:1338"

_NAME = "imds-detourctl mock"
_ADDRESS = re.compile(r"(?:\[(?P<v6>[^\[\]]+)\]|(?P<v4>[^:\[\]]+)):(?P<port>[0-9]{1,5})")
_FAMILY_OFF = {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, None}  # None: newer asyncio says so without a number
_REMEDIES = {
    errno.EADDRINUSE: "it is in use; stop what listens there, or give another port with --listen",
    errno.EACCES: "not permitted; ports below 1024 are root's: give another port with --listen",
}


class _StartError(Exception):
    """The server cannot start; the message is one line with the remedy."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `imds-detourctl mock`."""
    parser.add_argument(
        "--listen",
        action="append",
        metavar="ADDR:PORT",
        help=f"where to listen, repeatable; [::] means IPv4 too, port 0 a free one (default {DEFAULT_LISTEN})",
    )
    parser.add_argument("--data", metavar="FILE", help="JSON values, merged over the built-in ones; null removes one")
    parser.add_argument(
        "--imdsv2",
        choices=["optional", "required"],
        default="optional",
        help="whether reads need a session token (default optional)",
    )
    parser.add_argument("--log", action="store_true", default=True, help="one line per request on stderr (default)")
    parser.add_argument("--quiet", dest="log", action="store_false", help="no line per request")


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT, then return 0; return 2 after one line on stderr if that cannot start."""
    try:
        addresses = [_address(text) for text in args.listen or [DEFAULT_LISTEN]]
        mock = clouds(_data(args.data), require_token=args.imdsv2 == "required")
        asyncio.run(_serve(Server(mock.answer, _say if args.log else _ignore), addresses))
    except _StartError as error:
        _say(str(error))
        return 2
    return 0


def _say(line: str) -> None:
    with contextlib.suppress(OSError):  # whoever read our stderr may be gone; the mock goes on
        sys.stderr.write(f"{_NAME}: {line}\n")


def _ignore(line: str) -> None:
    """Take the place of the log under --quiet."""


def _data(path: str | None) -> dict[str, Json]:
    defaults = importlib.resources.files("imds_detour.ctl").joinpath("mock_data.json").read_text(encoding="utf-8")
    try:
        if path is None:
            return load(defaults)
        with open(path, encoding="utf-8-sig") as file:
            return load(defaults, file.read())
    except OSError as error:
        raise _StartError(f"cannot read {path}: {error.strerror}; give --data a file of JSON") from error
    except UnicodeDecodeError as error:
        raise _StartError(f"{path}: not UTF-8 text; save it as UTF-8") from error
    except DataError as error:
        raise _StartError(f"{path}: {error}") from error


def _address(text: str) -> tuple[str, int]:
    match = _ADDRESS.fullmatch(text)
    with contextlib.suppress(ValueError):  # ipaddress's word for no address
        if match and int(match["port"]) <= 65535:
            v6 = match["v6"]
            return str(ipaddress.IPv6Address(v6) if v6 else ipaddress.IPv4Address(match["v4"])), int(match["port"])
    raise _StartError(f"cannot listen on {text!r}; write it like 127.0.0.1:1338 or [::1]:1338")


async def _serve(server: Server, addresses: list[tuple[str, int]]) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    listening: list[str] = []
    with contextlib.ExitStack() as stack:
        for host, port in dict.fromkeys(addresses):
            listening += await _listen(server, host, port, stack)
        _say(f"listening on {', '.join(listening)}")
        await stop.wait()
    for connection in tuple(server.connections):
        connection.transport.abort()
    await asyncio.sleep(0)  # the loop closes the aborted sockets in its next round


async def _listen(server: Server, host: str, port: int, stack: contextlib.ExitStack) -> list[str]:
    """Listen until `stack` ends; return the real addresses, of both families for `::` where the machine has both."""
    hosts = (host, "0.0.0.0") if host == "::" else (host,)  # noqa: S104 - containers ask from other network namespaces
    listening = []
    code: int | None = None
    for each in hosts:
        try:
            listener = await asyncio.get_running_loop().create_server(
                lambda: Connection(server), each, port, backlog=1024
            )
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
        remedy = _REMEDIES.get(code or 0, "give another address with --listen")
        raise _StartError(f"cannot listen on {host} port {port}: {remedy}")
    return listening


if __name__ == "__main__":
    _parser = argparse.ArgumentParser(prog=_NAME)
    add_arguments(_parser)
    sys.exit(run(_parser.parse_args()))
