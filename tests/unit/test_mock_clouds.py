"""How the development mock selects the cloud of a request, and its answers for the smaller clouds."""

import json

import pytest

from imds_detour_mock.clouds.aws import ALIBABA
from imds_detour_mock.values import DataError, load
from tests.support.servers.clouds import DEFAULTS, NOW, get, json_body, mock

ECS_TTL, ECS_SESSION = ALIBABA.ttl_header.lower(), ALIBABA.session_header.lower()
IBM = {"metadata-flavor": "ibm"}
ROLE = "/latest/meta-data/iam/security-credentials/imds-detour-mock-role"
AZURE_VERSION = "api-version=2021-02-01"
INSTANCE, PROJECT = f"/metadata/instance?{AZURE_VERSION}", "/computeMetadata/v1/project/project-id"
REQUIRED = {
    "aws": {"x-aws-ec2-metadata-token-ttl-seconds": "60"},
    "eks": {"authorization": "x"},
    "gcp": {"metadata-flavor": "Google"},
    "azure": {"metadata": "true"},
}
"""The headers that a cloud requires."""


@pytest.mark.parametrize(
    ("method", "target", "headers", "cloud"),
    [
        ("PUT", "/latest/api/token", REQUIRED["aws"], "aws"),
        ("GET", "/v2/credentials/x", {}, "ecs"),
        ("GET", "/v1/credentials", REQUIRED["eks"], "eks"),
        ("GET", "/computeMetadata/v1/", REQUIRED["gcp"], "gcp"),
        ("GET", INSTANCE, REQUIRED["azure"], "azure"),
        ("GET", "/opc/v2/instance/", {"authorization": "Bearer Oracle"}, "oci"),
        ("PUT", "/latest/api/token", {ECS_TTL: "60"}, "alibaba"),
        ("GET", "/metadata/v1.json", {}, "digitalocean"),
        ("GET", "/hetzner/v1/metadata", {}, "hetzner"),
        ("GET", "/conf?format=json", {}, "scaleway"),
        ("PUT", "/v1/token", {"metadata-token-expiry-seconds": "300"}, "akamai"),
        ("GET", "/openstack/latest/meta_data.json", {}, "openstack"),
        ("PUT", "/instance_identity/v1/token?version=2022-03-01", IBM, "ibm"),
    ],
)
@pytest.mark.parametrize("slashes", ["", "/", "///"])
def test_mock_answers_the_proof_request_of_every_cloud(
    method: str, target: str, headers: dict[str, str], cloud: str, slashes: str
) -> None:
    """The mock answers each cloud's proof request, also with repeated or trailing slashes; a removed cloud is 404."""
    path, mark, query = target.partition("?")
    for spelling in (slashes + target, f"{slashes}{path}/{mark}{query}"):
        reply = mock().answer(method, spelling, headers, NOW)
        assert (reply.status, reply.cloud) == (200, cloud)
        assert reply.body
    # A cloud that the user's data remove is 404.
    roots = ("meta-data", "user-data", "dynamic") if cloud == "aws" else (cloud,)
    removed = mock(dict.fromkeys(roots)).answer(method, target, headers, NOW)
    assert (removed.status, removed.body) == (404, f"404: the data has no {cloud}\n".encode())


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        *(("/opc/v2/instance/", {}), ("/opc/v2/instance/", {"authorization": "Bearer other"})),
        *(("/v1/instance", {}), ("/v1/instance", {"metadata-token": "x"})),
        *(("/metadata/v1/instance?version=1", IBM), ("/metadata/v1/instance?version=1", {"authorization": "Bearer x"})),
        ("/latest/meta-data/", {ECS_SESSION: "x"}),
        *(("/v1/credentials", {}), ("/v1/credentials", {"authorization": ""})),
    ],
)
def test_request_without_the_required_header_is_refused(target: str, headers: dict[str, str]) -> None:
    """A request without its cloud's header, or with a token that the mock never issued, is refused."""
    reply = get(target, headers)
    assert reply.status in {401, 403}
    assert target != "/v1/credentials" or (reply.status, reply.cloud) == (401, "eks")


