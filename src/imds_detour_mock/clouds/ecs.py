"""The credentials and metadata of ECS tasks, and the credentials of EKS Pod Identity."""

from dataclasses import dataclass

from imds_detour_mock.clouds.credentials import Rotation, current_credentials
from imds_detour_mock.clouds.documents import fill_times, object_at, value_at
from imds_detour_mock.clouds.messages import Reply, Request, json_reply, refuse, refuse_method
from imds_detour_mock.values import Json


@dataclass(frozen=True, slots=True)
class Ecs:
    """The service for an ECS task at 169.254.170.2 (ECS developer guide: task IAM role, task metadata version 2 to 4).

    The paths `/creds` and `/role/NAME` are those of amazon-ecs-local-container-endpoints.
    """

    data: Json
    """`credentials`, `container` and `task`."""
    rotation: Rotation | None = None
    """Rotates the credentials; None keeps them."""

    def answer(self, request: Request) -> Reply:
        """Answer one request, as a `Cloud`."""
        if not request.reads:
            return refuse_method("GET, HEAD")
        match request.parts:
            case ["v2", "credentials", _] | ["creds"]:
                return self._credentials(request)
            case ["role", name]:
                return self._credentials(request, name)
            case ["v2", "metadata"] | ["v3" | "v4", *_, "task"]:
                return self._document("task", request)
            case ["v2", "metadata", _] | ["v3" | "v4"] | ["v3" | "v4", _] | ["v3" | "v4", "containers", _]:
                return self._document("container", request)
        return refuse(404, "no such path; ECS has /v2/credentials/ID, /v2/metadata, /v3, /v4 and /v4/task")

    def _credentials(self, request: Request, role: str | None = None) -> Reply:
        credentials = object_at(self.data, "credentials")
        if not credentials:
            return refuse(404, "this task has no role")
        document = current_credentials(credentials, self.rotation, request.now)
        if role is not None and isinstance(arn := document.get("RoleArn"), str):
            document["RoleArn"] = f"{arn.rpartition('/')[0]}/{role}"
        return json_reply(document)

    def _document(self, name: str, request: Request) -> Reply:
        value = value_at(self.data, [name])
        return refuse(404, "no such value") if value is None else json_reply(fill_times(value, request.now))


@dataclass(frozen=True, slots=True)
class Eks:
    """The service for a pod with EKS Pod Identity at 169.254.170.23."""

    data: Json
    """`credentials`."""
    rotation: Rotation | None = None
    """Rotates the credentials; None keeps them."""

    def answer(self, request: Request) -> Reply:
        """Answer one request, as a `Cloud`. The mock accepts any service account token."""
        if not request.reads:
            return refuse_method("GET, HEAD")
        if not request.headers.get("authorization"):
            return refuse(401, "send the pod's service account token as Authorization")
        credentials = object_at(self.data, "credentials")
        if request.parts != ("v1", "credentials") or not credentials:
            return refuse(404, "no such path; EKS Pod Identity has /v1/credentials")
        return json_reply(current_credentials(credentials, self.rotation, request.now))
