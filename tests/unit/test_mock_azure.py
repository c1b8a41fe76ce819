"""The answers of the development mock as Azure's instance metadata service."""

import json

import pytest

from imds_detour_mock.clouds.messages import Reply
from tests.support.servers.clouds import NOW, get, json_body, mock

HEADER = {"metadata": "true"}
VERSION = "api-version=2021-02-01"
IDENTITY = "/metadata/identity/oauth2/token"
RESOURCE = "https://management.azure.com/"


def read(path: str, query: str = VERSION) -> Reply:
    """Read a path with the header that Azure requires."""
    return get(f"/metadata/{path}?{query}", HEADER)


@pytest.mark.parametrize("path", ["instance", "instance/", "/instance"])
def test_azure_instance_is_a_document(path: str) -> None:
    """Azure's instance is a JSON document of compute and network."""
    reply = read(path)
    instance = json_body(reply)
    assert instance["compute"]["vmId"] == "00000000-0000-0000-0000-000000001338"
    assert instance["network"]["interface"][0]["ipv4"]["ipAddress"][0]["privateIpAddress"] == "10.0.0.38"
    assert reply.cloud == "azure"


def test_azure_format_selects_json_or_text() -> None:
    """Azure's `format` selects JSON or text; the default is text for a single value and JSON for a level."""
    assert read("instance/compute/name").body == b"imds-detour-mock"
    assert read("instance/compute/name", f"{VERSION}&format=text").body == b"imds-detour-mock"
    assert json_body(read("instance/compute/name", f"{VERSION}&format=json")) == "imds-detour-mock"
    assert read("instance", f"{VERSION}&format=text").body == b"compute/\nnetwork/"
    path = "instance/network/interface/0/ipv4/ipAddress/0/publicIpAddress"
    assert read(path, f"{VERSION}&format=text").body == b"203.0.113.38"


@pytest.mark.parametrize("headers", [{}, {"metadata": "false"}, {"metadata": ""}])
@pytest.mark.parametrize("query", ["", f"?{VERSION}"])
def test_azure_request_without_the_header_is_400(headers: dict[str, str], query: str) -> None:
    """Every Azure path requires Metadata: true, or True, and the refusal has the real service's format."""
    assert get(f"/metadata/instance?{VERSION}", {"metadata": "True"}).status == 200
    for path in ("/metadata/instance", "/metadata/versions", "/metadata/no"):
        reply = get(path + query, headers)
        assert (reply.status, reply.cloud) == (400, "azure")
        assert json.loads(reply.body) == {"error": "Bad request. Required metadata header not specified"}
    probe = get(IDENTITY + query, headers)
    assert (probe.status, json.loads(probe.body)["error"]) == (400, "invalid_request")


@pytest.mark.parametrize("query", ["", "api-version=", "api-version=2021", "api-version=new"])
def test_azure_request_without_a_version_is_400(query: str) -> None:
    """Azure requires an api-version, and the refusal lists the newest ones, as on the real service."""
    reply = read("instance", query)
    assert reply.status == 400
    document = json.loads(reply.body)
    assert document["error"].startswith("Bad request. api-version ")
    assert len(document["newest-versions"]) == 3
    assert set(document["newest-versions"]) <= set(json_body(read("versions", ""))["apiVersions"])


def test_azure_token_names_its_resource_and_identity() -> None:
    """An Azure access token names resource and user-assigned identity, and its times are numbers as strings."""
    token = json_body(get(f"{IDENTITY}?api-version=2018-02-01&resource=https%3A%2F%2Fmanagement.azure.com%2F", HEADER))
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
    assert json_body(get(f"{IDENTITY}?api-version=2018-02-01&resource=r&client_id=mine", HEADER))["client_id"] == "mine"


@pytest.mark.parametrize("query", ["api-version=2018-02-01", "resource=r", "api-version=2018-02-01&resource="])
def test_azure_token_request_without_version_resource_or_identity_is_400(query: str) -> None:
    """An Azure token request without api-version, resource or identity is refused in OAuth's error format."""
    reply = get(f"{IDENTITY}?{query}", HEADER)
    assert (reply.status, json.loads(reply.body)["error"]) == (400, "invalid_request")
    # Without a token in the data the machine has no identity: 400, as SDKs expect.
    clouds = mock({"azure": {"identity": {"token": None}}})
    assert get(f"{IDENTITY}?api-version=2018-02-01&resource=r", HEADER, clouds=clouds).status == 400


def test_azure_serves_events_identity_and_load_balancer() -> None:
    """Azure serves scheduled events, the identity's tenant, the attested document and the load balancer."""
    assert json_body(read("scheduledevents")) == {"DocumentIncarnation": 1, "Events": []}
    assert mock().answer("POST", f"/metadata/scheduledevents?{VERSION}", HEADER, NOW).status == 200
    assert json_body(read("identity/info"))["tenantId"] == "00000000-0000-0000-0000-00000000face"
    assert json_body(read("attested/document"))["encoding"] == "pkcs7"
    assert "loadbalancer" in json_body(read("loadbalancer"))
