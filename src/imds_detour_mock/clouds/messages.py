"""A request as a cloud gets to see it, and the reply that a cloud gives."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from imds_detour_mock.clouds.documents import fill, find, listing, scalar
from imds_detour_mock.values import Json

TEXT = ("Content-Type", "text/plain")
JSON = ("Content-Type", "application/json")


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request, taken apart."""

    method: str
    """In upper case, as HTTP has it."""
    parts: tuple[str, ...]
    """The path's segments, unescaped; empty ones do not count, wherever they are."""
    query: Mapping[str, str]
    """The query's names and values, unescaped; of a repeated name the last."""
    headers: Mapping[str, str]
    """Names in lower case."""
    now: float
    """When it came, in seconds since 1970."""

    @property
    def reads(self) -> bool:
        """Whether it is GET or HEAD; the server leaves the body out of the answer to the second."""
        return self.method in {"GET", "HEAD"}


@dataclass(frozen=True, slots=True)
class Reply:
    """One HTTP answer. It has no Content-Length: the server derives that from the body."""

    status: int
    """The HTTP status code."""
    headers: tuple[tuple[str, str], ...] = (TEXT,)
    """Names and values in the order sent."""
    body: bytes = b""
    """The whole body; the answer to HEAD carries it too, and the server leaves it out."""
    cloud: str = "-"
    """Which cloud answered, for the log."""


Answer: TypeAlias = Callable[[str, str, Mapping[str, str], float], Reply]
"""What the server asks: method, target, headers (names in lower case), now (seconds since 1970) to a reply."""

Cloud: TypeAlias = Callable[[Request], Reply]
"""One cloud's metadata service."""


def text(body: str, status: int = 200, *headers: tuple[str, str]) -> Reply:
    """Return a reply of plain text."""
    # "replace": JSON can spell half a character (a lone surrogate), which has no bytes.
    return Reply(status, (TEXT, *headers), body.encode(errors="replace"))


def document(value: Json, status: int = 200, *, indent: int | None = None) -> Reply:
    """Return a reply of JSON; indented takes several times as long, and EC2 has it so."""
    return Reply(status, (JSON,), json.dumps(value, indent=indent).encode())


def refuse(status: int, message: str, *headers: tuple[str, str]) -> Reply:
    """Return a refusal in one plain line."""
    return text(f"{status}: {message}\n", status, *headers)


def only(methods: str) -> Reply:
    """Return the refusal of every method but those named, such as ``GET, HEAD``."""
    return refuse(405, f"this path takes {methods}", ("Allow", methods))


def browse(data: Json, path: Iterable[str], now: float) -> Reply:
    """Return what stands at a path of a document: a level as a list of names, a single value as text."""
    node = fill(find(data, path), now)
    if node is None:
        return refuse(404, "no such value")
    names = listing(node)
    return text(scalar(node) if names is None else "\n".join(names))
