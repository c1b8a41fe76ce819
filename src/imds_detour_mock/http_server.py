"""An HTTP/1.x server for the development mock, as an asyncio protocol."""

import asyncio
import contextlib
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import cast

from imds_detour_mock.clouds.messages import Answer, Reply

HEAD_LIMIT = 64 * 1024  # bytes of a request's first line and headers
BODY_LIMIT = 64 * 1024  # bytes of a request's body, which the mock ignores
LINGER = 1.0  # seconds from the last answer to the close of the connection

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - an HTTP token (RFC 9110), no secret
_REQUEST_LINE = re.compile(rf"({_TOKEN}) ([\x21-\x7e]+) HTTP/1\.([01])")
_HEADER = re.compile(rf"({_TOKEN}):([^\x00-\x08\x0a-\x1f\x7f]*)")
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_AUTHORITY = re.compile(r"https?://[^/?]*", re.IGNORECASE)


class _RequestError(Exception):
    """An invalid request. The server sends the error's reply and closes the connection."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.reply = Reply(status, body=f"{status}: {message}\n".encode())


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    target: str
    headers: dict[str, str]
    size: int  # bytes in the buffer, with the body
    last: bool  # close the connection after the answer


@dataclass(frozen=True, slots=True)
class Server:
    """The state that all connections share."""

    answer: Answer  # answers the requests
    log: Callable[[str], None]  # takes one line per request, without a newline
    clock: Callable[[], float] = time.time  # seconds since 1970
    connections: set["Connection"] = field(default_factory=set)  # the open connections


class Connection(asyncio.Protocol):
    """One client's connection. It answers requests in order, and waits while the client does not read the answers."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._buffer = bytearray()
        self._scanned = 0  # bytes of the buffer that contain no end of a head
        self._request: _Request | None = None  # its head is complete, its body may be incomplete
        self.paused = False  # the client does not read its answers
        self._finished = False
        self._close_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Register the connection, so that a stop can close it."""
        self.transport = cast("asyncio.Transport", transport)
        self._peer = (transport.get_extra_info("peername") or "-")[0]  # None if the client has already left
        self._server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Unregister the connection."""
        self._finished = True
        self._server.connections.discard(self)
        if self._close_timer:
            self._close_timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Answer all complete requests."""
        if not self._finished:
            self._buffer += data
            self._serve()

    def pause_writing(self) -> None:
        """Stop answering and reading, because the client does not read its answers."""
        self.paused = True
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        """Answer the requests in the buffer, then read again."""
        self.paused = False
        self._serve()
        if not self.paused:
            self.transport.resume_reading()

    def log(self, line: str) -> None:
        """Log a line with the client's address."""
        self._server.log(f"{self._peer} {line}")

    def finish(self) -> None:
        """Accept no further request."""
        self._finished = True
        self._buffer.clear()

    def _serve(self) -> None:
        try:
            while not (self.paused or self._finished or self.transport.is_closing()):
                self._request = request = self._request or self._next_head()
                if request is None or len(self._buffer) < request.size:
                    return
                self._request = None
                del self._buffer[: request.size]
                self._scanned = 0
                reply = self._server.answer(request.method, request.target, request.headers, self._server.clock())
                self.send(reply, f"{request.method} {request.target}", request.last, request.method == "HEAD")
        except _RequestError as error:
            self.send(error.reply, "-", last=True)

    def _next_head(self) -> _Request | None:
        if self._buffer.startswith((b"\r", b"\n")):
            self._buffer = self._buffer.lstrip(b"\r\n")  # RFC 9112 allows empty lines before a request
            self._scanned = 0
        end = _HEAD_END.search(self._buffer, max(0, self._scanned - 3))
        self._scanned = len(self._buffer)
        if (end.start() if end else self._scanned) > HEAD_LIMIT:
            raise _RequestError(431, f"a request head has at most {HEAD_LIMIT} bytes")
        if end:
            return parse_head(bytes(self._buffer[: end.start()]), end.end())
        if self._buffer and not self._buffer[:1].isalpha():
            raise _RequestError(400, "this is not HTTP")  # such as TLS: such a client would wait forever
        return None

    def send(self, reply: Reply, label: str, last: bool, head: bool = False) -> None:
        """Write one answer and log it with the request's label. `last` closes the connection, `head` omits the body."""
        self.transport.write(encode_reply(reply, last=last, head=head))
        self.log(f"{label} {reply.status} {len(reply.body)} {reply.cloud}")
        if last:
            # A close with unread input would reset the connection, and the client could lose the answer.
            self.finish()
            with contextlib.suppress(OSError):  # ENOTCONN: the client has left
                self.transport.write_eof()
            self._close_timer = asyncio.get_running_loop().call_later(LINGER, self.transport.close)


def parse_head(head: bytes, end: int) -> _Request:
    """Parse a request's head without its final empty line. `end` is their size in bytes."""
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


def encode_reply(reply: Reply, *, last: bool, head: bool) -> bytes:
    """Return the reply as bytes. `head` omits the body, `last` adds `Connection: close`."""
    lines = [f"HTTP/1.1 {reply.status} {HTTPStatus(reply.status).phrase}", "Server: imds-detour-mock"]
    lines += [f"{name}: {value}" for name, value in reply.headers]
    lines += [f"Content-Length: {len(reply.body)}", *(["Connection: close"] if last else []), "\r\n"]
    return "\r\n".join(lines).encode("latin-1") + (b"" if head else reply.body)
