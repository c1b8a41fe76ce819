"""The metadata service of Akamai (Linode)."""

import base64
from dataclasses import dataclass, field

from imds_detour_mock.clouds.documents import current_value, flatten
from imds_detour_mock.clouds.messages import Reply, Request, json_reply, refuse, refuse_method, text_reply
from imds_detour_mock.clouds.tokens import Tokens, parse_seconds
from imds_detour_mock.values import Json

MAX_TTL = 86400  # seconds of the longest session that the real service grants


@dataclass(frozen=True, slots=True)
class Akamai:
    """One Linode. It answers `name: value` lines, or JSON if the `Accept` header asks for it."""

    data: Json  # `instance`, `network`, `ssh-keys` and `user-data`, named as in the paths
    tokens: Tokens = field(default_factory=Tokens)  # issues and checks the session tokens

    def answer(self, request: Request) -> Reply:
        """Answer one request, as a `Cloud`."""
        as_json = "application/json" in request.headers.get("accept", "")
        if request.parts == ("v1", "token"):
            return self._issue(request, as_json)
        if not request.reads:
            return refuse_method("GET, HEAD")
        if not self.tokens.valid(request.headers.get("metadata-token", ""), request.now):
            return refuse(401, "first PUT /v1/token, then send what it answers as Metadata-Token")
        node = current_value(self.data, request.parts[1:2], request.now)
        if node is None or len(request.parts) != 2:
            return refuse(404, "no such path; there are /v1/instance, /v1/network, /v1/ssh-keys and /v1/user-data")
        return json_reply(node) if as_json and not isinstance(node, str) else text_reply(_lines(node))

    def _issue(self, request: Request, as_json: bool) -> Reply:
        if request.method != "PUT":
            return refuse_method("PUT")
        ttl = parse_seconds(request.headers.get("metadata-token-expiry-seconds", ""), MAX_TTL)
        if ttl is None:
            return refuse(400, f"send Metadata-Token-Expiry-Seconds with a number from 1 to {MAX_TTL}")
        token = self.tokens.issue(ttl, request.now)
        return json_reply([token]) if as_json else text_reply(token)


def _lines(node: Json) -> str:
    if isinstance(node, str):  # user data is served in base64
        return base64.b64encode(node.encode(errors="replace")).decode()
    return "".join(f"{'.'.join(path)}: {value}\n" for path, value in flatten(node))
