"""The development mock with arbitrary requests and values."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imds_detour_mock.clouds.aws import ALIBABA
from imds_detour_mock.clouds.credentials import Rotation
from imds_detour_mock.values import DOCUMENT_ROOTS, DataError, Json
from tests.support.servers.clouds import DEFAULTS, NOW, mock

MOCK = mock()
ECS_TTL, ECS_SESSION = ALIBABA.ttl_header.lower(), ALIBABA.session_header.lower()
SEGMENTS = st.sampled_from(
    [
        *("latest", "meta-data", "api", "token", "v1", "v2", "v3", "v4", "creds", "role", "credentials", "task", "x"),
        *("computeMetadata", "instance", "service-accounts", "default", "identity", "0", "-1", "9" * 9, "\u0661"),
        *("metadata", "oauth2", "versions", "scheduledevents", "compute", "v1.json", "interfaces", "public", "opc"),
        *("hetzner", "userdata", "openstack", "conf", "user_data", "instance_identity", "iam_token", "$now", "$json"),
        *("%2F", "%00", "..", ".", "%ff", "", "network", "dynamic", "instance-identity", "document"),
    ]
)
QUERIES = st.sampled_from(
    [
        *("", "recursive=true", "alt=json", "recursive=true&alt=text", "audience=x&format=full", "format=text", "&&=&"),
        *("api-version=2021-02-01", "api-version=2021-02-01&resource=r", "version=1", "format=json", "%zz=%"),
    ]
)
HEADERS = st.dictionaries(
    st.sampled_from(
        [
            *("metadata", "metadata-flavor", "authorization", "host", "metadata-token", "accept", "x-forwarded-for"),
            *(ECS_TTL, ECS_SESSION, "x-aws-ec2-metadata-token", "metadata-token-expiry-seconds"),
        ]
    ),
    st.sampled_from(["true", "Google", "ibm", "Bearer Oracle", "60", "", "application/json", "100.100.100.200"]),
)
METHODS = st.sampled_from(["GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS"])


@given(method=METHODS, path=st.lists(SEGMENTS, max_size=6), query=QUERIES, headers=HEADERS)
def test_mock_answers_any_request_itself(method: str, path: list[str], query: str, headers: dict[str, str]) -> None:
    """The mock answers any request with a valid status, without a redirect or an exception."""
    reply = MOCK.answer(method, f"/{'/'.join(path)}?{query}", headers, NOW)
    assert reply.status in {200, 400, 401, 403, 404, 405}
    assert reply.cloud != "-"
    assert "Location" not in dict(reply.headers)


def paths_in(node: Json, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Return the path of every value that a user can override in the documents."""
    if not isinstance(node, dict) or "$now" in node:
        return [path]
    return [path, *(below for name, child in node.items() for below in paths_in(child, (*path, name)))]


PATHS = [
    path
    for root, cloud in json.loads(DEFAULTS).items()
    if root in DOCUMENT_ROOTS
    for path in paths_in(cloud["$json"], (root,))
]
VALUES = st.sampled_from([None, 0, -1, 1.5, True, "", "\ud800", [], [None], [[1], {"a": None}], {"a": 1}, {"$now": 5}])
REQUESTS = (
    *(("PUT", path, headers) for path, headers in (("/latest/api/token", {ECS_TTL: "60"}), ("/v1/token", {}))),
    *(("GET", path, {}) for path in ("/creds", "/role/x", "/v4", "/v4/task", "/conf", "/conf?format=json")),
    *(("GET", path, {}) for path in ("/user_data", "/user_data/cloud-init", "/openstack", "/openstack/latest")),
    *(("GET", path, {}) for path in ("/openstack/latest/user_data", "/metadata/v1.json", "/metadata/v1/interfaces")),
    *(("GET", path, {}) for path in ("/hetzner/v1/metadata", "/opc/v1/instance", "/opc/v1/vnics", "/opc/v1/vnics/0")),
    ("GET", "/v1/credentials", {"authorization": "x"}),
    *(
        ("GET", f"/computeMetadata/v1/{path}", {"metadata-flavor": "Google"})
        for path in (
            *(
                "?recursive=true",
                "?recursive=true&alt=text",
                "instance/tags",
                "instance/",
                "instance/network-interfaces",
            ),
            *(f"instance/service-accounts/default/{leaf}" for leaf in ("", "token", "identity?audience=x&format=full")),
        )
    ),
    *(
        ("GET", f"/metadata/{path}api-version=2021-02-01", {"metadata": "true"})
        for path in ("instance?", "instance?format=text&", "identity/oauth2/token?resource=r&", "scheduledevents?")
    ),
)


@pytest.mark.parametrize("rotation", [None, Rotation(60, NOW)])
@given(path=st.sampled_from(PATHS), value=VALUES)
def test_mock_refuses_or_serves_any_value(rotation: Rotation | None, path: tuple[str, ...], value: Json) -> None:
    """Any value at any path of the documents is either refused before the start or causes no exception in a request."""
    override = value
    for name in reversed(path):
        override = {name: override}
    with contextlib.suppress(DataError):
        clouds = mock(override, rotation=rotation)
        for method, target, headers in REQUESTS:
            assert clouds.answer(method, target, headers, NOW).status in {200, 400, 401, 404}, target
