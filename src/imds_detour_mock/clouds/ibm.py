"""IBM Cloud's instance identity and metadata service for virtual servers in a VPC."""

from dataclasses import dataclass, field

from imds_detour_mock.clouds.credentials import Rotation, current_credentials
from imds_detour_mock.clouds.documents import current_value, object_at, timestamp
from imds_detour_mock.clouds.messages import Reply, Request, json_reply, refuse_method
from imds_detour_mock.clouds.tokens import Tokens
from imds_detour_mock.values import Json

TTL = 300  # seconds of a session, the real service's default; the mock ignores a number in the body

_TOKEN_PATH = ("instance_identity", "v1", "token")
_IAM_PATH = ("instance_identity", "v1", "iam_token")


@dataclass(frozen=True, slots=True)
class Ibm:
    """One virtual server."""

    data: Json  # `metadata`, named as in the paths below `/metadata/v1/`, and `iam_token`
    rotation: Rotation | None = None  # rotates the IAM token; None keeps it
    tokens: Tokens = field(default_factory=Tokens)  # issues and checks the identity tokens

    def answer(self, request: Request) -> Reply:
        """Answer one request, as a `Cloud`."""
        if "version" not in request.query:
            return _error(400, "missing_field", "send ?version=YYYY-MM-DD")
        if request.parts == _TOKEN_PATH:
            return self._issue(request)
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not self.tokens.valid(token.strip(), request.now):
            return _error(401, "not_authorized", "first PUT /instance_identity/v1/token, then send it as Bearer")
        iam = object_at(self.data, "iam_token")
        if request.parts == _IAM_PATH and iam:
            served = current_credentials(iam, self.rotation, request.now)
            return json_reply(served) if request.method == "POST" else refuse_method("POST")
        node = current_value(self.data, ("metadata", *request.parts[2:]), request.now)
        if node is None or request.parts[:2] != ("metadata", "v1") or not request.reads:
            return _error(404, "not_found", "there is GET /metadata/v1/instance")
        return json_reply(node)

    def _issue(self, request: Request) -> Reply:
        if request.method != "PUT":
            return refuse_method("PUT")
        if request.headers.get("metadata-flavor", "").lower() != "ibm":
            return _error(400, "missing_field", "send the header Metadata-Flavor: ibm")
        now = request.now
        times: dict[str, Json] = {"created_at": timestamp(now), "expires_at": timestamp(now + TTL), "expires_in": TTL}
        return json_reply({"access_token": self.tokens.issue(TTL, now), **times})


def _error(status: int, code: str, message: str) -> Reply:
    return json_reply({"errors": [{"code": code, "message": message}]}, status)
