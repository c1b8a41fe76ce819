"""What the development mock answers as EC2's metadata service."""

import json

import pytest

from imds_detour_mock.clouds.aws import VERSIONS
from imds_detour_mock.clouds.dispatch import Clouds
from imds_detour_mock.clouds.messages import Reply
from imds_detour_mock.clouds.tokens import Tokens
from imds_detour_mock.values import DataError, Json, load
from tests.support.servers.clouds import DEFAULTS, NOW, mock

TTL = "x-aws-ec2-metadata-token-ttl-seconds"
SESSION = "x-aws-ec2-metadata-token"
ROLE = "/latest/meta-data/iam/security-credentials/imds-detour-mock-role"


def get(path: str, override: Json = None) -> Reply:
    """Read one path without a token."""
    return mock(override).answer("GET", path, {}, NOW)


def text(path: str, override: Json = None) -> str:
    """Read one path that exists, as text."""
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
def test_a_value_is_text_under_every_version_and_spelling(
    path: str, value: str, version: str, before: str, after: str
) -> None:
    """A value answers under each version, with leading slashes folded, a trailing slash, escapes or a query."""
    reply = get(f"{before}{version}/meta-data/{path}{after}")
    assert reply == Reply(200, (("Content-Type", "text/plain"),), value.encode(), "aws")


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_directory_lists_its_children(slash: str) -> None:
    """A directory lists one child per line in order, directories with a slash, with or without its own slash."""
    assert text(f"/latest/meta-data/placement{slash}") == "availability-zone\navailability-zone-id\nregion"
    assert text(f"/latest/meta-data/iam{slash}") == "info\nsecurity-credentials/"
    assert text(f"/latest/meta-data/iam/security-credentials{slash}") == "imds-detour-mock-role"
    assert text(f"/latest/meta-data/network/interfaces{slash}") == "macs/"
    assert text(f"/latest/dynamic{slash}") == "instance-identity/"


def test_the_top_lists_versions_and_a_version_its_roots() -> None:
    """The root lists the versions, and a version its roots without slashes, as the real service does."""
    assert text("/") == text("") == "\n".join(VERSIONS)
    assert text("/latest") == text("/2021-03-23/") == "dynamic\nmeta-data\nuser-data"


def test_public_keys_are_listed_by_number_and_name() -> None:
    """A public key is listed as number=name without a slash, and read under its number."""
    assert text("/latest/meta-data/public-keys/") == "0=imds-detour-mock"
    assert text("/latest/meta-data/public-keys/0/") == "openssh-key"
    assert text("/latest/meta-data/public-keys/0/openssh-key").startswith("ssh-ed25519 ")
    assert get("/latest/meta-data/public-keys/1/").status == 404


@pytest.mark.parametrize(
    "path",
    [
        *("/latest/meta-data/no-such", "/latest/meta-data/instance-id/more", f"{ROLE}/AccessKeyId", "/1999-01-01/"),
        *("/latest/api", "/latest/api/token/more", "/latest/meta-data/../user-data", "/$json"),
        f"{ROLE}/$json",
    ],
)
def test_the_unknown_is_404_in_plain_words(path: str) -> None:
    """An unknown path is a short plain-text 404, never a page and never a redirect."""
    reply = get(path)
    assert reply.status == 404
    assert reply.headers == (("Content-Type", "text/plain"),)
    assert b"<" not in reply.body
    assert len(reply.body) < 80


def test_credentials_are_a_document_with_times_of_the_request() -> None:
    """Credentials are JSON that expires six hours after the request, whenever that is."""
    for now, updated, expires in (
        (NOW, "2023-11-14T22:13:20Z", "2023-11-15T04:13:20Z"),
        (NOW + 86400, "2023-11-15T22:13:20Z", "2023-11-16T04:13:20Z"),
    ):
        reply = mock().answer("GET", ROLE, {}, now)
        document = json.loads(reply.body)
        assert reply.headers == (("Content-Type", "application/json"),)
        assert document["Code"] == "Success"
        assert document["AccessKeyId"] == "MOCKMOCKMOCKMOCKMOCK"
        assert (document["LastUpdated"], document["Expiration"]) == (updated, expires)


def test_the_identity_document_agrees_with_the_values() -> None:
    """The identity document is JSON, keeps its nulls, and says what meta-data says."""
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


