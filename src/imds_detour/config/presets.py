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
    """The request that proves a service. Every answer to it must be the same."""

    path: str  # path of the GET request
    headers: tuple[tuple[str, str], ...] = ()  # its headers, names and values
    token: Token | None = None  # session token to ask for first
    # ``word``: a single word, such as an instance id, and no web page. ``text``: any text. ``credentials``: a document
    # of keys; only their role is shown and compared. ``reply``: any reply, a 404 too, for services without a preset
    answer: str = "text"
    member: str = ""  # member of a JSON reply that differs between machines, with dots between the levels
    flavor: tuple[str, str] | None = None  # header that the reply must have, name and value


class Preset(Value):
    """A kind of metadata service."""

    name: str  # its name in MOCK_ENDPOINTS
    endpoints: tuple[Endpoint, ...]  # the endpoints that SDKs use, at most one per IP version
    proof: Proof  # the request that proves it
    names: tuple[str, ...] = ()  # host names that SDKs use for the first endpoint; they must resolve too
    path_variable: str = ""  # environment variable with the path that SDKs ask for; may be empty
    # variables that point SDKs at another endpoint, with ``{url}``, ``{host}`` (and port) and ``{path}``
    variables: tuple[tuple[str, str], ...] = ()
    ignored_by: str = ""  # SDKs that are known to ignore those variables
    loopback_only: bool = False  # whether SDKs accept a loopback address only in those variables


def _at(*addresses: str) -> tuple[Endpoint, ...]:
    """Return endpoints at port 80, the port of every cloud's service."""
    return tuple(Endpoint(IPv6Address(text) if ":" in text else IPv4Address(text), 80) for text in addresses)


def _instance_id(product: str) -> Proof:
    """Return the proof by an instance id, with a session token as of IMDSv2."""
    token = Token("/latest/api/token", (f"X-{product}-metadata-token-ttl-seconds", "60"), f"X-{product}-metadata-token")
    return Proof("/latest/meta-data/instance-id", token=token, answer="word")


LINK_LOCAL = "169.254.169.254"
"""The address of most clouds' services. A mock of several clouds distinguishes them by path and header."""

_ALL = (
    # EC2 user guide, "Access instance metadata" and "Use IMDSv2"
    Preset(
        "aws",
        _at(LINK_LOCAL, "fd00:ec2::254"),
        _instance_id("aws-ec2"),
        variables=(("AWS_EC2_METADATA_SERVICE_ENDPOINT", "{url}"),),
        ignored_by="ec2-metadata for Python, cloud-init",
    ),
    # ECS developer guide, "Task IAM role"; amazon-ecs-local-container-endpoints serves /creds to every client
    Preset(
        "ecs",
        _at("169.254.170.2"),
        Proof("/creds", answer="credentials"),
        path_variable="AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        variables=(("AWS_CONTAINER_CREDENTIALS_FULL_URI", "{url}{path}"),),
        loopback_only=True,
    ),
    # EKS user guide, "EKS Pod Identity"; the agent requires an Authorization header
    Preset(
        "eks",
        _at("169.254.170.23", "fd00:ec2::23"),
        Proof("/v1/credentials", (("Authorization", "imds-detour"),), answer="credentials"),
        variables=(("AWS_CONTAINER_CREDENTIALS_FULL_URI", "{url}{path}"),),
        loopback_only=True,
    ),
    # Compute Engine documentation, "About VM metadata"; google-auth's _metadata.py asks by address, then by name
    Preset(
        "gcp",
        _at(LINK_LOCAL),
        Proof("/computeMetadata/v1/", (("Metadata-Flavor", "Google"),), flavor=("Metadata-Flavor", "Google")),
        # Google's libraries for Node end the name with a dot, and glibc compares /etc/hosts literally.
        names=("metadata.google.internal", "metadata.google.internal."),
        variables=(("GCE_METADATA_HOST", "{host}"), ("GCE_METADATA_IP", "{host}")),
    ),
    # Azure documentation, "Azure Instance Metadata Service"
    Preset(
        "azure",
        _at(LINK_LOCAL),
        Proof("/metadata/instance?api-version=2021-02-01", (("Metadata", "true"),), member="compute.vmId"),
        variables=(("AZURE_POD_IDENTITY_AUTHORITY_HOST", "{url}"),),
    ),
    # OCI documentation, "Getting Instance Metadata"
    Preset(
        "oci",
        _at(LINK_LOCAL, "fd00:c1::a9fe:a9fe"),
        Proof("/opc/v2/instance/", (("Authorization", "Bearer Oracle"),), member="id"),
    ),
    # Alibaba Cloud documentation, "Access instance metadata", security hardening mode
    Preset("alibaba", _at("100.100.100.200"), _instance_id("aliyun-ecs")),
    # DigitalOcean documentation, "Droplet metadata API"
    Preset("digitalocean", _at(LINK_LOCAL), Proof("/metadata/v1.json", member="droplet_id")),
    # Hetzner documentation, "Server metadata"
    Preset("hetzner", _at(LINK_LOCAL), Proof("/hetzner/v1/metadata")),
    # Scaleway documentation, "Instance metadata"
    Preset("scaleway", _at("169.254.42.42", "fd00:42::42"), Proof("/conf?format=json", member="id")),
    # Akamai (Linode) documentation, "Metadata service API"
    Preset(
        "akamai",
        _at(LINK_LOCAL, "fd00:a9fe:a9fe::1"),
        Proof(
            "/v1/instance",
            (("Accept", "application/json"),),
            token=Token("/v1/token", ("Metadata-Token-Expiry-Seconds", "300"), "Metadata-Token"),
            member="id",
        ),
    ),
    # OpenStack Nova documentation, "Metadata"
    Preset("openstack", _at(LINK_LOCAL), Proof("/openstack/latest/meta_data.json", member="uuid")),
    # IBM Cloud documentation, "Accessing instance metadata"
    Preset(
        "ibm",
        _at(LINK_LOCAL),
        Proof(
            "/metadata/v1/instance?version=2022-03-01",
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
