"""Serve all clouds on one port: select the cloud of a request by its path and headers."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from urllib.parse import parse_qsl, unquote

from imds_detour_mock.clouds.akamai import Akamai
from imds_detour_mock.clouds.aws import ALIBABA, Instance
from imds_detour_mock.clouds.azure import Azure
from imds_detour_mock.clouds.credentials import NoCredentialsError, Rotation
from imds_detour_mock.clouds.ecs import ecs, eks
from imds_detour_mock.clouds.gcp import FLAVOR, Gcp
from imds_detour_mock.clouds.ibm import Ibm
from imds_detour_mock.clouds.messages import Cloud, Reply, Request, refuse, refuse_method
from imds_detour_mock.clouds.notices import Notices
from imds_detour_mock.clouds.oci import oci
from imds_detour_mock.clouds.tokenless import digitalocean, hetzner, openstack, scaleway
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
_BY_HOST = {"metadata.google.internal": "gcp", "100.100.100.200": "alibaba"}  # decides if path and other headers do not
_DOMAIN = re.compile(r"(?!metadata\.google\.internal\.?(:|$)).*\.[a-z][^.:]*\.?(:[0-9]*)?", re.IGNORECASE)
_ALIBABA_HEADERS = {ALIBABA.ttl_header.lower(), ALIBABA.session_header.lower()}
_MAKERS: dict[str, Callable[[Json, Rotation | None], Cloud]] = {
    "akamai": lambda data, _: Akamai(data).answer,
    "azure": lambda data, rotation: Azure(data, rotation).answer,
    "digitalocean": lambda data, _: _reader(partial(digitalocean, data)),
    "ecs": lambda data, rotation: _reader(partial(ecs, data, rotation)),
    "eks": lambda data, rotation: _reader(partial(eks, data, rotation)),
    "gcp": lambda data, rotation: Gcp(data, rotation).answer,
    "hetzner": lambda data, _: _reader(partial(hetzner, data)),
    "ibm": lambda data, rotation: Ibm(data, rotation).answer,
    "oci": lambda data, _: _reader(partial(oci, data)),
    "openstack": lambda data, _: _reader(partial(openstack, data)),
    "scaleway": lambda data, _: _reader(partial(scaleway, data)),
}


def _reader(read: Cloud) -> Cloud:
    """Return a cloud that takes GET and HEAD only."""
    return lambda request: read(request) if request.reads else refuse_method("GET, HEAD")


@dataclass(frozen=True, slots=True)
class Clouds:
    """The metadata services of all clouds, as one."""

    by_name: Mapping[str, Cloud]  # the clouds by name. A request for any other cloud is 404.
    private: bool = False  # refuse web pages, which have an Origin, or by DNS rebinding a domain as their Host

    def answer(self, method: str, target: str, headers: Mapping[str, str], now: float) -> Reply:
        """Answer one request, as an `Answer`. Empty path segments are ignored, without a redirect."""
        path, _, query = target.partition("?")
        parts = tuple(unquote(part) for part in path.split("/") if part)
        variables = dict(parse_qsl(query, keep_blank_values=True)) if query else {}
        request = Request(method, parts, variables, headers, now)
        name = choose_cloud(request)
        cloud = self.by_name.get(name)
        try:
            reply = cloud(request) if cloud else refuse(404, f"the data has no {name}")
            if self.private and ("origin" in headers or _DOMAIN.fullmatch(headers.get("host", ""))):
                reply = refuse(
                    403, "your credentials are not for web pages: ask by IP address or by a name without dots"
                )
        except NoCredentialsError:  # as EC2 when it cannot answer: SDKs try again
            reply = refuse(503, "the credential process gave no valid credentials; the mock's log has the reason")
        if not parts and name != "gcp" and "gcp" in self.by_name:
            # Google's Go client requests / without the Metadata-Flavor header and expects it in the answer.
            return replace(reply, cloud=name, headers=(*reply.headers, FLAVOR))
        return replace(reply, cloud=name)


def make_clouds(
    data: dict[str, Json],
    *,
    require_token: bool = False,
    rotation: Rotation | None = None,
    notices: Notices | None = None,
) -> Clouds:
    """Return the clouds that have values in `data`, which comes from `load`."""
    aws = {name: value for name, value in data.items() if name in AWS_ROOTS}
    by_name: dict[str, Cloud] = {
        name: make(document_of(data, name), rotation) for name, make in _MAKERS.items() if name in data
    }
    if aws:
        by_name["aws"] = Instance(
            aws, require_token=require_token, rotation=rotation, notices=notices or Notices()
        ).answer
    if isinstance(alibaba := data.get("alibaba"), dict):
        by_name["alibaba"] = Instance(alibaba, dialect=ALIBABA, rotation=rotation).answer
    return Clouds(by_name, private=bool(rotation and rotation.issued))


def choose_cloud(request: Request) -> str:
    """Return the name of a request's cloud, which is `aws` if no other one matches."""
    first, second = (*request.parts, "", "")[:2]
    if first in _BY_FIRST_SEGMENT:
        return _BY_FIRST_SEGMENT[first]
    if first == "v1":
        return "eks" if second == "credentials" else "akamai"
    if first == "metadata":
        return _cloud_of_metadata_path(request, second)
    if not first and request.headers.get("metadata-flavor", "").lower() == "google":
        return "gcp"
    if _ALIBABA_HEADERS & request.headers.keys():
        return "alibaba"
    return _BY_HOST.get(request.headers.get("host", "").partition(":")[0].rstrip("."), "aws")


def _cloud_of_metadata_path(request: Request, second: str) -> str:
    if second == "v1.json":
        return "digitalocean"
    if second != "v1":
        return "azure"
    return "ibm" if "version" in request.query else "digitalocean"
