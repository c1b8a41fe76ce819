"""One HTTP/1.1 request and its reply, bounded in time and size.

http.client is costly to import (bench/NOTES.md), and its timeouts are for one read, not for the exchange: a server that
sends a byte a second would hold it for hours. A reply is read as leniently as http.client reads it for boto3, and curl:
what SDKs accept from a server at home is no reason to refuse it.
"""

from __future__ import annotations

import errno
from contextlib import closing, suppress
from ipaddress import ip_address

from imds_detour.deadline import Deadline
from imds_detour.endpoint import Endpoint
from imds_detour.errors import NotYetError, error_text
from imds_detour.lean import socket
from imds_detour.text import DIGITS, HEX_DIGITS, is_made_of
from imds_detour.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MAX_REPLY = 1 << 20
"""Bytes of a reply, head included. An instance id is 19, a token 56; a mock may serve one large document for all."""
MAX_HEAD = 65_536
"""Bytes of a reply's head, the limit that http.client has for one of its lines."""
MAX_INTERIM = 10
"""Heads before one reply: interim ones, such as 100 Continue and 103 Early Hints (RFC 8297), and its own."""
CHUNK = 65_536
"""Bytes of one read."""


class GarbageError(ValueError):
    """The bytes received are not an HTTP reply."""


class AbsentError(NotYetError):
    """No server is there: it is refused, or there is no route."""


class StalledError(NotYetError):
    """The server took longer than the timeout."""


class UnreachableError(StalledError):
    """There was no connection within the timeout."""


ABSENT = (errno.ECONNREFUSED, errno.ENETUNREACH, errno.EACCES)
"""Not EADDRNOTAVAIL: duplicate address detection may still check this host's IPv6 address (RFC 4862)."""


class Reply(Value):
    """A complete reply."""

    status: int  # 200 to 999
    headers: Mapping[str, str]  # values by name in lower case; of several the first
    body: bytes  # at most MAX_REPLY bytes
    client: Endpoint | None = None  # the client's side of the connection


def request(method: str, path: str, headers: Mapping[str, str]) -> bytes:
    """Return the bytes of a request. No argument may contain a line break."""
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    if method == "PUT":
        lines.append("Content-Length: 0")  # without it, some servers answer 411
    lines += ["User-Agent: imds-detour", "Accept: */*", "Connection: close", "", ""]
    return "\r\n".join(lines).encode("ascii")


def parse(data: bytes, *, ended: bool) -> Reply | None:
    """Return the reply, None while more bytes may complete it (unless they have ``ended``), or raise GarbageError."""
    for _ in range(MAX_INTERIM):
        if not b"HTTP/1.".startswith(data[:7]):
            raise GarbageError("it does not speak HTTP")
        if (split := _split(data)) is None:
            if len(data) > MAX_HEAD:
                raise GarbageError(f"the head of its reply is larger than {MAX_HEAD} bytes")
            if ended:
                raise GarbageError("it closed the connection before the end of its reply's head")
            return None
        lines, data = split
        code = [*lines[0].split(None, 2), b""][1]
        if len(code) != 3 or not is_made_of(DIGITS, code, 3) or code < b"100":
            raise GarbageError("its status line is not valid")
        if code >= b"200":
            return _reply(int(code), lines[1:], data, ended=ended)
    raise GarbageError(f"it sends {MAX_INTERIM} interim replies")


def _reply(status: int, lines: Sequence[bytes], rest: bytes, *, ended: bool) -> Reply | None:
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.decode("latin-1").partition(":")
        headers.setdefault(name.strip().lower(), value.strip())
    body = _body(status, headers, rest, ended=ended)
    if body is None and ended:
        raise GarbageError("it closed the connection in the middle of its reply")
    return None if body is None else Reply(status, headers, body)


def _split(data: bytes) -> tuple[list[bytes], bytes] | None:
    """Return the lines of the head and the bytes after it, None without its end. Lines may end with LF alone."""
    ends = [at + len(mark) for mark in (b"\n\r\n", b"\n\n") if (at := data.find(mark, 0, MAX_HEAD)) >= 0]
    if not ends:
        return None
    head = data[: min(ends)].rstrip(b"\r\n").replace(b"\r\n", b"\n")
    return head.split(b"\n"), data[min(ends) :]


def _body(status: int, headers: Mapping[str, str], rest: bytes, *, ended: bool) -> bytes | None:
    """Return the body by the rules of RFC 9112 section 6.3, or None while it is not complete."""
    if status in (204, 304):
        return b""
    if headers.get("transfer-encoding", "").lower() == "chunked":
        return _dechunk(rest)
    length = headers.get("content-length", "")
    if not is_made_of(DIGITS, length, 18):  # none, or no number, which http.client ignores
        return rest if ended else None
    return rest[: int(length)] if len(rest) >= int(length) else None


def _dechunk(rest: bytes) -> bytes | None:
    body, at = bytearray(), 0
    while (end := rest.find(b"\n", at)) >= 0:
        size = rest[at:end].partition(b";")[0].strip()
        if not is_made_of(HEX_DIGITS, size, 8):
            raise GarbageError("its chunks are not valid")
        start, length = end + 1, int(size, 16)
        if length == 0:
            return bytes(body)
        at = rest.find(b"\n", start + length) + 1
        if not at:
            return None
        body += rest[start : start + length]
    return None


def exchange(to: Endpoint, message: bytes, deadline: Deadline, limit: float) -> Reply:
    """Send a request over a new connection, and return the reply, within ``limit`` seconds and the deadline.

    Raises NotYetError without one, AbsentError if no server is there.
    """
    family = socket.AF_INET if to.address.version == 4 else socket.AF_INET6
    received = b""
    failure: NotYetError
    limit = min(limit, deadline.limit)
    own = Deadline(deadline.within(limit), deadline.clock)
    failure = UnreachableError("probe", f"it does not accept a connection within {limit:.2g} s")
    try:
        with closing(socket.socket(family, socket.SOCK_STREAM)) as connection:
            _set_timeout(connection, own)
            connection.connect((str(to.address), to.port))
            failure = StalledError("probe", f"it accepts and sends nothing within {limit:.2g} s")
            with suppress(BrokenPipeError, ConnectionResetError):  # it may have answered before it has read
                connection.sendall(message)
            while len(received) <= MAX_REPLY:
                _set_timeout(connection, own)
                data = connection.recv(CHUNK)
                if data:
                    failure = StalledError("probe", f"its reply is not complete within {limit:.2g} s")
                received += data
                if reply := parse(received, ended=not data):
                    name = connection.getsockname()
                    return reply.replace(client=Endpoint(ip_address(name[0].partition("%")[0]), name[1]))
    except TimeoutError:
        raise failure from None
    except GarbageError as error:
        raise NotYetError("probe", str(error)) from None
    except OSError as error:
        raise (AbsentError if error.errno in ABSENT else NotYetError)("probe", error_text(error)) from None
    raise NotYetError("probe", f"its reply is larger than {MAX_REPLY} bytes")


def _set_timeout(connection: socket.socket, deadline: Deadline) -> None:
    left = deadline.remaining()
    if left <= 0:
        raise TimeoutError
    connection.settimeout(None if left == float("inf") else left)
