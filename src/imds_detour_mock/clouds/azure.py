"""Azure's instance metadata service: the virtual machine, its managed identity and its scheduled events."""

import re
from dataclasses import dataclass

from imds_detour_mock.clouds.credentials import Rotation, current_credentials
from imds_detour_mock.clouds.documents import children, current_value, level_text, object_at
from imds_detour_mock.clouds.messages import Reply, Request, json_reply, refuse_method, text_reply
from imds_detour_mock.values import Json

VERSIONS = (
    *("2017-03-01", "2017-04-02", "2017-08-01", "2017-10-01", "2017-12-01", "2018-02-01", "2018-04-02", "2018-10-01"),
    *("2019-02-01", "2019-03-11", "2019-04-30", "2019-06-01", "2019-06-04", "2019-08-01", "2019-08-15", "2019-11-01"),
    *("2020-06-01", "2020-07-15", "2020-09-01", "2020-10-01", "2020-12-01", "2021-01-01", "2021-02-01", "2021-03-01"),
    *("2021-05-01", "2021-10-01", "2021-11-01", "2021-11-15", "2021-12-13", "2023-07-01", "2023-11-15", "2024-03-15"),
    "2024-07-17",
)
"""The versions at `/metadata/versions`. A request may name any date, because SDKs use newer versions than these."""
TTL = 86400  # seconds that an access token lasts if the data have no `expires_in`

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_VERSIONS_PATH = ("metadata", "versions")
_TOKEN_PATH = ("metadata", "identity", "oauth2", "token")


@dataclass(frozen=True, slots=True)
class Azure:
    """One virtual machine's metadata service."""

    data: Json
    """`instance`, `scheduledevents`, `loadbalancer`, `attested`, named as in the paths; `identity`: `info`, `token`."""
    rotation: Rotation | None = None  # rotates the access token; None keeps it

    def answer(self, request: Request) -> Reply:
        """Answer one request, as a `Cloud`."""
        if refusal := _refusal(request):
            return refusal
        if request.parts == _TOKEN_PATH:
            return self._token(request)
        if not request.reads:
            return text_reply("")  # an approval of scheduled events; the mock ignores its body
        return self._read(request)

    def _token(self, request: Request) -> Reply:
        resource = request.query.get("resource")
        if not resource:
            return _bad_request("Required query variable 'resource' is missing", oauth=True)
        token = object_at(self.data, "identity", "token")
        if not token:
            return _bad_request("Identity not found", oauth=True)
        document = current_credentials(token, self.rotation, request.now)
        ttl = value if isinstance(value := document.get("expires_in"), int) else TTL
        # The real service writes numbers as strings here; SDKs read both.
        document |= {
            "client_id": request.query.get("client_id", document.get("client_id")),
            "expires_in": str(ttl),
            "expires_on": str(int(request.now) + ttl),
            "ext_expires_in": str(ttl),
            "not_before": str(int(request.now)),
            "resource": resource,
        }
        return json_reply(document)

    def _read(self, request: Request) -> Reply:
        if request.parts == _VERSIONS_PATH:
            return json_reply({"apiVersions": list(VERSIONS)})
        path = request.parts[1:]
        node = None if path[:2] == ("identity", "token") else current_value(self.data, path, request.now)
        if node is None or not path:
            return json_reply({"error": "Not found"}, 404)
        usual = "text" if children(node) is None else "json"
        as_text = request.query.get("format", usual).lower() == "text"
        return text_reply(level_text(node)) if as_text else json_reply(node)


def _refusal(request: Request) -> Reply | None:
    """Return the refusal of a request without the required header or version, or None if it has both."""
    oauth = request.parts == _TOKEN_PATH
    if not (request.reads or (request.method == "POST" and request.parts[1:2] == ("scheduledevents",))):
        return refuse_method("GET, HEAD")
    # SDKs probe without the header and expect this 400.
    if request.headers.get("metadata", "").lower() != "true":
        return _bad_request("Required metadata header not specified", oauth=oauth)
    if "x-forwarded-for" in request.headers:
        return _bad_request("Requests with X-Forwarded-For are refused", oauth=oauth)
    version = request.query.get("api-version")
    if request.parts == _VERSIONS_PATH or (version and (_DATE.fullmatch(version) or version == "latest")):
        return None
    problem = "is invalid" if version else "was not specified in the request"
    newest: Json = list(reversed(VERSIONS[-3:]))
    return _bad_request(f"api-version {problem}", oauth=oauth, **{"newest-versions": newest})


def _bad_request(problem: str, *, oauth: bool, **members: Json) -> Reply:
    """Return a 400, in OAuth's error format (RFC 6749, section 5.2) or in the service's format."""
    if oauth:
        return json_reply({"error": "invalid_request", "error_description": problem}, 400)
    return json_reply({"error": f"Bad request. {problem}", **members}, 400)
