"""Mocks as colleagues write them: ``python tests/support/servers/homemade.py SHAPE ADDRESS:PORT``.

Each shape answers what its author's app asks for, and little else. Each request is a line on stdout: method and path.
"""

import itertools
import json
import socket
import sys
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from typing import Any, NamedTuple

MARK = "SECRET-marked-0123456789"
"""The secret part of all answers that have one: no output of imds-detour may show it."""
CREDENTIALS = json.dumps(
    {
        "Code": "Success",
        "AccessKeyId": f"AKIA{MARK}",
        "SecretAccessKey": MARK,
        "Token": MARK,
        "Expiration": "2038-01-01T00:00:00Z",
    }
)
SECRETS = json.dumps(
    {
        **json.loads(CREDENTIALS),
        **dict.fromkeys(("RoleArn", "access_token", "id", "uuid", "droplet_id"), MARK),
        "compute": {"vmId": MARK},
    }
)
"""A document with a secret in every member that a preset reads."""
ROLES = "/latest/meta-data/iam/security-credentials/"
DOCUMENT = "/latest/dynamic/instance-identity/document"
GOOGLE = {"Metadata-Flavor": "Google"}
Answer = tuple[int, dict[str, str], str]
count = itertools.count()


class Ask(NamedTuple):
    """A request."""

    method: str
    path: str
    headers: Any


def tree(leaves: dict[str, str], headers: dict[str, str] | None = None) -> Callable[[Ask], Answer]:
    """Return a server of these paths."""

    def answer(ask: Ask) -> Answer:
        known = ask.method == "GET" and ask.path in leaves
        return (200, headers or {}, leaves[ask.path]) if known else (404, headers or {}, "no")

    return answer


def with_tokens(serve: Callable[[Ask], Answer]) -> Callable[[Ask], Answer]:
    """Return a server that requires a session token."""

    def answer(ask: Ask) -> Answer:
        if ask.method == "PUT":
            return 200, {}, MARK
        return serve(ask) if ask.headers.get("X-aws-ec2-metadata-token") == MARK else (401, {}, "")

    return answer


def slashes(ask: Ask) -> Answer:
    """Redirect each path to itself with a slash, as web frameworks do."""
    if not ask.path.endswith("/"):
        return 301, {"Location": f"{ask.path}/"}, ""
    return tree({"/latest/meta-data/instance-id/": "i-slash", ROLES: "role"})(ask)


def later(ask: Ask) -> Answer:
    """Fail until the third GET, as a server that loads its data."""
    if ask.method == "GET" and next(count) < 3:
        return 503, {}, "loading"
    return creds(ask)


def host(ask: Ask) -> Answer:
    """Serve only requests for the metadata address."""
    return creds(ask) if ask.headers.get("Host") == "169.254.169.254" else (421, {}, "")


def authorized(ask: Ask) -> Answer:
    """Serve credentials to a client with an Authorization header."""
    ok = ask.path == "/v1/credentials" and ask.headers.get("Authorization")
    return (200, {}, CREDENTIALS) if ok else (401, {}, "")


def managed_identity(ask: Ask) -> Answer:
    """Serve an identity token of Azure, and nothing else."""
    if ask.path.startswith("/metadata/identity/oauth2/token?") and "resource=" in ask.path:
        return 200, {"Content-Type": "application/json"}, json.dumps({"access_token": MARK, "expires_in": "86399"})
    return (400, {}, '{"error": "invalid_request"}') if "oauth2" in ask.path else (404, {}, "")


