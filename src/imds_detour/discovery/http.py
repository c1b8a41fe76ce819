"""One HTTP/1.1 request and its reply, bounded in time and size.

http.client is costly to import (bench/NOTES.md), and its timeouts are for one read, not for the exchange: a server that
sends a byte a second would hold it for hours.
"""

from __future__ import annotations

import errno
from contextlib import closing

from imds_detour.errors import NotYetError, error_text
from imds_detour.lean import socket
from imds_detour.text import DIGITS, HEX_DIGITS, is_made_of
from imds_detour.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from imds_detour.deadline import Deadline
    from imds_detour.endpoint import Endpoint

MAX_REPLY = 65_536
"""Bytes of a reply, head included. An instance id is 19, a token 56."""
MAX_HEADERS = 256
"""Lines of a reply's head. Real services send about ten."""


class GarbageError(ValueError):
    """The bytes received are not an HTTP reply."""


class AbsentError(NotYetError):
    """No server is there: it is refused, or there is no route."""


ABSENT = (errno.ECONNREFUSED, errno.ENETUNREACH, errno.EACCES)
"""Not EADDRNOTAVAIL: duplicate address detection may still check this host's IPv6 address (RFC 4862)."""


class Reply(Value):
    """A complete reply."""

    status: int  # 200 to 999
    headers: Mapping[str, str]  # values by name in lower case; of several the last
    body: bytes  # at most MAX_REPLY bytes


def request(method: str, path: str, headers: Mapping[str, str]) -> bytes:
    """Return the bytes of a request. No argument may contain a line break."""
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    # A length of 0 even for PUT without a body: some servers answer 411 without it.
    lines += ["User-Agent: imds-detour", "Accept: */*", "Content-Length: 0", "Connection: close", "", ""]
    return "\r\n".join(lines).encode("ascii")


def parse(data: bytes, *, ended: bool) -> Reply | None:
    """Return the reply, None while more bytes may complete it (unless they have ``ended``), or raise GarbageError."""
    head, separator, rest = data.partition(b"\r\n\r\n")
    if not b"HTTP/1.".startswith(head[:7]):
        raise GarbageError("it does not speak HTTP")
    if not separator:
        if ended:
            raise GarbageError("it closed the connection before the end of its reply's head")
        return None
    if head.count(b"\r\n") > MAX_HEADERS:
        raise GarbageError(f"its reply has more than {MAX_HEADERS} headers")
    lines = head.split(b"\r\n")
    version, _, line = lines[0].partition(b" ")
    code, known = line[:3], version in (b"HTTP/1.0", b"HTTP/1.1")
    if not known or not is_made_of(DIGITS, code, 3) or code < b"200" or line[3:4] not in (b"", b" ") or b"\n" in line:
        raise GarbageError("its status line is not valid")
    status = int(code)
    fields = (line.decode("latin-1").partition(":") for line in lines[1:])
    headers = {name.strip().lower(): value.strip() for name, _, value in fields}
    body = _body(status, headers, rest, ended=ended)
    if body is None and ended:
        raise GarbageError("it closed the connection in the middle of its reply")
    return None if body is None else Reply(status, headers, body)


def _body(status: int, headers: Mapping[str, str], rest: bytes, *, ended: bool) -> bytes | None:
    """Return the body by the rules of RFC 9112 section 6.3, or None while it is not complete."""
    if status in (204, 304):
        return b""
    if headers.get("transfer-encoding", "").lower() == "chunked":
        return _dechunk(rest)
    length = headers.get("content-length")
    if length is None:
        return rest if ended else None
    if not is_made_of(DIGITS, length, 18):
        raise GarbageError("its Content-Length is not valid")
    return rest[: int(length)] if len(rest) >= int(length) else None


def _dechunk(rest: bytes) -> bytes | None:
    body, at = bytearray(), 0
    while (end := rest.find(b"\r\n", at)) >= 0:
        line = rest[at:end]
        size = line.partition(b";")[0].rstrip(b" \t")
        if not is_made_of(HEX_DIGITS, size, 8) or b"\n" in line:
            raise GarbageError("its chunks are not valid")
        length = int(size, 16)
        if length == 0:
            return bytes(body)
        at = end + 2 + length + 2
        if len(rest) < at:
            return None
        body += rest[end + 2 : end + 2 + length]
    return None


def exchange(to: Endpoint, message: bytes, deadline: Deadline) -> Reply:
    """Send a request over a new connection, and return the reply; NotYetError without one, AbsentError if refused."""
    family = socket.AF_INET if to.address.version == 4 else socket.AF_INET6
    received = b""
    step = f"it does not accept a connection within {deadline.limit:.3g} s"
    try:
        with closing(socket.socket(family, socket.SOCK_STREAM)) as connection:
            _set_timeout(connection, deadline)
            connection.connect((str(to.address), to.port))
            step = f"it accepts and sends nothing within {deadline.limit:.3g} s"
            connection.sendall(message)
            while len(received) <= MAX_REPLY:
                _set_timeout(connection, deadline)
                data = connection.recv(MAX_REPLY + 1 - len(received))
                if data:
                    step = f"its reply is not complete within {deadline.limit:.3g} s"
                received += data
                if reply := parse(received, ended=not data):
                    return reply
    except TimeoutError:
        raise NotYetError("probe", step) from None
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
