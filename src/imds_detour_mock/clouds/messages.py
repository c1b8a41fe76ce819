"""Requests and replies, the values between the HTTP server and the clouds."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from imds_detour_mock.clouds.documents import to_text
from imds_detour_mock.values import Json

TEXT = ("Content-Type", "text/plain")
JSON = ("Content-Type", "application/json")


@dataclass(frozen=True, slots=True)
class Request:
    """One parsed HTTP request."""

    method: str  # the HTTP method, in upper case
    parts: tuple[str, ...]  # the path's segments, unescaped, without empty ones
    query: Mapping[str, str]  # the query's variables, unescaped. The last value of a repeated name counts.
    headers: Mapping[str, str]  # the headers, with names in lower case
    now: float  # the time of the request, in seconds since 1970

    @property
    def reads(self) -> bool:
        """Tell whether the method is GET or HEAD. The server removes the body from a HEAD reply."""
        return self.method in {"GET", "HEAD"}


@dataclass(frozen=True, slots=True)
class Reply:
    """One HTTP reply, without Content-Length, which the server adds."""

    status: int  # the HTTP status code
    headers: tuple[tuple[str, str], ...] = (TEXT,)  # the headers, in the order of sending
    body: bytes = b""  # the body, also in a reply to HEAD
    cloud: str = "-"  # the name of the cloud that answered, for the log


Answer: TypeAlias = Callable[[str, str, Mapping[str, str], float], Reply]
"""Answers method, target, headers (names in lower case) and time (seconds since 1970) with a reply."""

Cloud: TypeAlias = Callable[[Request], Reply]  # one cloud's metadata service


def text_reply(body: str, status: int = 200, *headers: tuple[str, str]) -> Reply:
    """Return a plain-text reply."""
    # "replace": JSON can contain a lone surrogate, which UTF-8 cannot encode.
    return Reply(status, (TEXT, *headers), body.encode(errors="replace"))


def json_reply(value: Json, status: int = 200, *, indent: int | None = None) -> Reply:
    """Return a JSON reply. EC2 indents its documents; the other clouds do not, which is faster."""
    return Reply(status, (JSON,), json.dumps(value, indent=indent).encode())


def refuse(status: int, message: str, *headers: tuple[str, str]) -> Reply:
    """Return an error reply of one plain-text line."""
    return text_reply(f"{status}: {message}\n", status, *headers)


def refuse_method(methods: str) -> Reply:
    """Return a 405 reply that names the allowed methods, such as ``GET, HEAD``."""
    return refuse(405, f"this path takes {methods}", ("Allow", methods))


def value_reply(value: Json) -> Reply:
    """Return an object or a list as JSON, and any other value as text."""
    return json_reply(value) if isinstance(value, dict | list) else text_reply(to_text(value))
