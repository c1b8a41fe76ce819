"""What the development mock answers as Azure's instance metadata service."""

import json

import pytest

from imds_detour_mock.clouds.messages import Reply
from tests.support.servers.clouds import NOW, get, mock, value

HEADER = {"metadata": "true"}
VERSION = "api-version=2021-02-01"
IDENTITY = "/metadata/identity/oauth2/token"
RESOURCE = "https://management.azure.com/"


def read(path: str, query: str = VERSION) -> Reply:
    """Read one path with the header that Azure wants."""
    return get(f"/metadata/{path}?{query}", HEADER)


@pytest.mark.parametrize("path", ["instance", "instance/", "/instance"])
def test_the_instance_is_a_document(path: str) -> None:
    """The instance is JSON of compute and network."""
    reply = read(path)
    instance = value(reply)
    assert instance["compute"]["vmId"] == "00000000-0000-0000-0000-000000001338"
    assert instance["network"]["interface"][0]["ipv4"]["ipAddress"][0]["privateIpAddress"] == "10.0.0.38"
    assert reply.cloud == "azure"


def test_a_single_value_is_text_and_a_level_json_unless_asked_otherwise() -> None:
    """`format` chooses between JSON and text, and each path has its own default."""
    assert read("instance/compute/name").body == b"imds-detour-mock"
    assert read("instance/compute/name", f"{VERSION}&format=text").body == b"imds-detour-mock"
    assert value(read("instance/compute/name", f"{VERSION}&format=json")) == "imds-detour-mock"
    assert read("instance", f"{VERSION}&format=text").body == b"compute/\nnetwork/"
    path = "instance/network/interface/0/ipv4/ipAddress/0/publicIpAddress"
    assert read(path, f"{VERSION}&format=text").body == b"203.0.113.38"


@pytest.mark.parametrize("headers", [{}, {"metadata": "false"}, {"metadata": ""}])
@pytest.mark.parametrize("query", ["", f"?{VERSION}"])
def test_a_request_without_the_header_is_400(headers: dict[str, str], query: str) -> None:
    """Every path needs Metadata: true, and says so in the service's own shape."""
    for path in ("/metadata/instance", "/metadata/versions", "/metadata/no"):
        reply = get(path + query, headers)
        assert (reply.status, reply.cloud) == (400, "azure")
        assert json.loads(reply.body) == {"error": "Bad request. Required metadata header not specified"}
    probe = get(IDENTITY + query, headers)
    assert probe.status == 400
    assert json.loads(probe.body)["error"] == "invalid_request"


def test_the_header_may_be_written_in_any_case() -> None:
    """Documentation writes true and some clients True."""
    assert get(f"/metadata/instance?{VERSION}", {"metadata": "True"}).status == 200


@pytest.mark.parametrize("query", ["", "api-version=", "api-version=2021", "api-version=new"])
def test_a_request_without_a_version_is_400_and_names_the_newest(query: str) -> None:
    """A version is needed, and the refusal lists versions, as the real one does."""
    reply = read("instance", query)
    assert reply.status == 400
    document = json.loads(reply.body)
    assert document["error"].startswith("Bad request. api-version ")
    assert len(document["newest-versions"]) == 3
    assert set(document["newest-versions"]) <= set(value(read("versions", ""))["apiVersions"])


def test_a_forwarded_request_is_refused() -> None:
    """A request that came through a proxy is refused."""
    assert get(f"/metadata/instance?{VERSION}", {**HEADER, "x-forwarded-for": "192.0.2.1"}).status == 400


def test_a_token_is_for_its_resource() -> None:
    """A token names the resource it was asked for, and its times are numbers written as text."""
    token = value(get(f"{IDENTITY}?api-version=2018-02-01&resource=https%3A%2F%2Fmanagement.azure.com%2F", HEADER))
    assert token == {
        "access_token": "mock-access-token-opens-nothing",
        "client_id": "00000000-0000-0000-0000-00000000c11e",
        "expires_in": "86399",
        "expires_on": str(int(NOW) + 86399),
        "ext_expires_in": "86399",
        "not_before": str(int(NOW)),
        "resource": RESOURCE,
        "token_type": "Bearer",
    }


def test_a_token_may_be_for_an_identity_of_its_own() -> None:
    """A user-assigned identity is echoed."""
    reply = get(f"{IDENTITY}?api-version=2018-02-01&resource=r&client_id=mine", HEADER)
    assert value(reply)["client_id"] == "mine"


@pytest.mark.parametrize("query", ["api-version=2018-02-01", "resource=r", "api-version=2018-02-01&resource="])
def test_a_token_needs_version_and_resource(query: str) -> None:
    """A token request that lacks one is refused in OAuth's shape."""
    reply = get(f"{IDENTITY}?{query}", HEADER)
    assert reply.status == 400
    assert json.loads(reply.body)["error"] == "invalid_request"


def test_events_and_the_like_are_there() -> None:
    """Scheduled events, the identity's tenant, the attested document and the load balancer answer."""
    assert value(read("scheduledevents")) == {"DocumentIncarnation": 1, "Events": []}
    assert mock().answer("POST", f"/metadata/scheduledevents?{VERSION}", HEADER, NOW).status == 200
    assert value(read("identity/info"))["tenantId"] == "00000000-0000-0000-0000-00000000face"
    assert value(read("attested/document"))["encoding"] == "pkcs7"
    assert "loadbalancer" in value(read("loadbalancer"))


@pytest.mark.parametrize("path", ["", "no", "instance/compute/no", "identity/token", "instance/compute/name/more"])
def test_the_unknown_is_404(path: str) -> None:
    """What is not there is 404."""
    assert read(path).status == 404


def test_other_methods_are_405() -> None:
    """Only reads are answered."""
    assert mock().answer("PUT", f"/metadata/instance?{VERSION}", HEADER, NOW).status == 405


def test_a_machine_may_have_no_identity() -> None:
    """Without a token in the data a machine has no identity: 400, which SDKs take for just that."""
    of = mock({"azure": {"identity": {"token": None}}})
    assert get(f"{IDENTITY}?api-version=2018-02-01&resource=r", HEADER, of=of).status == 400