def test_akamai_token_is_valid_until_it_expires() -> None:
    """An Akamai token is text or a JSON list, and is valid for reads until it expires."""
    clouds, headers = mock(), {"metadata-token-expiry-seconds": "300"}
    token = clouds.answer("PUT", "/v1/token", headers, NOW).body.decode()
    [other] = json_body(clouds.answer("PUT", "/v1/token", {**headers, "accept": "application/json"}, NOW))
    for issued in (token, other):
        assert get("/v1/instance", {"metadata-token": issued}, clouds=clouds).body.startswith(b"id: 1338\n")
        assert get("/v1/instance", {"metadata-token": issued}, clouds=clouds, now=NOW + 300).status == 401
    accepting = {"metadata-token": token, "accept": "application/json"}
    assert json_body(get("/v1/instance", accepting, clouds=clouds))["specs"]["vcpus"] == 1
    assert get("/v1/user-data", accepting, clouds=clouds).body == b"I2Nsb3VkLWNvbmZpZwp7fQo="
    assert get("/v1/no", accepting, clouds=clouds).status == 404
    for ttl in ("", "0", "86401", "soon"):
        assert clouds.answer("PUT", "/v1/token", {"metadata-token-expiry-seconds": ttl}, NOW).status == 400


def test_ibm_token_is_valid_for_five_minutes() -> None:
    """An IBM token is JSON with its times. It is valid for reads and for an IAM token for five minutes."""
    clouds = mock()
    token = json_body(clouds.answer("PUT", "/instance_identity/v1/token?version=1", IBM, NOW))
    assert (token["expires_in"], token["expires_at"]) == (300, "2023-11-14T22:18:20Z")
    bearer = {"authorization": f"Bearer {token['access_token']}"}
    assert json_body(get("/metadata/v1/instance?version=1", bearer, clouds=clouds))["name"] == "imds-detour-mock"
    assert get("/metadata/v1/instance?version=1", bearer, clouds=clouds, now=NOW + 300).status == 401
    iam = clouds.answer("POST", "/instance_identity/v1/iam_token?version=1", bearer, NOW)
    assert json_body(iam)["access_token"] == "mock-access-token-opens-nothing"  # noqa: S105  (no secret)
    assert clouds.answer("PUT", "/instance_identity/v1/token", IBM, NOW).status == 400
    assert clouds.answer("PUT", "/instance_identity/v1/token?version=1", {}, NOW).status == 400
    assert get("/metadata/v1/no?version=1", bearer, clouds=clouds).status == 404


def test_alibaba_is_selected_by_its_headers_or_address() -> None:
    """Alibaba's paths are EC2's, so its token header or its address in Host selects it; EC2 refuses its token."""
    clouds = mock()
    token = clouds.answer("PUT", "/latest/api/token", {ECS_TTL: "60"}, NOW).body.decode()
    for headers in ({ECS_SESSION: token}, {"host": "100.100.100.200"}, {"host": "100.100.100.200:80"}):
        reply = get("/latest/meta-data/region-id", headers, clouds=clouds)
        assert (reply.body, reply.cloud) == (b"cn-hangzhou", "alibaba")
    assert get("/latest/meta-data/instance-id", {"host": "169.254.169.254"}, clouds=clouds).cloud == "aws"
    assert get("/latest/meta-data/instance-id", {"x-aws-ec2-metadata-token": token}, clouds=clouds).status == 401


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("/metadata/v1/id", "1338"),
        ("/metadata/v1/hostname", "imds-detour-mock"),
        ("/metadata/v1/interfaces/", "private/\npublic/"),
        ("/metadata/v1/interfaces/public/0/ipv4/address", "203.0.113.38"),
        ("/hetzner/v1/metadata/instance-id", "1338"),
        ("/hetzner/v1/userdata", "#cloud-config\n{}\n"),
        ("/openstack/latest", "meta_data.json\nnetwork_data.json\nuser_data\nvendor_data.json\nvendor_data2.json"),
        ("/openstack/2018-08-27/user_data", "#cloud-config\n{}\n"),
        ("/user_data", "cloud-init"),
        ("/user_data/cloud-init", "#cloud-config\n{}\n"),
        ("/opc/v1/instance/region", "iad"),
    ],
)
def test_single_value_of_a_document_is_text(target: str, text: str) -> None:
    """A path to a single value of a cloud's document is text."""
    reply = get(target)
    assert (reply.status, reply.body.decode()) == (200, text)


