"""Google Compute Engine's metadata server, version 1."""

import base64
import functools
import json
import re
from dataclasses import dataclass, replace

from imds_detour_mock.clouds.credentials import Rotation, current
from imds_detour_mock.clouds.documents import children, fill, find, flat, listing, members, scalar
from imds_detour_mock.clouds.messages import Reply, Request, document, only, refuse, text
from imds_detour_mock.values import Json

FLAVOR = ("Metadata-Flavor", "Google")
"""What a request must carry, and every reply does: SDKs take who sends it for Google."""
ID_TTL = 3600  # seconds for which an identity token is good ("Verify the identity of instances")

_ACCOUNTS = ("instance", "service-accounts")
_COMPUTED = ("identity", "token")  # below a service account; listed, and left out of recursive answers


@dataclass(frozen=True, slots=True)
class Gcp:
    """One Compute Engine instance's metadata server."""

    data: Json
    """`instance`, `project` and `universe` as their paths have it, and `token`, which every service account gets."""
    rotation: Rotation | None = None
    """When the access token changes, if it does."""

    def answer(self, request: Request) -> Reply:
        """Answer one request; a `Cloud`. `wait_for_change` is answered at once: nothing changes here."""
        reply = self._answer(request)
        return replace(reply, headers=(*reply.headers, FLAVOR))

    def _answer(self, request: Request) -> Reply:
        if not request.reads:
            return only("GET, HEAD")
        if "x-forwarded-for" in request.headers:
            return refuse(403, "not for a request that came through a proxy (it has X-Forwarded-For)")
        if not request.parts:
            return _plain("computeMetadata/\n")  # the one path that the real server, too, answers without the header
        if request.headers.get("metadata-flavor", "").lower() != "google":
            return refuse(403, "send the header Metadata-Flavor: Google")
        version, path = request.parts[1:2], request.parts[2:]
        if version == ("v1",):
            return self._read(request, path)
        return refuse(404, "no such version; there is v1") if version else _plain("v1/\n")

    def _read(self, request: Request, path: tuple[str, ...]) -> Reply:
        if path[:2] == _ACCOUNTS and path[3:4] and path[3] in _COMPUTED and len(path) == 4:
            account = find(self.data, path[:3])
            if isinstance(account, dict):
                return self._token(request) if path[3] == "token" else _identity(self.data, account, request)
        tree = {name: value for name, value in members(self.data).items() if name != "token"}
        node = fill(find(tree, path), request.now)
        if node is None:
            return refuse(404, "no such value")
        alt = request.query.get("alt", "json" if path == ("instance", "tags") else "")  # the one leaf that is JSON
        as_json = alt == "json"
        if request.query.get("recursive", "").lower() == "true":
            if as_json or not alt:
                return document(_camel(node, path))
            return text("".join(f"{'/'.join(name)} {value}\n" for name, value in flat(node)))
        names = listing(node)
        if names is None:
            return document(node) if as_json else _plain(scalar(node))
        if path[:2] == _ACCOUNTS and len(path) == 3:
            names = sorted((*names, *_COMPUTED))
        return document(list(names)) if as_json else _plain("".join(f"{name}\n" for name in names))

    def _token(self, request: Request) -> Reply:
        token = members(find(self.data, ["token"]))
        return document(current(token, self.rotation, request.now)) if token else refuse(404, "no token")


def _plain(body: str) -> Reply:
    return replace(text(body), headers=(("Content-Type", "application/text"),))  # so says the real server


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
        project, instance = members(find(data, ["project"])), members(find(data, ["instance"]))
        claims["google"] = {
            "compute_engine": {
                "instance_id": str(instance.get("id")),
                "instance_name": instance.get("name"),
                "project_id": project.get("project-id"),
                "project_number": project.get("numeric-project-id"),
                "zone": scalar(instance.get("zone")).rpartition("/")[2],
            }
        }
    header: Json = {"alg": "RS256", "kid": "imds-detour-mock", "typ": "JWT"}
    signed = (*(json.dumps(part).encode() for part in (header, claims)), b"mock-signature-proves-nothing")
    return text(".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in signed))


def _camel(node: Json, path: tuple[str, ...]) -> Json:
    """Rename what is below a path as recursive answers have it: camel case, but for names that users gave."""
    if isinstance(node, list):
        return [_camel(child, (*path, "0")) for child in node]
    level = children(node)
    if level is None:
        return node
    given = path[-1:] == ("attributes",) or path == _ACCOUNTS
    return {name if given else _camel_name(name): _camel(child, (*path, name)) for name, child in level}


@functools.lru_cache(maxsize=1024)
def _camel_name(name: str) -> str:
    return re.sub("-(.)", lambda match: match[1].upper(), name)
