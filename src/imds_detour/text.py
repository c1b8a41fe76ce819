"""Check and quote untrusted text, without the module re, which is costly to import (bench/NOTES.md)."""

from __future__ import annotations

DIGITS = frozenset("0123456789")
"""ASCII only: str.isdigit() and int() accept the digits of every script."""
HEX_DIGITS = frozenset("0123456789abcdefABCDEF")
VISIBLE = frozenset(map(chr, range(0x21, 0x7F)))
"""The printable ASCII characters without the space."""


def is_made_of(characters: frozenset[str], text: str | bytes, limit: int) -> bool:
    """Whether a text has 1 to ``limit`` characters, all of them among these; bytes count as Latin-1."""
    text = text.decode("latin-1") if isinstance(text, bytes) else text
    return 1 <= len(text) <= limit and characters.issuperset(text)


def is_path(text: str) -> bool:
    """Whether a text can be a path in a request line: it starts with / and has visible ASCII characters only."""
    return text.startswith("/") and VISIBLE.issuperset(text)


_BYTES = {0xDC00 + byte: f"\\x{byte:02x}" for byte in range(0x80, 0x100)}
"""Escapes for bytes that are not UTF-8, by the surrogates of os.fsdecode()."""


def readable(text: str) -> str:
    """Escape bytes that are not UTF-8."""
    return text.translate(_BYTES)


def printable(text: str) -> str:
    """Escape control characters and bytes that are not UTF-8."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in readable(text))


def quoted(text: str, limit: int = 80) -> str:
    """Return a text in quotes, printable, cut to ``limit`` characters."""
    return f"'{printable(text if len(text) <= limit else text[:limit] + '...')}'"
