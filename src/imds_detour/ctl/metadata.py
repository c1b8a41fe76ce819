"""What the development mock answers as the metadata service of an EC2 instance. Values only: no sockets, no clock."""

import base64
import binascii
import hmac
import json
import secrets
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeAlias
from urllib.parse import unquote

from imds_detour.ctl.mock_values import Json

TTL_HEADER = "X-aws-ec2-metadata-token-ttl-seconds"
SESSION_HEADER = "X-aws-ec2-metadata-token"
MAX_TTL = 21600  # seconds, the longest the real service grants
VERSIONS = (
    *("1.0", "2007-01-19", "2007-03-01", "2007-08-29", "2007-10-10", "2007-12-15", "2008-02-01", "2008-09-01"),
    *("2009-04-04", "2011-01-01", "2011-05-01", "2012-01-12", "2014-02-25", "2014-11-05", "2015-10-20", "2016-04-19"),
    *("2016-06-30", "2016-09-02", "2018-03-28", "2018-08-17", "2018-09-24", "2019-10-01", "2020-10-27", "2021-01-03"),
    *("2021-03-23", "2021-07-15", "2022-09-24", "2024-04-11", "latest"),
)

_TOKEN_PARTS = ["latest", "api", "token"]
_TEXT = ("Content-Type", "text/plain")
_JSON = ("Content-Type", "application/json")


@dataclass(frozen=True, slots=True)
class Reply:
    """One HTTP answer. It has no Content-Length: the server derives that from the body."""

    status: int
    """The HTTP status code."""
    headers: tuple[tuple[str, str], ...] = (_TEXT,)
    """Names and values in the order sent."""
    body: bytes = b""
    """The whole body; the answer to HEAD carries it too, and the server leaves it out."""


Answer: TypeAlias = Callable[[str, str, Mapping[str, str], float], Reply]
"""What the server asks of a cloud: method, path, headers (names in lower case), now (seconds since 1970) to a reply."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """Session tokens that carry their own expiry under a signature, so that none has to be stored."""

    key: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)
    """Signs the tokens; another key is another mock, which knows none of them."""

    def issue(self, ttl: int, now: float) -> str:
        """Return a new token for `ttl` seconds from `now`; no two are equal."""
        claim = struct.pack(">d", now + ttl) + secrets.token_bytes(8)
        return base64.urlsafe_b64encode(claim + self._sign(claim)).decode()

    def valid(self, token: str, now: float) -> bool:
        """Tell whether this object issued the token and its time is not over."""
        try:
            raw = base64.b64decode(token, altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):  # ValueError: a character outside ASCII
            return False
        claim, signature = raw[:16], raw[16:]
        return hmac.compare_digest(signature, self._sign(claim)) and now < float(struct.unpack(">d", claim[:8])[0])

    def _sign(self, claim: bytes) -> bytes:
        return hmac.digest(self.key, claim, "sha256")[:26]  # 16 + 26 bytes: base64 without padding or idle bits


@dataclass(frozen=True, slots=True)
class Instance:
    """One EC2 instance's metadata service, versions 1 and 2."""

    data: dict[str, Json]
    """`meta-data`, `user-data` and `dynamic`, as `load` returns them."""
    require_token: bool = False
    """Whether a read without a session token is refused (IMDSv2 only)."""
    tokens: Tokens = field(default_factory=Tokens)
    """Issues and checks the session tokens."""

    def answer(self, method: str, path: str, headers: Mapping[str, str], now: float) -> Reply:
        """Answer one request; an `Answer`. It never redirects: empty path segments, wherever they are, do not count."""
        parts = [unquote(part) for part in path.partition("?")[0].split("/") if part]
        if parts == _TOKEN_PARTS:
            return self._issue(method, headers, now)
        if method not in {"GET", "HEAD"}:
            return _refuse(405, "only GET and HEAD are answered here", ("Allow", "GET, HEAD"))
        token = headers.get(SESSION_HEADER.lower())
        if token is None and self.require_token:
            return _refuse(401, f"first PUT /latest/api/token, then send what it answers as {SESSION_HEADER}")
        if token is not None and not self.tokens.valid(token, now):
            return _refuse(401, "this token is unknown or its time is over")
        return self._read(parts, now)

    def _issue(self, method: str, headers: Mapping[str, str], now: float) -> Reply:
        if method != "PUT":
            return _refuse(405, "only PUT is answered here", ("Allow", "PUT"))
        if "x-forwarded-for" in headers:
            return _refuse(403, "no token for a request that came through a proxy (it has X-Forwarded-For)")
        ttl = headers.get(TTL_HEADER.lower(), "")
        # int() alone would also take signs, blanks, underscores, other scripts' digits and any length.
        if not (ttl.isascii() and ttl.isdigit() and len(ttl) <= 5 and 1 <= int(ttl) <= MAX_TTL):
            return _refuse(400, f"send {TTL_HEADER} with a number of seconds from 1 to {MAX_TTL}")
        return Reply(200, (_TEXT, (TTL_HEADER, ttl)), self.tokens.issue(int(ttl), now).encode())

    def _read(self, parts: list[str], now: float) -> Reply:
        if not parts:
            return _text("\n".join(VERSIONS))
        if parts[0] not in VERSIONS:
            return _refuse(404, "no such version; / lists them")
        if len(parts) == 1:
            return _text("\n".join(sorted(self.data)))  # the real service writes no slashes at this level
        node: Json = self.data
        for part in parts[1:]:
            node = _child(node, part)
        if node is None:
            return _refuse(404, "no such value")
        return _render(node, now)


def _child(node: Json, name: str) -> Json:
    if not isinstance(node, dict) or "$json" in node:
        return None
    if name in node:
        return node[name]
    # public-keys lists "0=name" and serves that directory as "0".
    return next((child for key, child in node.items() if key.startswith(f"{name}=")), None)


def _render(node: Json, now: float) -> Reply:
    if not isinstance(node, dict):
        return _text(node if isinstance(node, str) else json.dumps(node))
    if "$json" in node:
        return Reply(200, (_JSON,), json.dumps(_fill(node["$json"], now), indent=2).encode())
    plain = {name for name, child in node.items() if not isinstance(child, dict) or "$json" in child or "=" in name}
    return _text("\n".join(name if name in plain else f"{name}/" for name in sorted(node)))


def _fill(node: Json, now: float) -> Json:
    """Return the document with its `$now` places turned into times."""
    if isinstance(node, list):
        return [_fill(child, now) for child in node]
    if not isinstance(node, dict):
        return node
    if isinstance(offset := node.get("$now"), int | float):
        return datetime.fromtimestamp(now + offset, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {key: _fill(child, now) for key, child in node.items()}


def _text(body: str, status: int = 200, *headers: tuple[str, str]) -> Reply:
    # "replace": JSON can spell half a character (a lone surrogate), which has no bytes.
    return Reply(status, (_TEXT, *headers), body.encode(errors="replace"))


def _refuse(status: int, message: str, *headers: tuple[str, str]) -> Reply:
    return _text(f"{status}: {message}\n", status, *headers)
