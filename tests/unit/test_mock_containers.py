"""What the development mock answers to containers on ECS, and to pods with EKS Pod Identity."""

import pytest

from tests.support.servers.clouds import NOW, get, mock, value

TOKEN = {"authorization": "a service account token"}
CREDENTIALS = {
    "AccessKeyId": "MOCKMOCKMOCKMOCKMOCK",
    "SecretAccessKey": "mock-secret-access-key-opens-nothing",
    "Token": "mock-session-token-opens-nothing",
    "Expiration": "2023-11-15T04:13:20Z",
}


@pytest.mark.parametrize("path", ["/v2/credentials/any-id", "//v2/credentials/any-id/", "/creds", "/creds/"])
def test_a_task_gets_its_credentials(path: str) -> None:
    """A task's credentials come under any id, and at the path of amazon-ecs-local-container-endpoints."""
    reply = get(path)
    assert value(reply) == {"RoleArn": "arn:aws:iam::123456789012:role/imds-detour-mock-role", **CREDENTIALS}
    assert reply.cloud == "ecs"


def test_a_role_can_be_named() -> None:
    """`/role/NAME` gives the same credentials in the name of that role."""
    assert value(get("/role/other"))["RoleArn"] == "arn:aws:iam::123456789012:role/other"


@pytest.mark.parametrize("base", ["/v3", "/v4", "/v3/a-container", "/v4/a-container", "/v3/containers/a"])
def test_a_container_reads_itself_and_its_task(base: str) -> None:
    """The metadata URI that ECS puts into the environment gives the container, and with /task the whole task."""
    container, task = value(get(base)), value(get(f"{base}/task"))
    assert container["CreatedAt"] == "2023-11-14T21:13:20Z"
    assert task["Containers"] == [container]
    assert task["TaskARN"] == container["Labels"]["com.amazonaws.ecs.task-arn"]
    assert value(get("/v2/metadata")) == task


@pytest.mark.parametrize("headers", [{}, {"authorization": ""}])
def test_a_pod_without_its_token_is_401(headers: dict[str, str]) -> None:
    """EKS credentials need the service account token."""
    reply = get("/v1/credentials", headers)
    assert (reply.status, reply.cloud) == (401, "eks")


@pytest.mark.parametrize("path", ["/v1/credentials", "//v1/credentials/"])
def test_a_pod_with_its_token_gets_credentials(path: str) -> None:
    """Any token opens EKS credentials, which carry the account."""
    assert value(get(path, TOKEN)) == {**CREDENTIALS, "AccountId": "123456789012"}


@pytest.mark.parametrize("path", ["/v2", "/v2/credentials", "/v2/credentials/a/b", "/v4/a/b", "/role", "/creds/a"])
def test_unknown_paths_of_a_task_are_404(path: str) -> None:
    """What ECS does not have is 404."""
    assert (get(path).status, get(path).cloud) == (404, "ecs")
    assert get("/v1/credentials/more", TOKEN).status == 404


def test_only_reads_are_answered() -> None:
    """Other methods are refused with those that are not."""
    for path in ("/creds", "/v1/credentials"):
        reply = mock().answer("PUT", path, TOKEN, NOW)
        assert reply.status == 405
        assert ("Allow", "GET, HEAD") in reply.headers


def test_a_users_values_count_and_a_cloud_can_be_taken_away() -> None:
    """Members of a document are replaced one by one, and null takes the whole cloud away."""
    of = mock({"ecs": {"credentials": {"AccessKeyId": "MINE"}, "task": None}, "eks": None})
    served = value(get("/creds", of=of))
    assert (served["AccessKeyId"], served["Token"]) == ("MINE", CREDENTIALS["Token"])
    assert get("/v4/task", of=of).status == 404
    assert get("/v1/credentials", TOKEN, of=of).status == 404
