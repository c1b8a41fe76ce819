"""Read a JSON document like a directory tree: values by path, names of a level, times of the request."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from imds_detour_mock.values import Json


def timestamp(seconds: float) -> str:
    """Return seconds since 1970 in the clouds' format, such as ``2023-11-14T22:13:20Z``."""
    return datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def fill_times(node: Json, now: float) -> Json:
    """Return the document with each `{"$now": N}` replaced by the time N seconds from now."""
    if isinstance(node, list):
        return [fill_times(child, now) for child in node]
    if not isinstance(node, dict):
        return node
    if isinstance(offset := node.get("$now"), int | float):
        return timestamp(now + offset)
    return {key: fill_times(child, now) for key, child in node.items()}


def value_at(node: Json, path: Iterable[str]) -> Json:
    """Return the value at a path, or None if there is none. A number in the path selects a list item."""
    for name in path:
        if isinstance(node, dict):
            node = None if "$now" in node else node.get(name)  # {"$now": N} is a single value
        # At most five digits: int() refuses thousands of them.
        elif isinstance(node, list) and name.isdecimal() and name.isascii() and len(name) < 6:
            node = node[int(name)] if int(name) < len(node) else None
        else:
            return None
    return node


def current_value(node: Json, path: Iterable[str], now: float) -> Json:
    """Return the value at a path with its times filled in, or None if there is none."""
    return fill_times(value_at(node, path), now)


def object_at(node: Json, *path: str) -> dict[str, Json]:
    """Return the object at a path, or an empty one if the value is none."""
    value = value_at(node, path)
    return value if isinstance(value, dict) else {}


def children(node: Json) -> list[tuple[str, Json]] | None:
    """Return the names and values of one level, or None for a single value or a list of single values."""
    if isinstance(node, dict):
        return list(node.items())
    if isinstance(node, list) and any(isinstance(child, dict | list) for child in node):
        return [(str(number), child) for number, child in enumerate(node)]
    return None


def list_names(node: Json) -> list[str] | None:
    """Return the sorted names of one level, or None for a single value. A name of a lower level ends with a slash."""
    level = children(node)
    if level is None:
        return None
    return sorted(f"{name}/" if children(child) is not None else name for name, child in level)


def level_text(node: Json) -> str:
    """Return the names of one level, a line each, or a single value as text."""
    names = list_names(node)
    return to_text(node) if names is None else "\n".join(names)


def to_text(node: Json) -> str:
    """Return a single value as text. A list has one item per line."""
    if isinstance(node, list):
        return "\n".join(to_text(child) for child in node)
    if node is None:
        return ""
    if isinstance(node, bool):
        return "true" if node else "false"
    return str(node)


def flatten(node: Json, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the path and the text of every single value."""
    level = children(node)
    if level is None:
        yield path, to_text(node)
    else:
        for name, child in level:
            yield from flatten(child, (*path, name))
