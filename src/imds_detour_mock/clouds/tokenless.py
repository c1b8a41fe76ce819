"""Clouds that answer everybody at once: DigitalOcean, Hetzner, OpenStack and Scaleway."""

import json
import shlex
from dataclasses import dataclass

from imds_detour_mock.clouds.documents import fill, find, flat, members, scalar
from imds_detour_mock.clouds.messages import Reply, Request, browse, document, only, refuse, text
from imds_detour_mock.values import Json

_IN_PIECES = {
    "address": "ip_address",
    "id": "droplet_id",
    "public-keys": "public_keys",
    "user-data": "user_data",
    "vendor-data": "vendor_data",
}
"""DigitalOcean's names in paths, where its document has others."""


@dataclass(frozen=True, slots=True)
class DigitalOcean:
    """One droplet: `/metadata/v1.json` is the whole of what `/metadata/v1/` has in pieces."""

    data: Json
    """The document."""

    def answer(self, request: Request) -> Reply:
        """Answer one request; a `Cloud`."""
        if not request.reads:
            return only("GET, HEAD")
        if request.parts == ("metadata", "v1.json"):
            return document(fill(self.data, request.now))
        return browse(self.data, [_IN_PIECES.get(part, part) for part in request.parts[2:]], request.now)


@dataclass(frozen=True, slots=True)
class Hetzner:
    """One Hetzner Cloud server: `/hetzner/v1/metadata` is YAML, of which JSON is a kind."""

    data: Json
    """`metadata` and `userdata`."""

    def answer(self, request: Request) -> Reply:
        """Answer one request; a `Cloud`."""
        if not request.reads:
            return only("GET, HEAD")
        node = fill(find(self.data, request.parts[2:]), request.now)
        if node is None or request.parts[1:2] != ("v1",) or len(request.parts) < 3:
            return refuse(404, "no such path; there are /hetzner/v1/metadata and /hetzner/v1/userdata")
        return text(json.dumps(node, indent=2) if isinstance(node, dict | list) else scalar(node))


@dataclass(frozen=True, slots=True)
class OpenStack:
    """One OpenStack instance: the same files under every version."""

    data: Json
    """`versions`, and `files` by their names."""

    def answer(self, request: Request) -> Reply:
        """Answer one request; a `Cloud`. Its EC2 paths are EC2's: they are the default here."""
        if not request.reads:
            return only("GET, HEAD")
        versions, files = find(self.data, ["versions"]), members(find(self.data, ["files"]))
        match request.parts[1:]:
            case []:
                return text(scalar(versions))
            case [version] if version in scalar(versions).split("\n"):
                return text("\n".join(sorted(files)))
            case [version, name] if version in scalar(versions).split("\n") and files.get(name) is not None:
                value = fill(files[name], request.now)
                return document(value) if isinstance(value, dict | list) else text(scalar(value))
        return refuse(404, "no such path; /openstack lists the versions")


@dataclass(frozen=True, slots=True)
class Scaleway:
    """One Scaleway instance: `/conf` as variables for a shell, `/conf?format=json` as they are."""

    data: Json
    """`conf`, and `user_data` by key."""

    def answer(self, request: Request) -> Reply:
        """Answer one request; a `Cloud`. The real service gives user data only to a client port below 1024."""
        if not request.reads:
            return only("GET, HEAD")
        conf, user_data = fill(find(self.data, ["conf"]), request.now), members(find(self.data, ["user_data"]))
        as_json = request.query.get("format") == "json"
        match request.parts:
            case ["conf"] if as_json:
                return document(conf)
            case ["conf"]:
                return text("".join(f"{'_'.join(path).upper()}={shlex.quote(value)}\n" for path, value in flat(conf)))
            case ["user_data"]:
                return document({"user_data": list(user_data)}) if as_json else text("\n".join(user_data))
            case ["user_data", key] if user_data.get(key) is not None:
                return text(scalar(user_data[key]))
        return refuse(404, "no such path; there are /conf and /user_data")
