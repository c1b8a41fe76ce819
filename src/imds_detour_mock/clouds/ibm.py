"""IBM Cloud's instance identity and metadata service for virtual servers in a VPC."""

from dataclasses import dataclass, field

from imds_detour_mock.clouds.credentials import Rotation, current
from imds_detour_mock.clouds.documents import fill, find, members, moment
from imds_detour_mock.clouds.messages import Reply, Request, document, only
from imds_detour_mock.clouds.tokens import Tokens
from imds_detour_mock.values import Json

TTL = 300  # seconds, the default of the real service; the mock does not read the body that may ask for more

_TOKEN_PATH = ("instance_identity", "v1", "token")
_IAM_PATH = ("instance_identity", "v1", "iam_token")


@dataclass(frozen=True, slots=True)
class Ibm:
    """One virtual server."""

    data: Json
    """`metadata` as the paths below `/metadata/v1/` have it, and `iam_token`."""
    rotation: Rotation | None = None
    """When the IAM token changes, if it does."""
    tokens: Tokens = field(default_factory=Tokens)
    """Issues and checks the identity tokens."""

    def answer(self, request: Request) -> Reply:
        """Answer one request; a `Cloud`."""
        if "version" not in request.query:
            return _error(400, "missing_field", "send ?version=YYYY-MM-DD")
        if request.parts == _TOKEN_PATH:
            return self._issue(request)
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not self.tokens.valid(token.strip(), request.now):
            return _error(401, "not_authorized", "first PUT /instance_identity/v1/token, then send it as Bearer")
        iam = members(find(self.data, ["iam_token"]))
        if request.parts == _IAM_PATH and iam:
            return document(current(iam, self.rotation, request.now)) if request.method == "POST" else only("POST")
        node = fill(find(self.data, ("metadata", *request.parts[2:])), request.now)
        if node is None or request.parts[:2] != ("metadata", "v1") or not request.reads:
            return _error(404, "not_found", "there is GET /metadata/v1/instance")
        return document(node)

    def _issue(self, request: Request) -> Reply:
        if request.method != "PUT":
            return only("PUT")
        if request.headers.get("metadata-flavor", "").lower() != "ibm":
            return _error(400, "missing_field", "send the header Metadata-Flavor: ibm")
        now = request.now
        times: dict[str, Json] = {"created_at": moment(now), "expires_at": moment(now + TTL), "expires_in": TTL}
        return document({"access_token": self.tokens.issue(TTL, now), **times})


def _error(status: int, code: str, message: str) -> Reply:
    return document({"errors": [{"code": code, "message": message}]}, status)
