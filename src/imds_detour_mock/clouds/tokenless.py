"""The clouds that require no token or header: DigitalOcean, Hetzner, OpenStack and Scaleway."""

import json
import shlex
from dataclasses import dataclass

from imds_detour_mock.clouds.documents import current_value, fill_times, flatten, object_at, to_text, value_at
from imds_detour_mock.clouds.messages import Reply, Request, browse, json_reply, refuse, refuse_method, text_reply
from imds_detour_mock.values import Json

_PATH_NAMES = {
    "address": "ip_address",
    "id": "droplet_id",
    "public-keys": "public_keys",
    "user-data": "user_data",
    "vendor-data": "vendor_data",
}
"""DigitalOcean's names in paths that differ from those in its document."""


@dataclass(frozen=True, slots=True)
class DigitalOcean:
    """One droplet. `/metadata/v1.json` is the whole document, and paths below `/metadata/v1/` are its values."""

    data: Json
    """The document."""

    def answer(self, request: Request) -> Reply:
        """Answer one request, as a `Cloud`."""
        if not request.reads:
            return refuse_method("GET, HEAD")
        if request.parts == ("metadata", "v1.json"):
            return json_reply(fill_times(self.data, request.now))
        return browse(self.data, [_PATH_NAMES.get(part, part) for part in request.parts[2:]], request.now)


@dataclass(frozen=True, slots=True)
class Hetzner:
    """One Hetzner Cloud server. `/hetzner/v1/metadata` is YAML on the real service, and JSON is valid YAML."""

    data: Json
    """`metadata` and `userdata`."""

    def answer(self, request: Request) -> Reply:
        """Answer one request, as a `Cloud`."""
        if not request.reads:
            return refuse_method("GET, HEAD")
        node = current_value(self.data, request.parts[2:], request.now)
        if node is None or request.parts[1:2] != ("v1",) or len(request.parts) < 3:
            return refuse(404, "no such path; there are /hetzner/v1/metadata and /hetzner/v1/userdata")
        return text_reply(json.dumps(node, indent=2) if isinstance(node, dict | list) else to_text(node))


@dataclass(frozen=True, slots=True)
class OpenStack:
    """One OpenStack instance, with the same files under every version."""

    data: Json
    """`versions`, and `files` by name."""

    def answer(self, request: Request) -> Reply:
        """Answer one request, as a `Cloud`. OpenStack's EC2 paths are served by `aws`."""
        if not request.reads:
            return refuse_method("GET, HEAD")
        versions, files = value_at(self.data, ["versions"]), object_at(self.data, "files")
        match request.parts[1:]:
            case []:
                return text_reply(to_text(versions))
            case [version] if version in to_text(versions).split("\n"):
                return text_reply("\n".join(sorted(files)))
            case [version, name] if version in to_text(versions).split("\n") and files.get(name) is not None:
                value = fill_times(files[name], request.now)
                return json_reply(value) if isinstance(value, dict | list) else text_reply(to_text(value))
        return refuse(404, "no such path; /openstack lists the versions")


@dataclass(frozen=True, slots=True)
class Scaleway:
    """One Scaleway instance. `/conf` is shell variables, `/conf?format=json` a document."""

    data: Json
    """`conf`, and `user_data` by key."""

    def answer(self, request: Request) -> Reply:
        """Answer one request, as a `Cloud`. The real service gives user data only to client ports below 1024."""
        if not request.reads:
            return refuse_method("GET, HEAD")
        conf, user_data = current_value(self.data, ["conf"], request.now), object_at(self.data, "user_data")
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
