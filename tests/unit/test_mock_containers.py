"""The answers of the development mock to ECS containers and to pods with EKS Pod Identity."""

import pytest

from tests.support.servers.clouds import get, json_body, mock

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
    reply = get(path)
    assert json_body(reply) == {"RoleArn": "arn:aws:iam::123456789012:role/imds-detour-mock-role", **CREDENTIALS}
    assert reply.cloud == "ecs"
    assert json_body(get("/role/other"))["RoleArn"] == "arn:aws:iam::123456789012:role/other"


@pytest.mark.parametrize("base", ["/v3", "/v4", "/v3/a-container", "/v4/a-container", "/v3/containers/a"])
def test_ecs_container_reads_its_metadata_and_its_task(base: str) -> None:
    """ECS's metadata URI serves the container, and with /task the task."""
    container, task = json_body(get(base)), json_body(get(f"{base}/task"))
    assert container["CreatedAt"] == "2023-11-14T21:13:20Z"
    assert task["Containers"] == [container]
    assert task["TaskARN"] == container["Labels"]["com.amazonaws.ecs.task-arn"]
    assert json_body(get("/v2/metadata")) == task


@pytest.mark.parametrize("path", ["/v1/credentials", "//v1/credentials/"])
def test_eks_request_with_a_token_reads_credentials(path: str) -> None:
    """EKS Pod Identity serves credentials with the account id, for any token."""
    assert json_body(get(path, TOKEN)) == {**CREDENTIALS, "AccountId": "123456789012"}


def test_user_values_override_members_and_remove_clouds() -> None:
    """A user's values replace single members of the ECS document, and null removes the whole EKS cloud."""
    clouds = mock({"ecs": {"credentials": {"AccessKeyId": "MINE"}, "task": None}, "eks": None})
    served = json_body(get("/creds", clouds=clouds))
    assert (served["AccessKeyId"], served["Token"]) == ("MINE", CREDENTIALS["Token"])
    assert get("/v4/task", clouds=clouds).status == 404
    assert get("/v1/credentials", TOKEN, clouds=clouds).status == 404
