"""Google Compute Engine's metadata server, version 1."""

import base64
import functools
import json
import re
from dataclasses import dataclass, replace

from imds_detour_mock.clouds.credentials import Rotation, current_credentials
from imds_detour_mock.clouds.documents import children, current_value, flatten, list_names, object_at, to_text, value_at
from imds_detour_mock.clouds.messages import Reply, Request, json_reply, refuse, refuse_method, text_reply
from imds_detour_mock.values import Json

FLAVOR = ("Metadata-Flavor", "Google")  # of all requests and replies: SDKs recognize Google's server by it
ID_TTL = 3600  # seconds that an identity token is valid (Compute Engine guide, "Verify the identity of instances")

_ACCOUNTS = ("instance", "service-accounts")
_COMPUTED = ("identity", "token")  # of a service account: in its list of names, but not in recursive answers


@dataclass(frozen=True, slots=True)
class Gcp:
    """One Compute Engine instance's metadata server."""

    data: Json
    """`instance`, `project` and `universe`, named as in the paths, and `token`, shared by all service accounts."""
    rotation: Rotation | None = None  # rotates the access token; None keeps it

    def answer(self, request: Request) -> Reply:
        """Answer one request, as a `Cloud`. A request with `wait_for_change` is answered at once."""
        reply = self._answer(request)
        return replace(reply, headers=(*reply.headers, FLAVOR))

    def _answer(self, request: Request) -> Reply:
        if not request.reads:
            return refuse_method("GET, HEAD")
        if "x-forwarded-for" in request.headers:
            return refuse(403, "not for a request that came through a proxy (it has X-Forwarded-For)")
        if not request.parts:
            return _plain("computeMetadata/\n")  # the real server also answers this path without the header
        if request.headers.get("metadata-flavor", "").lower() != "google":
            return refuse(403, "send the header Metadata-Flavor: Google")
        version, path = request.parts[1:2], request.parts[2:]
        if version == ("v1",):
            return self._read(request, path)
        return refuse(404, "no such version; there is v1") if version else _plain("v1/\n")

    def _read(self, request: Request, path: tuple[str, ...]) -> Reply:
        if path[:2] == _ACCOUNTS and path[3:4] and path[3] in _COMPUTED and len(path) == 4:
            account = value_at(self.data, path[:3])
            if isinstance(account, dict):
                return self._token(request) if path[3] == "token" else _identity(self.data, account, request)
        tree = {name: value for name, value in object_at(self.data).items() if name != "token"}
        node = current_value(tree, path, request.now)
        if node is None:
            return refuse(404, "no such value")
        alt = request.query.get("alt", "json" if path == ("instance", "tags") else "")  # tags alone default to JSON
        as_json = alt == "json"
        if request.query.get("recursive", "").lower() == "true":
            if as_json or not alt:
                return json_reply(_to_camel_case(node, path))
            return text_reply("".join(f"{'/'.join(name)} {value}\n" for name, value in flatten(node)))
        names = list_names(node)
        if names is None:
            return json_reply(node) if as_json else _plain(to_text(node))
        if path[:2] == _ACCOUNTS and len(path) == 3:
            names = sorted((*names, *_COMPUTED))
        return json_reply(list(names)) if as_json else _plain("".join(f"{name}\n" for name in names))

    def _token(self, request: Request) -> Reply:
        token = object_at(self.data, "token")
        return json_reply(current_credentials(token, self.rotation, request.now)) if token else refuse(404, "no token")


def _plain(body: str) -> Reply:
    return replace(text_reply(body), headers=(("Content-Type", "application/text"),))  # as the real server


def _identity(data: Json, account: dict[str, Json], request: Request) -> Reply:
    audience = request.query.get("audience")
    if not audience:
        return refuse(400, "send audience=, whom the token is for")
    email = account.get("email")
    claims: dict[str, Json] = {
        "aud": audience,
        "azp": "100000000000000000000",
        "email": email,
        "email_verified": True,
        "exp": int(request.now) + ID_TTL,
        "iat": int(request.now),
        "iss": "https://accounts.google.com",
        "sub": "100000000000000000000",
    }
    if request.query.get("format") == "full":
        project, instance = object_at(data, "project"), object_at(data, "instance")
        claims["google"] = {
            "compute_engine": {
                "instance_id": str(instance.get("id")),
                "instance_name": instance.get("name"),
                "project_id": project.get("project-id"),
                "project_number": project.get("numeric-project-id"),
                "zone": to_text(instance.get("zone")).rpartition("/")[2],
            }
        }
    header: Json = {"alg": "RS256", "kid": "imds-detour-mock", "typ": "JWT"}
    signed = (*(json.dumps(part).encode() for part in (header, claims)), b"mock-signature-proves-nothing")
    return text_reply(".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in signed))


def _to_camel_case(node: Json, path: tuple[str, ...]) -> Json:
    """Return a recursive answer, whose names are in camel case except those that users chose."""
    if isinstance(node, list):
        return [_to_camel_case(child, (*path, "0")) for child in node]
    level = children(node)
    if level is None:
        return node
    rename = str if path[-1:] == ("attributes",) or path == _ACCOUNTS else _camel_case_name
    return {rename(name): _to_camel_case(child, (*path, name)) for name, child in level}


@functools.lru_cache(maxsize=1024)
def _camel_case_name(name: str) -> str:
    return re.sub("-(.)", lambda match: match[1].upper(), name)
