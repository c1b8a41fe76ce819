"""The credentials and metadata of ECS tasks, and the credentials of EKS Pod Identity."""

from imds_detour_mock.clouds.credentials import Rotation, current_credentials
from imds_detour_mock.clouds.documents import current_value, object_at
from imds_detour_mock.clouds.messages import Reply, Request, json_reply, refuse
from imds_detour_mock.values import Json


def ecs(data: Json, rotation: Rotation | None, request: Request) -> Reply:
    """Answer a read of one ECS task at 169.254.170.2. `data` has `credentials`, `container` and `task`.

    The paths are those of the ECS developer guide (task IAM role, task metadata version 2 to 4), and `/creds` and
    `/role/NAME` of amazon-ecs-local-container-endpoints.
    """
    match request.parts:
        case ["v2", "credentials", _] | ["creds"]:
            return _credentials(data, rotation, request)
        case ["role", name]:
            return _credentials(data, rotation, request, name)
        case ["v2", "metadata"] | ["v3" | "v4", *_, "task"]:
            document = "task"
        case ["v2", "metadata", _] | ["v3" | "v4"] | ["v3" | "v4", _] | ["v3" | "v4", "containers", _]:
            document = "container"
        case _:
            return refuse(404, "no such path; ECS has /v2/credentials/ID, /v2/metadata, /v3, /v4 and /v4/task")
    value = current_value(data, [document], request.now)
    return refuse(404, "no such value") if value is None else json_reply(value)


def _credentials(data: Json, rotation: Rotation | None, request: Request, role: str | None = None) -> Reply:
    credentials = object_at(data, "credentials")
    if not credentials:
        return refuse(404, "this task has no role")
    document = current_credentials(credentials, rotation, request.now)
    if role is not None and isinstance(arn := document.get("RoleArn"), str):
        document["RoleArn"] = f"{arn.rpartition('/')[0]}/{role}"
    return json_reply(document)


def eks(data: Json, rotation: Rotation | None, request: Request) -> Reply:
    """Answer a read of one pod with EKS Pod Identity at 169.254.170.23. `data` has `credentials`.

    The mock accepts any service account token.
    """
    if not request.headers.get("authorization"):
        return refuse(401, "send the pod's service account token as Authorization")
    credentials = object_at(data, "credentials")
    if request.parts != ("v1", "credentials") or not credentials:
        return refuse(404, "no such path; EKS Pod Identity has /v1/credentials")
    return json_reply(current_credentials(credentials, rotation, request.now))