UNKNOWN = {
    "aws": (
        *("/latest/meta-data/no-such", "/latest/meta-data/instance-id/more", f"{ROLE}/AccessKeyId", f"{ROLE}/$json"),
        *("/1999-01-01/", "/latest/api/token/more", "/latest/meta-data/../user-data", "/$json", "/no", "/latest/api"),
    ),
    "ecs": ("/v2", "/v2/credentials", "/v2/credentials/a/b", "/v4/a/b", "/role", "/creds/a", "/v3/a/b/c"),
    "eks": ("/v1/credentials/more",),
    "gcp": (
        *("/computeMetadata/v1/instance/no", "/computeMetadata/v1/project/project-id/more", "/computeMetadata/v2/"),
        *("/computeMetadata/v1/token", "/computeMetadata/v1/instance/network-interfaces/1/"),
        "/computeMetadata/v1/instance/service-accounts/unknown/token",
    ),
    "azure": tuple(
        f"/metadata/{path}?{AZURE_VERSION}"
        for path in ("", "no", "instance/compute/no", "identity/token", "instance/compute/name/more")
    ),
    "digitalocean": ("/metadata/v1/no",),
    "hetzner": ("/hetzner/v1", "/hetzner/v2/metadata", "/hetzner/v1/metadata/no"),
    "openstack": ("/openstack/1999-01-01", "/openstack/latest/no"),
    "scaleway": ("/conf/no", "/user_data/no"),
    "oci": ("/opc/v3/instance", "/opc/v1", "/opc/v1/instance/no"),
}


@pytest.mark.parametrize(("cloud", "target"), [(cloud, target) for cloud in UNKNOWN for target in UNKNOWN[cloud]])
def test_unknown_path_is_a_short_404(cloud: str, target: str) -> None:
    """An unknown path of any cloud is a short 404 with the cloud's header, never a page or a redirect."""
    reply = get(target, REQUIRED.get(cloud))
    assert (reply.status, reply.cloud) == (404, cloud)
    assert len(reply.body) < (80 if cloud == "aws" else 120)
    assert b"<" not in reply.body
    kind, google = ("application/json" if cloud == "azure" else "text/plain"), {"Metadata-Flavor": "Google"}
    assert dict(reply.headers) == {"Content-Type": kind, **(google if cloud == "gcp" else {})}


@pytest.mark.parametrize(
    ("method", "target", "cloud", "status"),
    [("PUT", "/latest/api/token", "aws", 403), ("GET", PROJECT, "gcp", 403), ("GET", INSTANCE, "azure", 400)],
)
def test_request_through_a_proxy_is_refused(method: str, target: str, cloud: str, status: int) -> None:
    """A request with X-Forwarded-For is refused with the real service's status."""
    headers = {**REQUIRED[cloud], "x-forwarded-for": "192.0.2.1"}
    assert mock().answer(method, target, headers, NOW).status == status


def test_scaleway_configuration_is_shell_variables() -> None:
    """Without `format=json`, Scaleway's configuration is variables that are quoted for a shell."""
    lines = get("/conf", clouds=mock({"scaleway": {"conf": {"name": "it's; rm"}}})).body.decode().splitlines()
    assert """NAME='it'"'"'s; rm'""" in lines
    assert "LOCATION_ZONE_ID=fr-par-1" in lines
    assert json_body(get("/user_data?format=json")) == {"user_data": ["cloud-init"]}
    # Hetzner's metadata, YAML on the real service, are JSON, which is valid YAML.
    assert json.loads(get("/hetzner/v1/metadata").body)["instance-id"] == 1338


