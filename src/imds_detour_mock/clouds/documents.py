"""JSON documents read like directories: a path into one, the listing of a level, and times filled in."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from imds_detour_mock.values import Json


def moment(now: float) -> str:
    """Return a time, in seconds since 1970, the way the clouds write it, such as ``2023-11-14T22:13:20Z``."""
    return datetime.fromtimestamp(now, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def fill(node: Json, now: float) -> Json:
    """Return the document with its `$now` places turned into times."""
    if isinstance(node, list):
        return [fill(child, now) for child in node]
    if not isinstance(node, dict):
        return node
    if isinstance(offset := node.get("$now"), int | float):
        return moment(now + offset)
    return {key: fill(child, now) for key, child in node.items()}


def find(node: Json, path: Iterable[str]) -> Json:
    """Return what stands at a path, list items by their number, or None where nothing does."""
    for name in path:
        if isinstance(node, dict):
            node = None if "$now" in node else node.get(name)  # a time is a single value
        elif (
            isinstance(node, list) and name.isdecimal() and name.isascii() and len(name) < 6
        ):  # int() takes no millions
            node = node[int(name)] if int(name) < len(node) else None
        else:
            return None
    return node


def members(node: Json) -> dict[str, Json]:
    """Return an object itself, and of everything else an empty one."""
    return node if isinstance(node, dict) else {}


def children(node: Json) -> list[tuple[str, Json]] | None:
    """Return the names and values of one level, or None for a single value; a list of single values is one."""
    if isinstance(node, dict):
        return list(node.items())
    if isinstance(node, list) and any(isinstance(child, dict | list) for child in node):
        return [(str(number), child) for number, child in enumerate(node)]
    return None


def listing(node: Json) -> list[str] | None:
    """Return the names of one level in order, levels below it with a slash, or None for a single value."""
    level = children(node)
    return (
        None if level is None else sorted(f"{name}/" if children(child) is not None else name for name, child in level)
    )


def scalar(node: Json) -> str:
    """Return a single value as text, and a list of them one a line."""
    if isinstance(node, list):
        return "\n".join(scalar(child) for child in node)
    if node is None:
        return ""
    if isinstance(node, bool):
        return "true" if node else "false"
    return str(node)


def flat(node: Json, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield every single value with its path."""
    level = children(node)
    if level is None:
        yield path, scalar(node)
    else:
        for name, child in level:
            yield from flat(child, (*path, name))
