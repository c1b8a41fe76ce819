"""HTTP/1.x for the development mock: an asyncio protocol, one write per answer, taken from `clouds`."""

import asyncio
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import cast

from imds_detour_mock.clouds.messages import Answer, Reply

HEAD_LIMIT = 64 * 1024  # bytes of request line and headers
BODY_LIMIT = 64 * 1024  # bytes of a request's body, which is read and ignored
LINGER = 1.0  # seconds a client gets to read the last answer before the connection goes

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - HTTP's word for such a word, no secret
_REQUEST_LINE = re.compile(rf"({_TOKEN}) ([\x21-\x7e]+) HTTP/1\.([01])")
_HEADER = re.compile(rf"({_TOKEN}):([^\x00-\x08\x0a-\x1f\x7f]*)")
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_AUTHORITY = re.compile(r"https?://[^/?]*", re.IGNORECASE)


class _RequestError(Exception):
    """A request that no cloud gets to see; the connection ends with the reply it carries."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.reply = Reply(status, body=f"{status}: {message}\n".encode())


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    target: str
    headers: dict[str, str]
    size: int  # bytes in the buffer, body included
    last: bool  # the connection ends after the answer


@dataclass(frozen=True, slots=True)
class Server:
    """What every connection shares."""

    answer: Answer
    """Turns a request into a reply."""
    log: Callable[[str], None]
    """Takes one line per request, without its end."""
    clock: Callable[[], float] = time.time
    """Seconds since 1970."""
    connections: set["Connection"] = field(default_factory=set)
    """Those open now."""


class Connection(asyncio.Protocol):
    """One client's connection: requests are answered in order, and none while the client does not read its answers."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._buffer = bytearray()
        self._searched = 0  # bytes of the buffer known to hold no end of a head
        self._request: _Request | None = None  # its head is read, its body perhaps not
        self._paused = False
        self._done = False
        self._closing: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the connection, so that stopping can end it."""
        self.transport = cast("asyncio.Transport", transport)
        self._peer = (transport.get_extra_info("peername") or "-")[0]  # the client may have left already
        self._server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature; a client may leave
        """Forget the connection."""
        self._done = True
        self._server.connections.discard(self)
        if self._closing:
            self._closing.cancel()

    def data_received(self, data: bytes) -> None:
        """Answer every request that is complete."""
        if not self._done:
            self._buffer += data
            self._serve()

    def pause_writing(self) -> None:
        """Stop answering and reading: the client does not take its answers."""
        self._paused = True
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        """Go on with what the buffer holds, then with reading."""
        self._paused = False
        self._serve()
        if not self._paused:
            self.transport.resume_reading()

    @property
    def stuck(self) -> bool:
        """Whether the client does not take its answers."""
        return self._paused

    def log(self, line: str) -> None:
        """Log a line about this client."""
        self._server.log(f"{self._peer} {line}")

    def finish(self) -> None:
        """Take no further request."""
        self._done = True
        self._buffer.clear()

    def _serve(self) -> None:
        try:
            while not (self._paused or self._done or self.transport.is_closing()):
                self._request = request = self._request or self._next_head()
                if request is None or len(self._buffer) < request.size:
                    return
                self._request = None
                del self._buffer[: request.size]
                self._searched = 0
                reply = self._server.answer(request.method, request.target, request.headers, self._server.clock())
                self.send(reply, f"{request.method} {request.target}", request.last, request.method == "HEAD")
        except _RequestError as error:
            self.send(error.reply, "-", last=True)

    def _next_head(self) -> _Request | None:
        if self._buffer.startswith((b"\r", b"\n")):
            self._buffer = self._buffer.lstrip(b"\r\n")  # empty lines before a request are allowed
            self._searched = 0
        end = _HEAD_END.search(self._buffer, max(0, self._searched - 3))
        self._searched = len(self._buffer)
        if (end.start() if end else self._searched) > HEAD_LIMIT:
            raise _RequestError(431, f"a request head has at most {HEAD_LIMIT} bytes")
        if end:
            return parse(bytes(self._buffer[: end.start()]), end.end())
        if self._buffer and not self._buffer[:1].isalpha():
            raise _RequestError(400, "this is not HTTP")  # TLS, say: it would wait for an answer for ever
        return None

    def send(self, reply: Reply, what: str, last: bool, head: bool = False) -> None:
        """Write and log one answer; `what` names the request in the log, `last` ends the connection."""
        self.transport.write(encode(reply, last=last, head=head))
        self.log(f"{what} {reply.status} {len(reply.body)} {reply.cloud}")
        if last:
            # Closing with unread input would reset the connection and could take the answer away from the client.
            self.finish()
            self.transport.write_eof()
            self._closing = asyncio.get_running_loop().call_later(LINGER, self.transport.close)


def parse(head: bytes, end: int) -> _Request:
    """Read a request's head, without its closing empty line; `end` is the size of both in bytes."""
    first, *rest = head.decode("latin-1").split("\n")
    line = _REQUEST_LINE.fullmatch(first.removesuffix("\r"))
    target = line and (line[2] if line[2].startswith("/") else _AUTHORITY.sub("/", line[2], count=1))
    if not line or not target or not target.startswith("/"):
        raise _RequestError(400, "the first line must read METHOD /path HTTP/1.1")
    headers: dict[str, str] = {}
    for text in rest:
        header = _HEADER.fullmatch(text.removesuffix("\r"))
        if not header:
            raise _RequestError(400, "a header line must read Name: value")
        name, value = header[1].lower(), header[2].strip(" \t")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    if "transfer-encoding" in headers:
        raise _RequestError(411, "send a body with Content-Length, not in chunks")
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()):
        raise _RequestError(400, "Content-Length must be one number")
    if len(length) > 9 or int(length) > BODY_LIMIT:  # int() refuses thousands of digits
        raise _RequestError(413, f"a request body has at most {BODY_LIMIT} bytes")
    options = {option.strip() for option in headers.get("connection", "").lower().split(",")}
    return _Request(line[1], target, headers, end + int(length), last=line[3] == "0" or "close" in options)


def encode(reply: Reply, *, last: bool, head: bool) -> bytes:
    """Return the reply as bytes; `head` leaves the body out, `last` says that the connection ends."""
    lines = [f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}", "Server: imds-detour-mock"]
    lines += [f"{name}: {value}" for name, value in reply.headers]
    lines += [f"Content-Length: {len(reply.body)}", *(["Connection: close"] if last else []), "\r\n"]
    return "\r\n".join(lines).encode("latin-1") + (b"" if head else reply.body)
