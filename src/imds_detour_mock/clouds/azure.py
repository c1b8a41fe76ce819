"""Azure's instance metadata service: the virtual machine, its managed identity, and the events ahead of it."""

import re
from dataclasses import dataclass

from imds_detour_mock.clouds.credentials import Rotation, current
from imds_detour_mock.clouds.documents import fill, find, listing, members, scalar
from imds_detour_mock.clouds.messages import Reply, Request, document, only, text
from imds_detour_mock.values import Json

VERSIONS = (
    *("2017-03-01", "2017-04-02", "2017-08-01", "2017-10-01", "2017-12-01", "2018-02-01", "2018-04-02", "2018-10-01"),
    *("2019-02-01", "2019-03-11", "2019-04-30", "2019-06-01", "2019-06-04", "2019-08-01", "2019-08-15", "2019-11-01"),
    *("2020-06-01", "2020-07-15", "2020-09-01", "2020-10-01", "2020-12-01", "2021-01-01", "2021-02-01", "2021-03-01"),
    *("2021-05-01", "2021-10-01", "2021-11-01", "2021-11-15", "2021-12-13", "2023-07-01", "2023-11-15", "2024-03-15"),
    "2024-07-17",
)
"""Listed at `/metadata/versions`. A request may name any date: SDKs are ahead of every list."""
TTL = 86400  # seconds an access token lasts where the data do not say

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_VERSIONS_PATH = ("metadata", "versions")
_TOKEN_PATH = ("metadata", "identity", "oauth2", "token")


@dataclass(frozen=True, slots=True)
class Azure:
    """One virtual machine's metadata service."""

    data: Json
    """`instance`, `scheduledevents`, `loadbalancer`, `attested` as their paths have it; `identity`: `info`, `token`."""
    rotation: Rotation | None = None
    """When the access token changes, if it does."""

    def answer(self, request: Request) -> Reply:
        """Answer one request; a `Cloud`."""
        refusal = _refusal(request)
        if refusal is not None:
            return refusal
        if request.parts == _TOKEN_PATH:
            return self._token(request)
        if not request.reads:
            return text("")  # an approval of scheduled events; what it says does not matter here
        return self._read(request)

    def _token(self, request: Request) -> Reply:
        resource = request.query.get("resource")
        if not resource:
            return _bad("Required query variable 'resource' is missing", token=True)
        token = members(find(self.data, ["identity", "token"]))
        if not token:
            return _bad("Identity not found", token=True)
        served = current(token, self.rotation, request.now)
        lasts = value if isinstance(value := served.get("expires_in"), int) else TTL
        # The real service writes numbers as strings here; SDKs read both.
        served |= {
            "client_id": request.query.get("client_id", served.get("client_id")),
            "expires_in": str(lasts),
            "expires_on": str(int(request.now) + lasts),
            "ext_expires_in": str(lasts),
            "not_before": str(int(request.now)),
            "resource": resource,
        }
        return document(served)

    def _read(self, request: Request) -> Reply:
        if request.parts == _VERSIONS_PATH:
            return document({"apiVersions": list(VERSIONS)})
        path = request.parts[1:]
        node = None if path[:2] == ("identity", "token") else fill(find(self.data, path), request.now)
        if node is None or not path:
            return document({"error": "Not found"}, 404)
        names = listing(node)
        as_text = request.query.get("format", "text" if names is None else "json").lower() == "text"
        if not as_text:
            return document(node)
        return text(scalar(node) if names is None else "\n".join(names))


def _refusal(request: Request) -> Reply | None:
    """Return why a request gets no answer, or None where it gets one."""
    wants_token = request.parts == _TOKEN_PATH
    if not (request.reads or (request.method == "POST" and request.parts[1:2] == ("scheduledevents",))):
        return only("GET, HEAD")
    # SDKs probe without the header, and take the 400 for a sign of life.
    if request.headers.get("metadata", "").lower() != "true":
        return _bad("Required metadata header not specified", token=wants_token)
    if "x-forwarded-for" in request.headers:
        return _bad("Requests with X-Forwarded-For are refused", token=wants_token)
    version = request.query.get("api-version")
    if request.parts == _VERSIONS_PATH or (version and (_DATE.fullmatch(version) or version == "latest")):
        return None
    what = "is invalid" if version else "was not specified in the request"
    newest: Json = list(reversed(VERSIONS[-3:]))
    return _bad(f"api-version {what}", token=wants_token, **{"newest-versions": newest})


def _bad(what: str, *, token: bool, **more: Json) -> Reply:
    """Return a 400 in the words of OAuth where a token was wanted, else in the service's own."""
    if token:
        return document({"error": "invalid_request", "error_description": what}, 400)
    return document({"error": f"Bad request. {what}", **more}, 400)
