"""Credentials and metadata of ECS tasks, and credentials of EKS Pod Identity."""

from dataclasses import dataclass

from imds_detour_mock.clouds.credentials import Rotation, current
from imds_detour_mock.clouds.documents import fill, find, members
from imds_detour_mock.clouds.messages import Reply, Request, document, only, refuse
from imds_detour_mock.values import Json


@dataclass(frozen=True, slots=True)
class Ecs:
    """What an ECS task reads at 169.254.170.2 (ECS developer guide: task IAM role, task metadata version 2 to 4).

    `/creds` and `/role/NAME` are those of amazon-ecs-local-container-endpoints.
    """

    data: Json
    """`credentials`, `container` and `task`."""
    rotation: Rotation | None = None
    """When the credentials change, if they do."""

    def answer(self, request: Request) -> Reply:
        """Answer one request; a `Cloud`."""
        if not request.reads:
            return only("GET, HEAD")
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
        credentials = members(find(self.data, ["credentials"]))
        if not credentials:
            return refuse(404, "this task has no role")
        served = current(credentials, self.rotation, request.now)
        if role is not None and isinstance(arn := served.get("RoleArn"), str):
            served["RoleArn"] = f"{arn.rpartition('/')[0]}/{role}"
        return document(served)

    def _document(self, name: str, request: Request) -> Reply:
        value = find(self.data, [name])
        return refuse(404, "no such value") if value is None else document(fill(value, request.now))


@dataclass(frozen=True, slots=True)
class Eks:
    """What a pod with EKS Pod Identity reads at 169.254.170.23."""

    data: Json
    """`credentials`."""
    rotation: Rotation | None = None
    """When the credentials change, if they do."""

    def answer(self, request: Request) -> Reply:
        """Answer one request; a `Cloud`. Any service account token will do."""
        if not request.reads:
            return only("GET, HEAD")
        if not request.headers.get("authorization"):
            return refuse(401, "send the pod's service account token as Authorization")
        credentials = members(find(self.data, ["credentials"]))
        if request.parts != ("v1", "credentials") or not credentials:
            return refuse(404, "no such path; EKS Pod Identity has /v1/credentials")
        return document(current(credentials, self.rotation, request.now))
