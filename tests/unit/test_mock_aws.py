"""The answers of the development mock as EC2's metadata service, to ECS containers, and to pods with EKS."""

import json

import pytest

from imds_detour_mock.clouds.aws import VERSIONS
from imds_detour_mock.clouds.dispatch import Clouds
from imds_detour_mock.clouds.messages import Reply
from imds_detour_mock.clouds.tokens import Tokens
from imds_detour_mock.values import Json
from tests.support.servers.clouds import NOW, json_body, mock
from tests.support.servers.clouds import get as read

TTL = "x-aws-ec2-metadata-token-ttl-seconds"
SESSION = "x-aws-ec2-metadata-token"
ROLE = "/latest/meta-data/iam/security-credentials/imds-detour-mock-role"


def get(path: str, override: Json = None) -> Reply:
    """Read a path without a token."""
    return mock(override).answer("GET", path, {}, NOW)


def text(path: str, override: Json = None) -> str:
    """Return the text at a path that exists."""
    reply = get(path, override)
    assert reply.status == 200, path
    return reply.body.decode()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("instance-id", "i-1234567890abcdef0"),
        ("placement/availability-zone", "us-east-1a"),
        ("placement/region", "us-east-1"),
        ("instance-type", "t3.micro"),
        ("local-ipv4", "172.31.13.38"),
        ("mac", "02:00:00:00:13:38"),
        ("ami-launch-index", "0"),
        ("network/interfaces/macs/02:00:00:00:13:38/device-number", "0"),
        ("network/interfaces/macs/02%3A00%3a00:00:13:38/mac", "02:00:00:00:13:38"),
    ],
)
@pytest.mark.parametrize("version", ["latest", "2021-03-23", "2018-09-24", "2016-09-02", "1.0"])
@pytest.mark.parametrize(("before", "after"), [("/", ""), ("/", "/"), ("//", ""), ("///", "?query=1")])
def test_ec2_value_is_text_in_every_spelling(path: str, value: str, version: str, before: str, after: str) -> None:
    """EC2's mock serves a value under each version, also with repeated or trailing slashes, escapes or a query."""
    for method in ("GET", "HEAD"):  # the server removes the body
        reply = mock().answer(method, f"{before}{version}/meta-data/{path}{after}", {}, NOW)
        assert reply == Reply(200, (("Content-Type", "text/plain"),), value.encode(), "aws")


@pytest.mark.parametrize("slash", ["", "/"])
def test_ec2_directory_lists_its_children(slash: str) -> None:
    """An EC2 directory lists one child per line in order, and each subdirectory with a slash."""
    assert text(f"/latest/meta-data/placement{slash}") == "availability-zone\navailability-zone-id\nregion"
    assert text(f"/latest/meta-data/iam{slash}") == "info\nsecurity-credentials/"
    assert text(f"/latest/meta-data/iam/security-credentials{slash}") == "imds-detour-mock-role"
    assert text(f"/latest/meta-data/network/interfaces{slash}") == "macs/"
    assert text(f"/latest/dynamic{slash}") == "instance-identity/"


def test_ec2_roots_and_public_keys_are_listed_without_slashes() -> None:
    """EC2 lists versions, directories of a version, and public keys (number=name) without slashes."""
    assert text("/") == text("") == "\n".join(VERSIONS)
    assert text("/latest") == text("/2021-03-23/") == "dynamic\nmeta-data\nuser-data"
    assert text("/latest/meta-data/public-keys/") == "0=imds-detour-mock"
    assert text("/latest/meta-data/public-keys/0/") == "openssh-key"
    assert text("/latest/meta-data/public-keys/0/openssh-key").startswith("ssh-ed25519 ")
    assert get("/latest/meta-data/public-keys/1/").status == 404


def test_ec2_credentials_have_the_time_of_the_request() -> None:
    """EC2 role credentials are JSON and expire six hours after the request."""
    for days, updated, expires in (
        (0, "2023-11-14T22:13:20Z", "2023-11-15T04:13:20Z"),
        (1, "2023-11-15T22:13:20Z", "2023-11-16T04:13:20Z"),
    ):
        reply = mock().answer("GET", ROLE, {}, NOW + days * 86400)
        document = json.loads(reply.body)
        assert (reply.headers, document["Code"]) == ((("Content-Type", "application/json"),), "Success")
        assert document["AccessKeyId"] == "MOCKMOCKMOCKMOCKMOCK"
        assert (document["LastUpdated"], document["Expiration"]) == (updated, expires)


def test_ec2_identity_document_agrees_with_the_values() -> None:
    """The EC2 instance identity document is JSON, keeps its nulls, and has the same values as meta-data."""
    reply = get("/latest/dynamic/instance-identity/document")
    document = json.loads(reply.body)
    assert reply.headers == (("Content-Type", "application/json"),)
    assert document["kernelId"] is None
    for name, path in (
        ("instanceId", "instance-id"),
        ("region", "placement/region"),
        ("availabilityZone", "placement/availability-zone"),
        ("privateIp", "local-ipv4"),
        ("imageId", "ami-id"),
        ("instanceType", "instance-type"),
    ):
        assert document[name] == text(f"/latest/meta-data/{path}")