READ_ONLY = ("/opc/v1/instance", "/hetzner/v1/metadata", "/conf", "/metadata/v1.json", "/openstack")


@pytest.mark.parametrize(
    ("method", "target", "cloud"),
    [
        *((method, target, "") for method in ("POST", "PUT", "DELETE", "PATCH") for target in READ_ONLY),
        *(
            ("PUT", INSTANCE, "azure"),
            ("POST", PROJECT, "gcp"),
            ("PUT", "/creds", "ecs"),
            ("PUT", "/v1/credentials", "eks"),
        ),
    ],
)
def test_wrong_method_is_405(method: str, target: str, cloud: str) -> None:
    """A cloud without tokens, and each value of the others, is only read, and the refusal says so."""
    reply = mock().answer(method, target, REQUIRED.get(cloud, {}), NOW)
    assert reply.status == 405
    assert ("Allow", "GET, HEAD") in reply.headers


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("{", "not JSON"),
        ("", "not JSON"),
        ("[]", "/: this cannot be served"),
        ('"text"', "outermost level"),
        ('{"metadata": {}}', "outermost level"),
        ('{"$json": {}}', "outermost level"),
        ('{"meta-data": {"a": ["b"]}}', "/meta-data/a: this cannot be served"),
        ('{"meta-data": {"a/b": "c"}}', "/meta-data/: 'a/b' cannot be a name"),
        ('{"meta-data": {"": "c"}}', "/meta-data/: '' cannot be a name"),
        ('{"meta-data": {"a\\nb": "c"}}', "cannot be a name"),
        ('{"meta-data": {"$other": "c"}}', "'$other' cannot be a name"),
        ('{"meta-data": {"a": {"$now": 1}}}', "'$now' cannot be a name"),
        ('{"meta-data": {"a": {"$json": 1, "b": 2}}}', "'$json' cannot be a name"),
        ('{"user-data": {"$json": {"$now": "soon"}}}', '/user-data: write {"$now": N}'),
        ('{"user-data": {"$json": [{"$now": 1, "b": 2}]}}', '/user-data: write {"$now": N}'),
        ('{"user-data": {"$json": {"$now": NaN}}}', '/user-data: write {"$now": N}'),
        ('{"user-data": {"$json": {"$now": 1e300}}}', '/user-data: write {"$now": N}'),
        ('{"user-data": ' * 60 + "1" + "}" * 60, "nested too deeply"),
        ('{"user-data": {"$json": ' + "[" * 60 + "]" * 60 + "}}", "nested too deeply"),
        ('{"user-data": ' + "[" * 200_000 + "]" * 200_000 + "}", "nested too deeply"),
        ('{"gpc": {}}', "takes no 'gpc'"),
        ('{"gcp": "text"}', "/gcp: this must be an object of instance, project"),
        ('{"gcp": {"instance": 5}}', "/gcp/instance: this must be an object of attributes"),
        ('{"gcp": {"token": {"expires_in": "soon"}}}', "/gcp/token/expires_in: this must be a whole number"),
        ('{"azure": {"identity": {"token": {"expires_in": 1.5}}}}', "/azure/identity/token/expires_in: this must be"),
        ('{"ecs": {"credentials": []}}', "/ecs/credentials: this must be an object of RoleArn, AccessKeyId"),
        ('{"ecs": {"task": {"when": {"$now": "soon"}}}}', '/ecs: write {"$now": N}'),
        ('{"alibaba": "text"}', "/alibaba: this must be an object of meta-data"),
        ('{"alibaba": {"meta-data": {"a": ["b"]}}}', "/alibaba/meta-data/a: this cannot be served"),
    ],
)
def test_invalid_values_are_refused_in_one_line(override: str, reason: str) -> None:
    """Values that the mock cannot serve are refused before the start, in one line that names their path."""
    with pytest.raises(DataError) as caught:
        load(DEFAULTS, override)
    message = str(caught.value)
    assert reason in message
    assert "\n" not in message
    assert len(message) < 200