creds = tree({ROLES: "role", f"{ROLES}role": CREDENTIALS})
SHAPES: dict[str, Callable[[Ask], Answer]] = {
    "credentials": creds,
    "credentials by tokens": with_tokens(creds),
    "one role without a list": tree({f"{ROLES}role": CREDENTIALS}),
    "credentials at the list": tree({ROLES: CREDENTIALS}),
    "document": tree({DOCUMENT: json.dumps({"region": "eu-west-1", "instanceId": "i-document"})}),
    "document with a time": lambda _ask: (200, {}, json.dumps({"region": "eu-west-1", "time": time.monotonic_ns()})),
    "region": tree({"/latest/meta-data/placement/region": "eu-west-1"}),
    "zone": tree({"/latest/meta-data/placement/availability-zone": "eu-west-1a"}),
    "user data": tree({"/latest/user-data": MARK}),
    "redirects to a slash": slashes,
    "JSON for everything": lambda _ask: (200, {"Content-Type": "application/json"}, CREDENTIALS),
    "empty for everything": lambda _ask: (200, {}, ""),
    "one word for everything": lambda _ask: (200, {}, "ok"),
    "a page for everything": lambda _ask: (200, {"Content-Type": "text/html"}, "<!doctype html><p>hello"),
    "a large document": lambda _ask: (200, {}, json.dumps({"region": "eu-west-1", "pad": "x" * 300_000})),
    "errors with a time": lambda _ask: (404, {}, json.dumps({"timestamp": time.monotonic_ns()})),
    "no login": lambda _ask: (401, {"WWW-Authenticate": "Basic"}, ""),
    "by its host": host,
    "loads its data": later,
    "tokens fail": lambda ask: (500, {}, "oops") if ask.method == "PUT" else creds(ask),
    "identity token": managed_identity,
    "Google's leaves": tree({"/computeMetadata/v1/project/project-id": "a-project"}, GOOGLE),
    "Google's root": tree({"/": "computeMetadata/", "/computeMetadata/v1/project/project-id": "p"}, GOOGLE),
    "Google's leaves without the header": tree({"/computeMetadata/v1/project/project-id": "a-project"}),
    "ECS": tree({"/creds": CREDENTIALS}),
    "ECS by path": tree({"/v2/credentials/task": CREDENTIALS}),
    "task metadata": tree({"/v4/task": '{"DockerId": "1"}', "/v4/task/task": '{"Cluster": "local"}'}),
    "EKS": authorized,
    "secrets for everything": lambda _ask: (200, {"Metadata-Flavor": "Google", "X-Secret": MARK}, SECRETS),
    "secrets in errors": lambda _ask: (403, {"Location": f"/login?key={MARK}", "X-Secret": MARK}, SECRETS),
    "500": lambda _ask: (500, {}, MARK),
    "503 without tokens": lambda ask: (503, {}, "") if ask.method == "PUT" else (404, {}, ""),
}
RAW: dict[str, bytes] = {
    "netcat": b"HTTP/1.1 200 OK\n\ni-netcat\n",
    "answers without reading": b"HTTP/1.0 200 OK\r\nContent-Length: 7\r\n\r\ni-blind",
    "early hints": b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\ni-hints",
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n",
    "nothing": b"",
}
SERVERS = ("one at a time", "HTTP/1.0", "chunked", "never closes", "slow")


class Handler(BaseHTTPRequestHandler):
    """Answers with the shape's function."""

    serve: Callable[[Ask], Answer]
    chunked = False
    pause = 0.0
    keeps = False

    def do_GET(self) -> None:
        """Answer a request."""
        status, headers, text = type(self).serve(Ask(self.command, self.path, self.headers))
        time.sleep(self.pause)
        body = text.encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header(*(("Transfer-Encoding", "chunked") if self.chunked else ("Content-Length", str(len(body)))))
        self.end_headers()
        if self.chunked:
            body = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
        self.wfile.write(body)
        if self.keeps:
            self.close_connection = False

    do_PUT = do_GET  # noqa: N815  (http.server's name)

    def log_message(self, *_arguments: object) -> None:
        """Write a request's method and path."""
        sys.stdout.write(f"{self.command} {self.path}\n")
        sys.stdout.flush()


def main(shape: str, address: str, port: int) -> None:
    """Serve one shape without end."""
    if shape in RAW:
        raw(shape, address, port)
    handler = Handler
    handler.serve = staticmethod(SHAPES.get(shape, creds))
    handler.protocol_version = "HTTP/1.0" if shape == "HTTP/1.0" else "HTTP/1.1"
    handler.chunked, handler.keeps = shape == "chunked", shape == "never closes"
    handler.pause = 0.3 if shape == "slow" else 0.0
    kind = HTTPServer if shape in ("one at a time", "HTTP/1.0") else ThreadingHTTPServer
    server = kind((address, port), handler)
    listening()
    server.serve_forever()


def raw(shape: str, address: str, port: int) -> None:
    """Answer every connection with the same bytes, without HTTP in the server."""
    with socket.create_server((address, port)) as listener:
        listening()
        while True:
            connection, _ = listener.accept()
            with connection:
                if shape != "answers without reading":
                    connection.recv(65_536)
                connection.sendall(RAW[shape])


def listening() -> None:
    """Say that requests are accepted."""
    sys.stdout.write("listening\n")
    sys.stdout.flush()


if __name__ == "__main__":
    place, _, number = sys.argv[2].rpartition(":")
    main(sys.argv[1], place, int(number))
