"""The clouds' metadata services: endpoints, proofs, and the variables that SDKs follow."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from imds_detour.endpoint import Endpoint
from imds_detour.value import Value


class Token(Value):
    """A session token to ask for first. A service without tokens is asked without one."""

    path: str  # path of the PUT request
    ask: tuple[str, str]  # its header, name and value
    give: str  # header of later requests that carries the token
    prefix: str = ""  # text in front of the token in that header
    member: str = ""  # member of a JSON reply that is the token; empty for the whole reply


class Proof(Value):
    """The requests that prove a service: the first path with a 200 is the one by which the mock is recognized."""

    paths: tuple[str, ...]  # paths of GET requests, at least one, in the order in which they are tried
    headers: tuple[tuple[str, str], ...] = ()  # headers of each, names and values
    token: Token | None = None  # session token to ask for first
    member: str = ""  # member of a JSON reply that is the machine's id, with dots between the levels
    flavor: tuple[str, str] | None = None  # header of every reply that SDKs require, name and value
    # ``preset``: without a 200, any stable answer below 500 is accepted with a warning. ``any``: without the warning,
    # for services without a preset. ``200``: only a 200 with content is accepted, for a path from the user
    accept: str = "preset"

    @property
    def path(self) -> str:
        """The first path."""
        return self.paths[0]


class Preset(Value):
    """A kind of metadata service."""

    name: str  # its name in MOCK_ENDPOINTS
    endpoints: tuple[Endpoint, ...]  # the endpoints that SDKs use, at most one per IP version
    proof: Proof  # the request that proves it
    names: tuple[str, ...] = ()  # host names that SDKs use for the first endpoint; they must resolve too
    path_variables: tuple[str, ...] = ()  # environment variables with a path or URL from which SDKs take credentials
    metadata_variables: tuple[str, ...] = ()  # the same for other metadata
    # variables that point SDKs at another endpoint, with ``{url}``, ``{host}`` (and port) and ``{path}``
    variables: tuple[tuple[str, str], ...] = ()
    ignored_by: str = ""  # SDKs that are known to ignore those variables
    loopback_only: bool = False  # whether SDKs accept a loopback address only in those variables


def _at(*addresses: str) -> tuple[Endpoint, ...]:
    """Return endpoints at port 80, the port of every cloud's service."""
    return tuple(Endpoint(IPv6Address(text) if ":" in text else IPv4Address(text), 80) for text in addresses)


def _ec2_like(product: str, roles: str, region: str) -> Proof:
    """Return the proof of a service like EC2's: what its SDKs ask for, with a session token as of IMDSv2."""
    token = Token("/latest/api/token", (f"X-{product}-metadata-token-ttl-seconds", "60"), f"X-{product}-metadata-token")
    names = ("instance-id", f"{roles}/security-credentials/", "", region)
    document = "/latest/dynamic/instance-identity/document"
    return Proof((*(f"/latest/meta-data/{name}" for name in names), document), token=token)


LINK_LOCAL = "169.254.169.254"
"""The address of most clouds' services. A mock of several clouds distinguishes them by path and header."""

