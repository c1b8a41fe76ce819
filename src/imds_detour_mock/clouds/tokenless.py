"""The clouds that require no token or header: DigitalOcean, Hetzner, OpenStack and Scaleway."""

import json
import shlex

from imds_detour_mock.clouds.documents import (
    current_value,
    fill_times,
    flatten,
    level_text,
    object_at,
    to_text,
    value_at,
)
from imds_detour_mock.clouds.messages import Reply, Request, json_reply, refuse, text_reply, value_reply
from imds_detour_mock.values import Json

_PATH_NAMES = {
    "address": "ip_address",
    "id": "droplet_id",
    "public-keys": "public_keys",
    "user-data": "user_data",
    "vendor-data": "vendor_data",
}
"""DigitalOcean's names in paths that differ from those in its document."""


def digitalocean(data: Json, request: Request) -> Reply:
    """Answer a read of one droplet. `data` is the document.

    `/metadata/v1.json` is all of it, and the paths below `/metadata/v1/` are its values.
    """
    if request.parts == ("metadata", "v1.json"):
        return json_reply(fill_times(data, request.now))
    node = current_value(data, [_PATH_NAMES.get(part, part) for part in request.parts[2:]], request.now)
    return refuse(404, "no such value") if node is None else text_reply(level_text(node))


def hetzner(data: Json, request: Request) -> Reply:
    """Answer a read of one Hetzner Cloud server. `data` has `metadata` and `userdata`.

    `/hetzner/v1/metadata` is YAML on the real service, and JSON is valid YAML.
    """
    node = current_value(data, request.parts[2:], request.now)
    if node is None or request.parts[1:2] != ("v1",) or len(request.parts) < 3:
        return refuse(404, "no such path; there are /hetzner/v1/metadata and /hetzner/v1/userdata")
    return text_reply(json.dumps(node, indent=2) if isinstance(node, dict | list) else to_text(node))


def openstack(data: Json, request: Request) -> Reply:
    """Answer a read of one OpenStack instance. `data` has `versions`, and `files` by name, the same in every version.

    `aws` serves OpenStack's EC2 paths.
    """
    versions, files = value_at(data, ["versions"]), object_at(data, "files")
    match request.parts[1:]:
        case []:
            return text_reply(to_text(versions))
        case [version] if version in to_text(versions).split("\n"):
            return text_reply("\n".join(sorted(files)))
        case [version, name] if version in to_text(versions).split("\n") and files.get(name) is not None:
            return value_reply(fill_times(files[name], request.now))
    return refuse(404, "no such path; /openstack lists the versions")


def scaleway(data: Json, request: Request) -> Reply:
    """Answer a read of one Scaleway instance. `data` has `conf`, and `user_data` by key.

    `/conf` is shell variables, `/conf?format=json` JSON. The real service refuses user data to client ports above 1023.
    """
    conf, user_data = current_value(data, ["conf"], request.now), object_at(data, "user_data")
    as_json = request.query.get("format") == "json"
    match request.parts:
        case ["conf"] if as_json:
            return json_reply(conf)
        case ["conf"]:
            return text_reply(
                "".join(f"{'_'.join(path).upper()}={shlex.quote(value)}\n" for path, value in flatten(conf))
            )
        case ["user_data"]:
            return json_reply({"user_data": list(user_data)}) if as_json else text_reply("\n".join(user_data))
        case ["user_data", key] if user_data.get(key) is not None:
            return text_reply(to_text(user_data[key]))
    return refuse(404, "no such path; there are /conf and /user_data")
