"""The answers of the development mock as Google Cloud's metadata server."""

import base64
import json
from urllib.parse import quote

import pytest

from imds_detour_mock.clouds.messages import Reply
from tests.support.servers.clouds import NOW, get, json_body, mock

FLAVOR = {"metadata-flavor": "Google"}
ROOT = "/computeMetadata/v1"
EMAIL = "imds-detour-mock@imds-detour-mock.iam.gserviceaccount.com"


def read(path: str) -> Reply:
    """Read a path with the header that Google requires."""
    return get(f"{ROOT}/{path}", FLAVOR)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("project/project-id", "imds-detour-mock"),
        ("project/numeric-project-id", "123456789012"),
        ("instance/id", "1234567890123456789"),
        ("instance/zone", "projects/123456789012/zones/us-central1-a"),
        ("instance/name", "imds-detour-mock"),
        ("instance/hostname", "imds-detour-mock.us-central1-a.c.imds-detour-mock.internal"),
        ("instance/attributes/startup-script", "#!/bin/sh\n:\n"),
        ("instance/network-interfaces/0/ip", "10.128.0.38"),
        ("instance/service-accounts/default/email", EMAIL),
        (f"instance/service-accounts/{quote(EMAIL)}/email", EMAIL),
        ("instance/service-accounts/default/scopes", "https://www.googleapis.com/auth/cloud-platform"),
        ("universe/universe-domain", "googleapis.com"),
    ],
)
@pytest.mark.parametrize("slash", ["", "/"])
def test_gcp_value_is_text(path: str, text: str, slash: str) -> None:
    """A single value of Google's server is text, with or without a final slash, and has Google's header."""
    reply = read(path + slash)
    assert (reply.status, reply.body.decode(), reply.cloud) == (200, text, "gcp")
    assert ("Metadata-Flavor", "Google") in reply.headers


@pytest.mark.parametrize("slash", ["", "/"])
def test_gcp_directory_lists_its_names(slash: str) -> None:
    """A directory of Google's server lists one name per line, and each subdirectory with a slash."""
    assert get(f"/computeMetadata{slash}", FLAVOR).body == b"v1/\n"
    assert get(f"{ROOT}{slash}", FLAVOR).body == b"instance/\nproject/\nuniverse/\n"
    assert read(f"instance/service-accounts{slash}").body.decode() == f"default/\n{EMAIL}/\n"
    assert read(f"instance/network-interfaces{slash}").body == b"0/\n"
    assert read(f"instance/service-accounts/default{slash}").body == b"aliases\nemail\nidentity\nscopes\ntoken\n"


@pytest.mark.parametrize("query", ["recursive=true", "recursive=true&alt=json", "recursive=True"])
def test_gcp_recursive_answer_is_json_in_camel_case(query: str) -> None:
    """A recursive answer of Google's server is one document with names in camel case, except names that users chose."""
    instance = json_body(read(f"instance/?{query}"))
    assert instance["machineType"] == "projects/123456789012/machineTypes/e2-micro"
    assert instance["networkInterfaces"][0]["accessConfigs"][0]["externalIp"] == "203.0.113.38"
    assert instance["attributes"] == {"startup-script": "#!/bin/sh\n:\n"}
    account = {"aliases": ["default"], "email": EMAIL, "scopes": ["https://www.googleapis.com/auth/cloud-platform"]}
    assert instance["serviceAccounts"] == {"default": account, EMAIL: account}
    assert json_body(read(f"instance/service-accounts/?{query}")) == instance["serviceAccounts"]
    assert json_body(read(f"instance/service-accounts/default/?{query}")) == account
    assert json_body(read(f"?{query}"))["project"]["numericProjectId"] == 123456789012
    assert "token" not in json_body(read(f"?{query}"))