_ALL = (
    # EC2 user guide, "Access instance metadata" and "Use IMDSv2"
    Preset(
        "aws",
        _at(LINK_LOCAL, "fd00:ec2::254"),
        _ec2_like("aws-ec2", "iam", "placement/region"),
        variables=(("AWS_EC2_METADATA_SERVICE_ENDPOINT", "{url}"),),
        ignored_by="ec2-metadata for Python, cloud-init",
    ),
    # ECS developer guide, "Task IAM role"; amazon-ecs-local-container-endpoints serves /creds to every client, and the
    # task metadata below /v2. The paths in the variables come first.
    Preset(
        "ecs",
        _at("169.254.170.2"),
        Proof(("/creds", "/v2/metadata")),
        path_variables=("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"),
        metadata_variables=("ECS_CONTAINER_METADATA_URI_V4", "ECS_CONTAINER_METADATA_URI"),
        variables=(("AWS_CONTAINER_CREDENTIALS_FULL_URI", "{url}{path}"),),
        loopback_only=True,
    ),
    # EKS user guide, "EKS Pod Identity"; the agent requires an Authorization header
    Preset(
        "eks",
        _at("169.254.170.23", "fd00:ec2::23"),
        Proof(("/v1/credentials",), (("Authorization", "imds-detour"),)),
        path_variables=("AWS_CONTAINER_CREDENTIALS_FULL_URI",),
        variables=(("AWS_CONTAINER_CREDENTIALS_FULL_URI", "{url}{path}"),),
        loopback_only=True,
    ),
    # Compute Engine documentation, "About VM metadata"; google-auth's _metadata.py asks "/" by address, then by name
    Preset(
        "gcp",
        _at(LINK_LOCAL),
        Proof(("/computeMetadata/v1/", "/"), (("Metadata-Flavor", "Google"),), flavor=("Metadata-Flavor", "Google")),
        # Google's libraries for Node end the name with a dot, and glibc compares /etc/hosts literally.
        names=("metadata.google.internal", "metadata.google.internal.", "metadata.goog"),
        variables=(("GCE_METADATA_HOST", "{host}"), ("GCE_METADATA_IP", "{host}")),
    ),
    # Azure documentation, "Azure Instance Metadata Service"; "How to use managed identities", without parameters,
    # so that no token is made
    Preset(
        "azure",
        _at(LINK_LOCAL),
        Proof(
            ("/metadata/instance?api-version=2021-02-01", "/metadata/identity/oauth2/token"),
            (("Metadata", "true"),),
            member="compute.vmId",
        ),
        variables=(("AZURE_POD_IDENTITY_AUTHORITY_HOST", "{url}"),),
    ),
    # OCI documentation, "Getting Instance Metadata"
    Preset(
        "oci",
        _at(LINK_LOCAL, "fd00:c1::a9fe:a9fe"),
        Proof(("/opc/v2/instance/", "/opc/v2/"), (("Authorization", "Bearer Oracle"),), member="id"),
    ),
    # Alibaba Cloud documentation, "Access instance metadata", security hardening mode
    Preset("alibaba", _at("100.100.100.200"), _ec2_like("aliyun-ecs", "ram", "region-id")),
    # DigitalOcean documentation, "Droplet metadata API"
    Preset("digitalocean", _at(LINK_LOCAL), Proof(("/metadata/v1.json", "/metadata/v1/"), member="droplet_id")),
    # Hetzner documentation, "Server metadata"
    Preset("hetzner", _at(LINK_LOCAL), Proof(("/hetzner/v1/metadata", "/hetzner/v1/metadata/instance-id"))),
    # Scaleway documentation, "Instance metadata"
    Preset("scaleway", _at("169.254.42.42", "fd00:42::42"), Proof(("/conf?format=json", "/conf"), member="id")),
    # Akamai (Linode) documentation, "Metadata service API"
    Preset(
        "akamai",
        _at(LINK_LOCAL, "fd00:a9fe:a9fe::1"),
        Proof(
            ("/v1/instance", "/v1/"),
            (("Accept", "application/json"),),
            token=Token("/v1/token", ("Metadata-Token-Expiry-Seconds", "300"), "Metadata-Token"),
            member="id",
        ),
    ),
    # OpenStack Nova documentation, "Metadata"
    Preset("openstack", _at(LINK_LOCAL), Proof(("/openstack/latest/meta_data.json", "/openstack"), member="uuid")),
    # IBM Cloud documentation, "Accessing instance metadata"
    Preset(
        "ibm",
        _at(LINK_LOCAL),
        Proof(
            ("/metadata/v1/instance?version=2022-03-01", "/metadata/v1"),
            token=Token(
                "/instance_identity/v1/token?version=2022-03-01",
                ("Metadata-Flavor", "ibm"),
                "Authorization",
                prefix="Bearer ",
                member="access_token",
            ),
            member="id",
        ),
        names=("api.metadata.cloud.ibm.com",),
    ),
)

PRESETS = {preset.name: preset for preset in _ALL}
METADATA_ADDRESSES = frozenset(endpoint.address for preset in _ALL for endpoint in preset.endpoints)
"""Addresses of real services; no mock can have one."""
GUARDED_ADDRESSES = METADATA_ADDRESSES | {IPv6Address("fd20:ce::254"), IPv6Address("fe80::a9fe:a9fe")}
"""All metadata addresses. These two are Compute Engine's and OpenStack's over IPv6 ("About VM metadata"; "Metadata
service")."""
