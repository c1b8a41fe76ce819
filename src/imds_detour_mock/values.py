"""The development mock's values: the built-in ones, and a user's JSON file merged over them."""

import json
from typing import TypeAlias

from imds_detour.errors import DetourError

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

AWS_ROOTS = ("meta-data", "user-data", "dynamic")
"""EC2's directories, at the outermost level because they were there first."""
DOCUMENT_ROOTS = (
    *("akamai", "azure", "digitalocean", "ecs", "eks", "gcp", "hetzner", "ibm", "oci", "openstack", "scaleway"),
)
"""Clouds that are a document each. Alibaba is a directory like EC2, with the same three below it."""

_MAX_DEPTH = 50  # keeps a broken file far from the interpreter's recursion limit
_TOO_DEEP = f"nested too deeply; use at most {_MAX_DEPTH} levels"
_MAX_OFFSET = 10**9  # seconds, some 31 years: such a time still fits a four-digit year


class DataError(DetourError):
    """The metadata values cannot be served; the reason says which one, and what to write instead."""

    def __init__(self, reason: str) -> None:
        super().__init__("mock", reason)


def load(defaults: str, override: str | None = None) -> dict[str, Json]:
    """Read the default values and a user's, both JSON text, and merge the second over the first.

    Of EC2, an object is a directory, `{"$json": ...}` a document, and in a document `{"$now": N}` is the time N seconds
    after the request. Other clouds are one document each. `null` in the user's text removes a value, or a whole cloud;
    inside a document it is a value.

    Raises `DataError` if a text is not JSON or holds something that cannot be served.
    """
    try:
        before: Json = json.loads(defaults)
        data = before if override is None else _merge(before, json.loads(override))
        _check(data, "")
    except json.JSONDecodeError as error:
        raise DataError(f"not JSON: {error}; correct that place") from error
    except RecursionError as error:
        raise DataError(_TOO_DEEP) from error
    if not isinstance(data, dict):
        raise DataError('the outermost level must be an object, such as {"meta-data": {"instance-id": "i-1"}}')
    roots = (*AWS_ROOTS, "alibaba", *DOCUMENT_ROOTS)
    if unknown := data.keys() - roots:
        raise DataError(f"the outermost level takes no {min(unknown)[:40]!r}, only {', '.join(roots)}")
    if not isinstance(data.get("alibaba", {}), dict):
        raise DataError(f"/alibaba: this must be an object of {', '.join(AWS_ROOTS)}")
    for name in DOCUMENT_ROOTS:
        if name in data:
            _check_shape(document_of(before, name), document_of(data, name), f"/{name}")
    return data


def document_of(data: Json, root: str) -> Json:
    """Return a cloud's document, or None where the data has none."""
    cloud = data.get(root) if isinstance(data, dict) else None
    return cloud.get("$json") if isinstance(cloud, dict) else None


def _merge(base: Json, over: Json, *, in_document: bool = False) -> Json:
    if not isinstance(over, dict):
        return over
    merged = dict(base) if isinstance(base, dict) else {}
    if "$json" in merged and "$json" not in over:
        over = {"$json": over}  # a plain object over a document means the document's members
    elif "$json" in over and "$json" not in merged:
        merged = {}  # a document takes the place of a directory
    for key, value in over.items():
        if value is None and not in_document:
            merged.pop(key, None)
        else:
            merged[key] = _merge(merged.get(key), value, in_document=in_document or key == "$json")
    return merged


def _check(node: Json, where: str, depth: int = 0) -> None:
    if isinstance(node, list) or node is None:
        raise DataError(f'{where or "/"}: this cannot be served; write one text, or {{"$json": ...}} for a document')
    if isinstance(node, dict) and "$json" in node and len(node) == 1:
        _check_document(node["$json"], where, depth)
    elif isinstance(node, dict):
        for name, child in node.items():
            if not name or name.startswith("$") or "/" in name or not name.isprintable():
                raise DataError(f"{where}/: {name!r} cannot be a name here; nest objects instead of writing /")
            if depth == _MAX_DEPTH:
                raise DataError(_TOO_DEEP)
            _check(child, f"{where}/{name}", depth + 1)


def _check_document(node: Json, where: str, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise DataError(_TOO_DEEP)
    if isinstance(node, dict) and "$now" in node:
        offset = node["$now"]
        # Written as "not <=" because NaN, which Python reads from JSON, is neither smaller nor greater.
        if len(node) > 1 or not isinstance(offset, int | float) or not abs(offset) <= _MAX_OFFSET:
            raise DataError(f'{where}: write {{"$now": N}}, N seconds from -{_MAX_OFFSET} to {_MAX_OFFSET}')
    elif isinstance(node, dict | list):
        for child in node.values() if isinstance(node, dict) else node:
            _check_document(child, where, depth + 1)


def _check_shape(default: Json, node: Json, where: str) -> None:
    """Hold a document against the built-in one: what is read by name keeps its kind, or is null."""
    if isinstance(default, dict) and "$now" not in default:
        if not isinstance(node, dict):
            if node is None and where.count("/") > 1:
                return
            raise DataError(f"{where}: this must be an object of {', '.join(default)}"[:160])
        for name in default.keys() & node.keys():
            _check_shape(default[name], node[name], f"{where}/{name}")
    elif isinstance(default, int) and not isinstance(default, bool) and type(node) not in {int, type(None)}:
        raise DataError(f"{where}: this must be a whole number, such as {default}")