def token(of: Clouds, ttl: str = "60", now: float = NOW) -> str:
    """Return a new session token."""
    reply = of.answer("PUT", "/latest/api/token", {TTL: ttl}, now)
    assert reply.status == 200
    return reply.body.decode()


@pytest.mark.parametrize("ttl", ["1", "60", "21600"])
@pytest.mark.parametrize("path", ["/latest/api/token", "//latest/api/token/"])
def test_a_token_is_text_and_its_ttl_is_echoed(ttl: str, path: str) -> None:
    """A token request answers text, with the granted seconds in the header it was asked with."""
    reply = mock().answer("PUT", path, {TTL: ttl}, NOW)
    assert reply.status == 200
    assert reply.headers == (("Content-Type", "text/plain"), ("X-aws-ec2-metadata-token-ttl-seconds", ttl))
    assert reply.body.isascii()
    assert reply.body.decode().isprintable()


@pytest.mark.parametrize(
    "ttl", ["", "0", "21601", "-1", "+60", "6_0", " 60", "60, 60", "1e3", "\u0661", "9" * 5000, None]
)
def test_a_missing_or_wrong_ttl_is_400(ttl: str | None) -> None:
    """A token request without a number of seconds from 1 to 21600 is refused."""
    assert mock().answer("PUT", "/latest/api/token", {} if ttl is None else {TTL: ttl}, NOW).status == 400


def test_a_forwarded_token_request_is_403() -> None:
    """A token request that came through a proxy is refused, as the real service does."""
    headers = {TTL: "60", "x-forwarded-for": "192.0.2.1"}
    assert mock().answer("PUT", "/latest/api/token", headers, NOW).status == 403


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        *(
            ("GET", "/latest/api/token", "PUT"),
            ("HEAD", "/latest/api/token", "PUT"),
            ("POST", "/latest/api/token", "PUT"),
        ),
        *(("PUT", "/latest/meta-data/", "GET, HEAD"), ("POST", "/", "GET, HEAD"), ("DELETE", "/no", "GET, HEAD")),
    ],
)
@pytest.mark.parametrize("required", [False, True])
def test_other_methods_are_405(method: str, path: str, allow: str, required: bool) -> None:
    """A method that does not fit the path is refused with those that do, whatever the token rule."""
    reply = mock(required=required).answer(method, path, {}, NOW)
    assert reply.status == 405
    assert ("Allow", allow) in reply.headers


def test_head_answers_as_get() -> None:
    """HEAD gives what GET gives; leaving the body out is the server's business."""
    assert mock().answer("HEAD", "/latest/user-data", {}, NOW) == get("/latest/user-data")


@pytest.mark.parametrize("required", [False, True])
def test_a_token_opens_reads_until_its_time_is_over(required: bool) -> None:
    """A token is good until just before its TTL has passed, and then answers 401."""
    of = mock(required=required)
    headers = {SESSION: token(of, "60")}
    statuses = [of.answer("GET", "/latest/user-data", headers, NOW + age).status for age in (0, 59.9, 60, 1e6)]
    assert statuses == [200, 200, 401, 401]


@pytest.mark.parametrize("bad", ["", "x", "a" * 56, "AAAA", "=", "\u00e9" * 56, "A" * 55 + "="])
@pytest.mark.parametrize("required", [False, True])
def test_an_unknown_token_is_401(bad: str, required: bool) -> None:
    """A token that was never issued is refused, even where none is needed."""
    assert mock(required=required).answer("GET", "/latest/user-data", {SESSION: bad}, NOW).status == 401


def test_a_token_of_another_mock_or_with_one_letter_changed_is_401() -> None:
    """Only the mock that issued a token takes it, and only unchanged."""
    one, other = mock(), mock()
    good = token(one)
    assert one.answer("GET", "/", {SESSION: good}, NOW).status == 200
    assert other.answer("GET", "/", {SESSION: good}, NOW).status == 401
    for place in range(len(good)):
        changed = good[:place] + ("A" if good[place] != "A" else "B") + good[place + 1 :]
        assert one.answer("GET", "/", {SESSION: changed}, NOW).status == 401, place


