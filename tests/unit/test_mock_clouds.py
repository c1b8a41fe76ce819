"""How the development mock tells the clouds apart, and the first answers of those that it knows least of."""

import json

import pytest

from imds_detour_mock.clouds.aws import ALIBABA
from imds_detour_mock.values import DataError, load
from tests.support.servers.clouds import DEFAULTS, NOW, get, mock, value

ECS_TTL, ECS_SESSION = ALIBABA.ttl_header.lower(), ALIBABA.session_header.lower()
IBM = {"metadata-flavor": "ibm"}


@pytest.mark.parametrize(
    ("method", "target", "headers", "cloud"),
    [
        ("PUT", "/latest/api/token", {"x-aws-ec2-metadata-token-ttl-seconds": "60"}, "aws"),
        ("GET", "/v2/credentials/x", {}, "ecs"),
        ("GET", "/v1/credentials", {"authorization": "x"}, "eks"),
        ("GET", "/computeMetadata/v1/", {"metadata-flavor": "Google"}, "gcp"),
        ("GET", "/metadata/instance?api-version=2021-02-01", {"metadata": "true"}, "azure"),
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
def test_the_proof_request_of_every_preset_is_answered(
    method: str, target: str, headers: dict[str, str], cloud: str, slashes: str
) -> None:
    """One mock answers what every cloud is recognised by, with leading slashes folded and a trailing one ignored."""
    path, mark, query = target.partition("?")
    for spelling in (slashes + target, f"{slashes}{path}/{mark}{query}"):
        reply = mock().answer(method, spelling, headers, NOW)
        assert (reply.status, reply.cloud) == (200, cloud)
        assert reply.body
    # A cloud that the data does not have is not answered for.
    roots = ("meta-data", "user-data", "dynamic") if cloud == "aws" else (cloud,)
    gone = mock(dict.fromkeys(roots)).answer(method, target, headers, NOW)
    assert (gone.status, gone.body) == (404, f"404: the data has no {cloud}\n".encode())


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        *(("/opc/v2/instance/", {}), ("/opc/v2/instance/", {"authorization": "Bearer other"})),
        *(("/v1/instance", {}), ("/v1/instance", {"metadata-token": "x"})),
        *(("/metadata/v1/instance?version=1", IBM), ("/metadata/v1/instance?version=1", {"authorization": "Bearer x"})),
        ("/latest/meta-data/", {ECS_SESSION: "x"}),
    ],
)
def test_what_a_cloud_wants_to_see_is_needed(target: str, headers: dict[str, str]) -> None:
    """A request without its cloud's header, or with a token that the mock never gave, is refused."""
    assert get(target, headers).status in {401, 403}


def test_tokens_of_akamai() -> None:
    """A token is text, or a list of one as JSON, and opens reads until its time is over."""
    of, headers = mock(), {"metadata-token-expiry-seconds": "300"}
    token = of.answer("PUT", "/v1/token", headers, NOW).body.decode()
    [other] = value(of.answer("PUT", "/v1/token", {**headers, "accept": "application/json"}, NOW))
    for each in (token, other):
        assert get("/v1/instance", {"metadata-token": each}, of=of).body.startswith(b"id: 1338\n")
        assert get("/v1/instance", {"metadata-token": each}, of=of, now=NOW + 300).status == 401
    accepting = {"metadata-token": token, "accept": "application/json"}
    assert value(get("/v1/instance", accepting, of=of))["specs"]["vcpus"] == 1
    assert get("/v1/user-data", accepting, of=of).body == b"I2Nsb3VkLWNvbmZpZwp7fQo="
    assert get("/v1/no", accepting, of=of).status == 404
    for ttl in ("", "0", "86401", "soon"):
        assert of.answer("PUT", "/v1/token", {"metadata-token-expiry-seconds": ttl}, NOW).status == 400


