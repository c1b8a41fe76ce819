"""The development mock's values: the built-in ones, overridden by a user's JSON file."""

import json
import os
from typing import TypeAlias

from imds_detour.errors import DetourError

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

AWS_ROOTS = ("meta-data", "user-data", "dynamic")  # EC2's directories, which are at the outermost level
DOCUMENT_ROOTS = (
    *("akamai", "azure", "digitalocean", "ecs", "eks", "gcp", "hetzner", "ibm", "oci", "openstack", "scaleway"),
)
"""The clouds whose values are one document. Alibaba's are a directory that contains EC2's three."""

_MAX_DEPTH = 50  # far below the interpreter's recursion limit
_TOO_DEEP = f"nested too deeply; use at most {_MAX_DEPTH} levels"
_MAX_OFFSET = 10**9  # seconds, about 31 years: the year keeps four digits


class DataError(DetourError):
    """The mock cannot serve the values. The reason names the value and the valid form."""

    def __init__(self, reason: str, remedy: str = "") -> None:
        super().__init__("mock", reason, remedy)


def read_values(path: str | None) -> dict[str, Json]:
    """Return the built-in values, overridden by those of the JSON file at `path`.

    Raises `DataError`, also if the file cannot be read.
    """
    # Not importlib.resources: it would add zipfile to the bundle.
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "mock_data.json"), encoding="utf-8") as file:
        defaults = file.read()
    if path is None:
        return load(defaults)
    try:
        with open(path, encoding="utf-8-sig") as file:
            return load(defaults, file.read())
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}", "give --data a JSON file") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text", "save it as UTF-8") from error
    except DataError as error:
        raise DataError(f"{path}: {error.reason}") from error


def load(defaults: str, override: str | None = None) -> dict[str, Json]:
    """Return the default values, overridden by the user's values. Both arguments are JSON text.

    EC2's values are directories: an object is a directory, and `{"$json": ...}` is a document. The values of another
    cloud are one document. In a document, `{"$now": N}` is the time N seconds after the request. `null` in the user's
    text removes a value or a whole cloud; in a document it is a value.

    Raises `DataError` for text that is not JSON and for values that the mock cannot serve.
    """
    try:
        base: Json = json.loads(defaults)
        data = base if override is None else _merge(base, json.loads(override))
        _check(data, "")
    except json.JSONDecodeError as error:
        raise DataError(f"not JSON: {error}; correct it there") from error
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
            _check_shape(document_of(base, name), document_of(data, name), f"/{name}")
    return data


def document_of(data: Json, root: str) -> Json:
    """Return a cloud's document, or None if the data have none."""
    cloud = data.get(root) if isinstance(data, dict) else None
    return cloud.get("$json") if isinstance(cloud, dict) else None


def _merge(base: Json, over: Json, *, in_document: bool = False) -> Json:
    if not isinstance(over, dict):
        return over
    merged = dict(base) if isinstance(base, dict) else {}
    if "$json" in merged and "$json" not in over:
        over = {"$json": over}  # a plain object overrides members of the document
    elif "$json" in over and "$json" not in merged:
        merged = {}  # a document replaces a directory
    for key, value in over.items():
        if value is None and not in_document:
            merged.pop(key, None)
        else:
            merged[key] = _merge(merged.get(key), value, in_document=in_document or key == "$json")
    return merged


def _check(node: Json, path: str, depth: int = 0) -> None:
    if isinstance(node, list) or node is None:
        raise DataError(f'{path or "/"}: this cannot be served; write a string, or {{"$json": ...}} for a document')
    if isinstance(node, dict) and "$json" in node and len(node) == 1:
        _check_document(node["$json"], path, depth)
    elif isinstance(node, dict):
        for name, child in node.items():
            if not name or name.startswith("$") or "/" in name or not name.isprintable():
                raise DataError(f"{path}/: {name!r} cannot be a name here; nest objects instead of writing /")
            if depth == _MAX_DEPTH:
                raise DataError(_TOO_DEEP)
            _check(child, f"{path}/{name}", depth + 1)


def _check_document(node: Json, path: str, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise DataError(_TOO_DEEP)
    if isinstance(node, dict) and "$now" in node:
        offset = node["$now"]
        # "not <=" also refuses NaN, which Python reads from JSON.
        if len(node) > 1 or not isinstance(offset, int | float) or not abs(offset) <= _MAX_OFFSET:
            raise DataError(f'{path}: write {{"$now": N}}, N seconds from -{_MAX_OFFSET} to {_MAX_OFFSET}')
    elif isinstance(node, dict | list):
        for child in node.values() if isinstance(node, dict) else node:
            _check_document(child, path, depth + 1)


def _check_shape(default: Json, node: Json, path: str) -> None:
    """Check a document against the built-in one: a member that the mock reads must have the same kind, or be null."""
    if isinstance(default, dict) and "$now" not in default:
        if not isinstance(node, dict):
            if node is None and path.count("/") > 1:
                return
            raise DataError(f"{path}: this must be an object of {', '.join(default)}"[:160])
        for name in default.keys() & node.keys():
            _check_shape(default[name], node[name], f"{path}/{name}")
    elif isinstance(default, int) and not isinstance(default, bool) and type(node) not in {int, type(None)}:
        raise DataError(f"{path}: this must be a whole number, such as {default}")