def test_imdsv2_required_refuses_reads_without_a_token() -> None:
    """With IMDSv2 required a read without a token is 401, whether or not the path exists."""
    of = mock(required=True)
    assert [of.answer("GET", path, {}, NOW).status for path in ("/", "/latest/user-data", "/no")] == [401] * 3
    assert of.answer("GET", "/latest/user-data", {SESSION: token(of)}, NOW).status == 200


def test_tokens_differ_and_none_is_stored() -> None:
    """Two tokens of the same moment differ, and issuing leaves nothing behind that could grow."""
    tokens = Tokens(key=b"k" * 32)
    assert len({tokens.issue(60, NOW) for _ in range(1000)}) == 1000
    assert tokens == Tokens(key=b"k" * 32)
    assert not hasattr(tokens, "__dict__")
    assert "k" * 32 not in repr(tokens)


def test_a_users_values_merge_over_the_defaults() -> None:
    """A user's values replace and add single ones; their neighbours stay."""
    over: Json = {
        "user-data": "hello",
        "meta-data": {"instance-id": "i-1", "placement": {"region": "eu-west-1"}, "a": {"b": 2}},
    }
    assert text("/latest/user-data", over) == "hello"
    assert text("/latest/meta-data/instance-id", over) == "i-1"
    assert text("/latest/meta-data/placement/region", over) == "eu-west-1"
    assert text("/latest/meta-data/placement/availability-zone", over) == "us-east-1a"
    assert text("/latest/meta-data/a/b", over) == "2"


def test_null_removes_a_value_but_stays_in_a_document() -> None:
    """A user's null takes a default away, and inside a document it is a value."""
    over: Json = {
        "user-data": None,
        "meta-data": {"tags": None, "new": {"gone": None, "kept": True}, "iam": {"info": {"Code": None}}},
    }
    assert get("/latest/user-data", over).status == 404
    assert text("/latest", over) == "dynamic\nmeta-data"
    assert get("/latest/meta-data/tags/instance/Name", over).status == 404
    assert text("/latest/meta-data/new/", over) == "kept"
    assert text("/latest/meta-data/new/kept", over) == "true"
    assert json.loads(text("/latest/meta-data/iam/info", over))["Code"] is None


def test_a_document_can_be_changed_replaced_and_added() -> None:
    """A plain object over a document changes members, `$json` also makes new ones, and a directory gives way to one."""
    credentials: Json = {
        "imds-detour-mock-role": {"AccessKeyId": "AKIAOTHER", "Expiration": "2030-01-01T00:00:00Z"},
        "second": {"$json": {"at": [{"$now": 60.5}], "$schema": "x"}},
    }
    over: Json = {"meta-data": {"iam": {"security-credentials": credentials}, "tags": {"$json": [1, "\ud800", None]}}}
    document = json.loads(text(ROLE, over))
    assert (document["AccessKeyId"], document["Code"]) == ("AKIAOTHER", "Success")
    assert document["Expiration"] == "2030-01-01T00:00:00Z"
    second = "/latest/meta-data/iam/security-credentials/second"
    assert json.loads(text(second, over)) == {"at": ["2023-11-14T22:14:20Z"], "$schema": "x"}
    assert json.loads(text("/latest/meta-data/tags", over)) == [1, "\ud800", None]


def test_half_a_character_is_served_as_a_question_mark() -> None:
    """Text that has no bytes in UTF-8, as JSON can spell it, is still served."""
    assert text("/latest/user-data", {"user-data": "a\ud800b"}) == "a?b"


@pytest.mark.parametrize(
    ("override", "where"),
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
    ],
)
def test_values_that_cannot_be_served_are_named(override: str, where: str) -> None:
    """Values that cannot be served are refused before the server starts, in one line that says which."""
    with pytest.raises(DataError) as caught:
        load(DEFAULTS, override)
    message = str(caught.value)
    assert where in message
    assert "\n" not in message
    assert len(message) < 200


def test_nothing_in_the_defaults_is_wrong() -> None:
    """Every default can be read, by walking the listings as a crawling client does."""
    todo, seen = ["/latest/meta-data/", "/latest/dynamic/"], 0
    while todo:
        path = todo.pop()
        for line in text(path).splitlines():
            child = path + (line.partition("=")[0] + "/" if "=" in line else line)
            seen += 1
            if child.endswith("/"):
                todo.append(child)
            else:
                assert text(child), child
    assert seen > 50