def token(clouds: Clouds, ttl: str = "60", now: float = NOW) -> str:
    """Return a new session token."""
    reply = clouds.answer("PUT", "/latest/api/token", {TTL: ttl}, now)
    assert reply.status == 200
    return reply.body.decode()


@pytest.mark.parametrize("ttl", ["1", "60", "21600"])
@pytest.mark.parametrize("path", ["/latest/api/token", "//latest/api/token/"])
def test_ec2_session_token_is_text_and_its_ttl_is_returned(ttl: str, path: str) -> None:
    """A session token is text, and the reply's header has the granted seconds."""
    reply = mock().answer("PUT", path, {TTL: ttl}, NOW)
    assert reply.status == 200
    assert reply.headers == (("Content-Type", "text/plain"), ("X-aws-ec2-metadata-token-ttl-seconds", ttl))
    assert reply.body.isascii()
    assert reply.body.decode().isprintable()


@pytest.mark.parametrize(
    "ttl", ["", "0", "21601", "-1", "+60", "6_0", " 60", "60, 60", "1e3", "\u0661", "9" * 5000, None]
)
def test_ec2_token_request_with_an_invalid_ttl_is_400(ttl: str | None) -> None:
    """A session token request without a number of seconds from 1 to 21600 is 400."""
    assert mock().answer("PUT", "/latest/api/token", {} if ttl is None else {TTL: ttl}, NOW).status == 400


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        *((method, "/latest/api/token", "PUT") for method in ("GET", "HEAD", "POST")),
        *(("PUT", "/latest/meta-data/", "GET, HEAD"), ("POST", "/", "GET, HEAD"), ("DELETE", "/no", "GET, HEAD")),
    ],
)
@pytest.mark.parametrize("required", [False, True])
def test_ec2_wrong_method_is_405(method: str, path: str, allow: str, required: bool) -> None:
    """A method that an EC2 path does not support is 405 with the supported ones, with or without required tokens."""
    reply = mock(required=required).answer(method, path, {}, NOW)
    assert reply.status == 405
    assert ("Allow", allow) in reply.headers


@pytest.mark.parametrize("required", [False, True])
def test_ec2_session_token_is_valid_until_it_expires(required: bool) -> None:
    """A session token is accepted until its TTL has passed, then a read with it is 401."""
    clouds = mock(required=required)
    headers = {SESSION: token(clouds, "60")}
    statuses = [clouds.answer("GET", "/latest/user-data", headers, NOW + age).status for age in (0, 59.9, 60, 1e6)]
    assert statuses == [200, 200, 401, 401]


@pytest.mark.parametrize("bad", ["", "x", "a" * 56, "AAAA", "=", "\u00e9" * 56, "A" * 55 + "="])
@pytest.mark.parametrize("required", [False, True])
def test_ec2_unknown_session_token_is_401(bad: str, required: bool) -> None:
    """A session token that the mock never issued is refused, even if reads need none."""
    assert mock(required=required).answer("GET", "/latest/user-data", {SESSION: bad}, NOW).status == 401


def test_ec2_changed_session_token_is_401() -> None:
    """A mock refuses a session token of another mock and one with a changed character."""
    first, second = mock(), mock()
    issued = token(first)
    assert first.answer("GET", "/", {SESSION: issued}, NOW).status == 200
    assert second.answer("GET", "/", {SESSION: issued}, NOW).status == 401
    for index in range(len(issued)):
        changed = issued[:index] + ("A" if issued[index] != "A" else "B") + issued[index + 1 :]
        assert first.answer("GET", "/", {SESSION: changed}, NOW).status == 401, index


def test_ec2_read_without_a_required_token_is_401() -> None:
    """With IMDSv2 required, a read without a token is 401 for existing and unknown paths."""
    clouds = mock(required=True)
    assert [clouds.answer("GET", path, {}, NOW).status for path in ("/", "/latest/user-data", "/no")] == [401] * 3
    assert clouds.answer("GET", "/latest/user-data", {SESSION: token(clouds)}, NOW).status == 200


def test_session_tokens_differ_and_are_not_stored() -> None:
    """Two tokens of the same moment differ, and issuing tokens stores nothing."""
    tokens = Tokens(key=b"k" * 32)
    assert (len({tokens.issue(60, NOW) for _ in range(1000)}), tokens) == (1000, Tokens(key=b"k" * 32))
    assert not hasattr(tokens, "__dict__")
    assert "k" * 32 not in repr(tokens)


def test_user_values_override_the_defaults() -> None:
    """A user's values replace or add single values, and the other defaults stay."""
    override: Json = {
        "user-data": "hello",
        "meta-data": {"instance-id": "i-1", "placement": {"region": "eu-west-1"}, "a": {"b": 2}},
    }
    assert (text("/latest/user-data", override), text("/latest/meta-data/instance-id", override)) == ("hello", "i-1")
    assert text("/latest/meta-data/placement/region", override) == "eu-west-1"
    assert text("/latest/meta-data/placement/availability-zone", override) == "us-east-1a"
    assert text("/latest/meta-data/a/b", override) == "2"
    assert text("/latest/user-data", {"user-data": "a\ud800b"}) == "a?b"  # UTF-8 cannot encode a lone surrogate


