r"""An HTTP server with planned faults: ``python tests/support/servers/faulty_http.py ADDRESS:PORT STEP...``.

A step is ``GET=WHAT`` or ``PUT=WHAT``; the steps of a method are taken in turn, one for each request, and its last one
stays. Without any for PUT, that is 404: no tokens. WHAT is

    ok               200 and the instance id, with a Content-Length
    body:TEXT        200 and this, backslash escapes allowed
    NUMBER           this status and a short text; 3xx with a Location
    stall            no reply at all
    slow             the right reply, a byte a second
    reset            half a head, then a reset
    cut              half the body, then the end
    endless-body     a body without an end
    endless-head     headers without an end
    garbage          bytes that are not HTTP
    tls              a TLS alert, as a TLS server answers plain text
    http10           HTTP/1.0, the body ends with the connection
    close            HTTP/1.1 without a length, the body ends with the connection
    chunked          in three chunks, with an extension and a trailer
    count            200 and a number that grows with each request
    turns:ONE|OTHER  these in turn
    headers:N        the right reply after N headers
    length:N         a Content-Length of N, and a body without an end
    dribble          a body in chunks of one byte, as fast as they go, without an end
    gzip             the right answer, compressed, unrequested
    http2            the first bytes of an HTTP/2 server
    early            100 Continue without an end
    deep             JSON, as deep as fits
    half-pair        JSON with half a surrogate pair in each member that a proof reads

and ``WHAT*N`` takes a step N times. Each request is a line on stdout: method, path, and its token.
"""

import gzip
import re
import socket
import struct
import sys
import threading
import time

INSTANCE = b"i-1234567890abcdef0"
CHUNKED = b"7;name=value\r\ni-12345\r\n0c\r\n67890abcdef0\r\n0\r\nX-Trailer: 1\r\n\r\n"
ALERT = b"\x15\x03\x01\x00\x02\x02\x46"
"""TLS 1.0 record, fatal alert 70: protocol version."""


class Plan:
    """The steps of each method and their progress."""

    def __init__(self, steps: list[str]) -> None:
        self._steps: dict[str, list[str]] = {"GET": [], "PUT": []}
        for step in steps:
            method, _, what = step.partition("=")
            what, count = (
                (what[: match.start()], int(match[1])) if (match := re.search(r"\*(\d+)$", what)) else (what, 1)
            )
            self._steps[method] += [what] * count
        self._steps["PUT"] = self._steps["PUT"] or ["404"]
        self.asked = 0
        self.turn = 0

    def next(self, method: str) -> str:
        """Take the next step for a request of this method."""
        self.asked += 1
        self.turn += method == "GET"
        steps = self._steps[method]
        return steps.pop(0) if len(steps) > 1 else steps[0]


def serve(listener: socket.socket, plan: Plan) -> None:
    """Accept connections without end, one request each."""
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_answer, args=(connection, plan), daemon=True).start()


def _answer(connection: socket.socket, plan: Plan) -> None:
    with connection:
        head = b""
        while b"\r\n\r\n" not in head and (data := connection.recv(4096)):
            head += data
        if b"\r\n\r\n" not in head:
            return
        method, path, _ = head.decode("latin-1").split(" ", 2)
        token = re.search(rb"(?i)\nx-aws-ec2-metadata-token: (.*)\r", head)
        sys.stdout.write(f"{method} {path} token={token[1]!r}\n" if token else f"{method} {path} no token\n")
        sys.stdout.flush()
        try:
            _send(connection, plan.next(method), plan)
        except OSError:
            return  # the client has closed the connection


def _send(connection: socket.socket, what: str, plan: Plan) -> None:  # noqa: PLR0912  (a table)
    kind, _, text = what.partition(":")
    match kind:
        case "stall":
            connection.recv(1)  # until the client gives up
        case "slow":
            for byte in _reply("200 OK", INSTANCE):
                connection.sendall(bytes([byte]))
                time.sleep(1)
        case "reset":
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close() resets
        case "turns":
            turns = text.split("|")
            _send(connection, turns[plan.turn % len(turns)], plan)
        case "headers":
            connection.sendall(b"HTTP/1.1 200 OK\r\n")
            connection.sendall(b"".join(b"X-%x: 1\r\n" % number for number in range(int(text))))
            connection.sendall(_reply("200 OK", INSTANCE).partition(b"\r\n")[2])
        case "length":
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % int(text))
            while True:
                connection.sendall(b"i" * 65_536)
        case "dribble":
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            while True:
                connection.sendall(b"1\r\ni\r\n")
        case "early":
            while True:
                connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        case "endless-body" | "endless-head":
            connection.sendall(b"HTTP/1.1 200 OK\r\n" + (b"\r\n" if kind == "endless-body" else b""))
            while True:
                connection.sendall(b"X-More: and more\r\n" * 1000)
        case _:
            connection.sendall(_whole(kind, text, plan))


def _whole(kind: str, text: str, plan: Plan) -> bytes:
    whole = {
        "ok": _reply("200 OK", INSTANCE),
        "body": _reply("200 OK", text.encode().decode("unicode_escape").encode("latin-1")),
        "cut": _reply("200 OK", INSTANCE)[:-9],
        "garbage": b"\xff\x00\xfe\n" * 64,
        "tls": ALERT,
        "gzip": _reply("200 OK", gzip.compress(INSTANCE), b"Content-Encoding: gzip\r\n"),
        "http2": b"\x00\x00\x00\x04\x00\x00\x00\x00\x00",  # RFC 9113 section 3.4: an empty SETTINGS frame
        "deep": _reply("200 OK", b"[" * 60_000),
        "half-pair": _reply("200 OK", b'{"id": "\\ud800", "AccessKeyId": "\\ud800", "RoleArn": "\\ud800"}'),
        "http10": b"HTTP/1.0 200 OK\r\nServer: old\r\n\r\n" + INSTANCE,
        "close": b"HTTP/1.1 200\r\nConnection: close\r\n\r\n" + INSTANCE,
        "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n" + CHUNKED,
        "count": _reply("200 OK", str(plan.asked).encode()),
    }
    elsewhere = b"Location: http://10.0.0.1/elsewhere\r\n" if kind.startswith("3") else b""
    return whole.get(kind) or _reply(f"{kind} Faulty", b"i-from-a-bad-status", elsewhere)


def _reply(status: str, body: bytes, headers: bytes = b"") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n".encode() + headers + b"\r\n" + body


if __name__ == "__main__":
    host, _, port = sys.argv[1].rpartition(":")
    with socket.create_server((host, int(port)), backlog=128) as server:
        sys.stdout.write(f"listening on {sys.argv[1]}\n")
        sys.stdout.flush()
        serve(server, Plan(sys.argv[2:]))