def test_gcp_alt_selects_json_or_text() -> None:
    """Google's `alt` selects JSON for a value or text for a recursive answer; tags are JSON by default."""
    assert json_body(read("instance/id?alt=json")) == 1234567890123456789
    assert json_body(read("project/?alt=json")) == ["attributes/", "numeric-project-id", "project-id"]
    assert json_body(read("instance/tags")) == ["imds-detour-mock"]
    assert read("instance/tags?alt=text").body == b"imds-detour-mock"
    assert "project-id imds-detour-mock" in read("project/?recursive=true&alt=text").body.decode().splitlines()


@pytest.mark.parametrize("account", ["default", quote(EMAIL)])
@pytest.mark.parametrize("query", ["", "?scopes=a,b"])
def test_gcp_access_token_lasts_an_hour(account: str, query: str) -> None:
    """Google's access token is JSON with its lifetime as a number of seconds."""
    assert json_body(read(f"instance/service-accounts/{account}/token{query}")) == {
        "access_token": "mock-access-token-opens-nothing",
        "expires_in": 3599,
        "token_type": "Bearer",
    }


@pytest.mark.parametrize(("query", "full"), [("", False), ("&format=standard", False), ("&format=full", True)])
def test_gcp_identity_token_names_its_audience(query: str, full: bool) -> None:
    """Google's identity token is a readable JWT without a valid signature, and requires an audience."""
    assert read("instance/service-accounts/default/identity").status == 400
    reply = read(f"instance/service-accounts/default/identity?audience=https%3A%2F%2Fexample.com{query}")
    header, claims, signature = (
        base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in reply.body.decode().split(".")
    )
    assert (json.loads(header)["alg"], signature) == ("RS256", b"mock-signature-proves-nothing")
    read_claims = json.loads(claims)
    assert (read_claims["aud"], read_claims["email"]) == ("https://example.com", EMAIL)
    assert (read_claims["iat"], read_claims["exp"]) == (NOW, NOW + 3600)
    if full:
        assert read_claims["google"]["compute_engine"]["zone"] == "us-central1-a"
    else:
        assert "google" not in read_claims


@pytest.mark.parametrize("headers", [{}, {"metadata-flavor": ""}, {"metadata-flavor": "ibm"}])
@pytest.mark.parametrize("path", ["/computeMetadata", f"{ROOT}/", f"{ROOT}/project/project-id", f"{ROOT}/no"])
def test_gcp_request_without_the_header_is_403(headers: dict[str, str], path: str) -> None:
    """Every path of Google's server requires Metadata-Flavor: Google, and also the refusal has it."""
    reply = get(path, headers)
    assert (reply.status, reply.cloud) == (403, "gcp")
    assert ("Metadata-Flavor", "Google") in reply.headers


def test_gcp_root_has_the_header_for_every_client() -> None:
    """`GET /` has Google's header for every client, because Go's client expects it, and lists Google's root with it."""
    for headers in (FLAVOR, {"host": "metadata.google.internal"}, {"host": "metadata.google.internal.:80"}):
        reply = get("/", headers)
        assert (reply.status, reply.body) == (200, b"computeMetadata/\n")
        assert ("Metadata-Flavor", "Google") in reply.headers
    assert ("Metadata-Flavor", "Google") in get("/").headers
    assert get("/").cloud == "aws"


def test_null_removes_gcp_or_a_service_account() -> None:
    """With `"gcp": null` the mock serves neither Google's paths nor its header; a null may also remove an account."""
    clouds = mock({"gcp": None})
    assert get(f"{ROOT}/project/project-id", FLAVOR, clouds=clouds).status == 404
    assert get("/", FLAVOR, clouds=clouds).status == 404
    for path in ("/", ROOT):
        assert "Metadata-Flavor" not in dict(get(path, clouds=clouds).headers)
    # A null inside the document removes a service account and its token.
    clouds = mock({"gcp": {"instance": {"service-accounts": {"default": None}}, "token": {"expires_in": 10}}})
    assert get(f"{ROOT}/instance/service-accounts/default/token", FLAVOR, clouds=clouds).status == 404
    other = get(f"{ROOT}/instance/service-accounts/{quote(EMAIL)}/token", FLAVOR, clouds=clouds)
    assert json_body(other)["expires_in"] == 10