def test_null_removes_a_value_but_stays_in_a_document() -> None:
    """A user's null removes a default value, but inside a document it is a value."""
    override: Json = {
        "user-data": None,
        "meta-data": {"tags": None, "new": {"gone": None, "kept": True}, "iam": {"info": {"Code": None}}},
    }
    assert (get("/latest/user-data", override).status, text("/latest", override)) == (404, "dynamic\nmeta-data")
    assert get("/latest/meta-data/tags/instance/Name", override).status == 404
    assert (text("/latest/meta-data/new/", override), text("/latest/meta-data/new/kept", override)) == ("kept", "true")
    assert json.loads(text("/latest/meta-data/iam/info", override))["Code"] is None


def test_user_values_change_replace_and_add_documents() -> None:
    """A plain object changes members of a document, and `$json` adds a document or replaces a directory."""
    credentials: Json = {
        "imds-detour-mock-role": {"AccessKeyId": "AKIAOTHER", "Expiration": "2030-01-01T00:00:00Z"},
        "second": {"$json": {"at": [{"$now": 60.5}], "$schema": "x"}},
    }
    override: Json = {
        "meta-data": {"iam": {"security-credentials": credentials}, "tags": {"$json": [1, "\ud800", None]}}
    }
    document = json.loads(text(ROLE, override))
    assert (document["AccessKeyId"], document["Code"]) == ("AKIAOTHER", "Success")
    assert document["Expiration"] == "2030-01-01T00:00:00Z"
    second = "/latest/meta-data/iam/security-credentials/second"
    assert json.loads(text(second, override)) == {"at": ["2023-11-14T22:14:20Z"], "$schema": "x"}
    assert json.loads(text("/latest/meta-data/tags", override)) == [1, "\ud800", None]


def test_every_default_value_is_readable() -> None:
    """A client that walks EC2's listings can read every default value."""
    waiting, seen = ["/latest/meta-data/", "/latest/dynamic/"], 0
    while waiting:
        path = waiting.pop()
        for line in text(path).splitlines():
            child = path + (line.partition("=")[0] + "/" if "=" in line else line)
            seen += 1
            if child.endswith("/"):
                waiting.append(child)
            else:
                assert text(child), child
    assert seen > 50


TOKEN = {"authorization": "a service account token"}
CREDENTIALS = {
    "AccessKeyId": "MOCKMOCKMOCKMOCKMOCK",
    "SecretAccessKey": "mock-secret-access-key-opens-nothing",
    "Token": "mock-session-token-opens-nothing",
    "Expiration": "2023-11-15T04:13:20Z",
}


@pytest.mark.parametrize("path", ["/v2/credentials/any-id", "//v2/credentials/any-id/", "/creds", "/creds/"])
def test_ecs_task_reads_its_credentials(path: str) -> None:
    """An ECS task reads its credentials under any id, and at the paths of amazon-ecs-local-container-endpoints."""
    reply = read(path)
    assert json_body(reply) == {"RoleArn": "arn:aws:iam::123456789012:role/imds-detour-mock-role", **CREDENTIALS}
    assert (reply.cloud, json_body(read("/role/other"))["RoleArn"]) == ("ecs", "arn:aws:iam::123456789012:role/other")


@pytest.mark.parametrize("base", ["/v3", "/v4", "/v3/a-container", "/v4/a-container", "/v3/containers/a"])
def test_ecs_container_reads_its_metadata_and_its_task(base: str) -> None:
    """ECS's metadata URI serves the container, and with /task the task."""
    container, task = json_body(read(base)), json_body(read(f"{base}/task"))
    assert (container["CreatedAt"], task["Containers"]) == ("2023-11-14T21:13:20Z", [container])
    assert task["TaskARN"] == container["Labels"]["com.amazonaws.ecs.task-arn"]
    assert json_body(read("/v2/metadata")) == task


@pytest.mark.parametrize("path", ["/v1/credentials", "//v1/credentials/"])
def test_eks_request_with_a_token_reads_credentials(path: str) -> None:
    """EKS Pod Identity serves credentials with the account id, for any token."""
    assert json_body(read(path, TOKEN)) == {**CREDENTIALS, "AccountId": "123456789012"}


def test_user_values_override_members_of_ecs_and_remove_eks() -> None:
    """A user's values replace single members of the ECS document, and null removes the whole EKS cloud."""
    clouds = mock({"ecs": {"credentials": {"AccessKeyId": "MINE"}, "task": None}, "eks": None})
    served = json_body(read("/creds", clouds=clouds))
    assert (served["AccessKeyId"], served["Token"]) == ("MINE", CREDENTIALS["Token"])
    assert (read("/v4/task", clouds=clouds).status, read("/v1/credentials", TOKEN, clouds=clouds).status) == (404, 404)
