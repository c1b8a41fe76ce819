"""One port for every cloud: which of them a request means, by its path and headers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from urllib.parse import parse_qsl, unquote

from imds_detour_mock.clouds.akamai import Akamai
from imds_detour_mock.clouds.aws import ALIBABA, Instance
from imds_detour_mock.clouds.azure import Azure
from imds_detour_mock.clouds.credentials import Rotation
from imds_detour_mock.clouds.ecs import Ecs, Eks
from imds_detour_mock.clouds.gcp import FLAVOR, Gcp
from imds_detour_mock.clouds.ibm import Ibm
from imds_detour_mock.clouds.messages import Cloud, Reply, Request, refuse
from imds_detour_mock.clouds.notices import Notices
from imds_detour_mock.clouds.oci import Oci
from imds_detour_mock.clouds.tokenless import DigitalOcean, Hetzner, OpenStack, Scaleway
from imds_detour_mock.values import AWS_ROOTS, Json, document_of

_BY_FIRST_SEGMENT = {
    "computeMetadata": "gcp",
    "conf": "scaleway",
    "creds": "ecs",
    "hetzner": "hetzner",
    "instance_identity": "ibm",
    "opc": "oci",
    "openstack": "openstack",
    "role": "ecs",
    "user_data": "scaleway",
    "v2": "ecs",
    "v3": "ecs",
    "v4": "ecs",
}
_BY_HOST = {"metadata.google.internal": "gcp", "100.100.100.200": "alibaba"}  # where path and headers leave it open
_ALIBABA_HEADERS = {ALIBABA.ttl_header.lower(), ALIBABA.session_header.lower()}
_BY_DOCUMENT: dict[str, Callable[[Json, Rotation | None], Cloud]] = {
    "akamai": lambda data, _: Akamai(data).answer,
    "azure": lambda data, rotation: Azure(data, rotation).answer,
    "digitalocean": lambda data, _: DigitalOcean(data).answer,
    "ecs": lambda data, rotation: Ecs(data, rotation).answer,
    "eks": lambda data, rotation: Eks(data, rotation).answer,
    "gcp": lambda data, rotation: Gcp(data, rotation).answer,
    "hetzner": lambda data, _: Hetzner(data).answer,
    "ibm": lambda data, rotation: Ibm(data, rotation).answer,
    "oci": lambda data, _: Oci(data).answer,
    "openstack": lambda data, _: OpenStack(data).answer,
    "scaleway": lambda data, _: Scaleway(data).answer,
}


@dataclass(frozen=True, slots=True)
class Clouds:
    """Every cloud's metadata service in one."""

    by_name: Mapping[str, Cloud]
    """Those that answer; a request for another is 404."""

    def answer(self, method: str, target: str, headers: Mapping[str, str], now: float) -> Reply:
        """Answer one request; an `Answer`. It never redirects: empty path segments, wherever they are, do not count."""
        path, _, query = target.partition("?")
        parts = tuple(unquote(part) for part in path.split("/") if part)
        pairs = dict(parse_qsl(query, keep_blank_values=True)) if query else {}
        request = Request(method, parts, pairs, headers, now)
        name = choose(request)
        cloud = self.by_name.get(name)
        reply = cloud(request) if cloud else refuse(404, f"the data has no {name}")
        if not parts and name != "gcp" and "gcp" in self.by_name:
            # Go's client asks for / without any header of Google's, and looks for this one in the answer.
            return replace(reply, cloud=name, headers=(*reply.headers, FLAVOR))
        return replace(reply, cloud=name)


def clouds(
    data: dict[str, Json],
    *,
    require_token: bool = False,
    rotation: Rotation | None = None,
    notices: Notices | None = None,
) -> Clouds:
    """Return the clouds that `data`, as `load` returns it, has values for."""
    aws = {name: value for name, value in data.items() if name in AWS_ROOTS}
    by_name: dict[str, Cloud] = {
        name: make(document_of(data, name), rotation) for name, make in _BY_DOCUMENT.items() if name in data
    }
    if aws:
        by_name["aws"] = Instance(
            aws, require_token=require_token, rotation=rotation, notices=notices or Notices()
        ).answer
    if isinstance(alibaba := data.get("alibaba"), dict):
        by_name["alibaba"] = Instance(alibaba, dialect=ALIBABA, rotation=rotation).answer
    return Clouds(by_name)


def choose(request: Request) -> str:
    """Return the name of the cloud that a request means; what fits none is EC2's, whose paths are the oldest."""
    first, second = (*request.parts, "", "")[:2]
    if first in _BY_FIRST_SEGMENT:
        return _BY_FIRST_SEGMENT[first]
    if first == "v1":
        return "eks" if second == "credentials" else "akamai"
    if first == "metadata":
        return _of_metadata(request, second)
    if not first and request.headers.get("metadata-flavor", "").lower() == "google":
        return "gcp"
    if _ALIBABA_HEADERS & request.headers.keys():
        return "alibaba"
    return _BY_HOST.get(request.headers.get("host", "").partition(":")[0].rstrip("."), "aws")


def _of_metadata(request: Request, second: str) -> str:
    if second == "v1.json":
        return "digitalocean"
    if second != "v1":
        return "azure"
    return "ibm" if "version" in request.query else "digitalocean"