def test_tokens_of_ibm() -> None:
    """A token is JSON with its times, opens reads for five minutes, and buys an IAM token."""
    of = mock()
    token = value(of.answer("PUT", "/instance_identity/v1/token?version=1", IBM, NOW))
    assert (token["expires_in"], token["expires_at"]) == (300, "2023-11-14T22:18:20Z")
    bearer = {"authorization": f"Bearer {token['access_token']}"}
    assert value(get("/metadata/v1/instance?version=1", bearer, of=of))["name"] == "imds-detour-mock"
    assert get("/metadata/v1/instance?version=1", bearer, of=of, now=NOW + 300).status == 401
    iam = of.answer("POST", "/instance_identity/v1/iam_token?version=1", bearer, NOW)
    assert value(iam)["access_token"] == "mock-access-token-opens-nothing"  # noqa: S105  (as it says)
    assert of.answer("PUT", "/instance_identity/v1/token", IBM, NOW).status == 400
    assert of.answer("PUT", "/instance_identity/v1/token?version=1", {}, NOW).status == 400
    assert get("/metadata/v1/no?version=1", bearer, of=of).status == 404


def test_alibaba_is_known_by_its_headers_and_its_address() -> None:
    """Alibaba's paths are EC2's, so its token or its address in Host decides; its token is none of EC2's."""
    of = mock()
    token = of.answer("PUT", "/latest/api/token", {ECS_TTL: "60"}, NOW).body.decode()
    for headers in ({ECS_SESSION: token}, {"host": "100.100.100.200"}, {"host": "100.100.100.200:80"}):
        reply = get("/latest/meta-data/region-id", headers, of=of)
        assert (reply.body, reply.cloud) == (b"cn-hangzhou", "alibaba")
    assert get("/latest/meta-data/instance-id", {"host": "169.254.169.254"}, of=of).cloud == "aws"
    assert get("/latest/meta-data/instance-id", {"x-aws-ec2-metadata-token": token}, of=of).status == 401


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
def test_single_values_are_text(target: str, text: str) -> None:
    """Each cloud's paths go into its document."""
    reply = get(target)
    assert (reply.status, reply.body.decode()) == (200, text)


@pytest.mark.parametrize(
    "target",
    [
        *("/metadata/v1/no", "/hetzner/v1", "/hetzner/v2/metadata", "/hetzner/v1/metadata/no", "/openstack/1999-01-01"),
        *("/openstack/latest/no", "/conf/no", "/user_data/no", "/opc/v3/instance", "/opc/v1", "/opc/v1/instance/no"),
        *("/v3/a/b/c", "/no", "/latest/api"),
    ],
)
def test_the_unknown_is_404(target: str) -> None:
    """What a cloud does not have is a short 404 and no redirect."""
    reply = get(target)
    assert reply.status == 404
    assert len(reply.body) < 120


def test_scaleway_speaks_to_shells() -> None:
    """Without `format=json` the configuration is variables, quoted for a shell."""
    lines = get("/conf", of=mock({"scaleway": {"conf": {"name": "it's; rm"}}})).body.decode().splitlines()
    assert """NAME='it'"'"'s; rm'""" in lines
    assert "LOCATION_ZONE_ID=fr-par-1" in lines
    assert value(get("/user_data?format=json")) == {"user_data": ["cloud-init"]}


def test_hetzners_yaml_is_json() -> None:
    """The metadata are YAML of the kind that JSON is."""
    assert json.loads(get("/hetzner/v1/metadata").body)["instance-id"] == 1338


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize(
    "target", ["/opc/v1/instance", "/hetzner/v1/metadata", "/conf", "/metadata/v1.json", "/openstack"]
)
def test_other_methods_are_405(method: str, target: str) -> None:
    """Only reads are answered where no token is to be had."""
    assert mock().answer(method, target, {}, NOW).status == 405


@pytest.mark.parametrize(
    ("override", "words"),
    [
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
def test_values_that_no_cloud_can_serve_are_named(override: str, words: str) -> None:
    """A value of the wrong kind is refused before the server starts, in one line that names its place."""
    with pytest.raises(DataError) as caught:
        load(DEFAULTS, override)
    message = str(caught.value)
    assert words in message
    assert "\n" not in message
    assert len(message) < 200
