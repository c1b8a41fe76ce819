"""The clouds' metadata services: their endpoints, what proves them, and the variables that SDKs follow."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from imds_detour.endpoint import Endpoint
from imds_detour.value import Value


class Token(Value):
    """A session token that a service requires. A service that gives none is asked without."""

    path: str  # the path of the PUT request
    ask: tuple[str, str]  # its header, name and value
    give: str  # the header that carries the token from then on
    prefix: str = ""  # the text before the token in that header
    member: str = ""  # the member of a JSON reply that is the token; empty if the whole reply is


class Proof(Value):
    """What to ask a service, and the form of its answer, which must be the same each time."""

    path: str  # the path of the GET request
    headers: tuple[tuple[str, str], ...] = ()  # its headers, names and values
    token: Token | None = None  # the session token to ask for first
    # ``word``: one word, as an instance id is; a web page is none. ``text``: any text. ``json``: a document, compared
    # by ``member`` if it has that. ``credentials``: a document of keys; only their role is shown and compared.
    # ``reply``: any reply, a 404 too, for services without a preset
    answer: str = "text"
    member: str = ""  # the member that differs between machines, with dots between the levels
    flavor: tuple[str, str] | None = None  # a header that the reply must have, name and value


class Preset(Value):
    """One kind of metadata service."""

    name: str  # its name in MOCK_ENDPOINTS
    endpoints: tuple[Endpoint, ...]  # where SDKs ask, at most one for each IP version
    proof: Proof  # what to ask it
    names: tuple[str, ...] = ()  # the host names that SDKs use for the first endpoint; they must resolve too
    path_variable: str = ""  # the environment variable with the path that SDKs ask for, where there is one
    # variables that SDKs follow to another endpoint, with ``{url}``, ``{host}`` (and port) and ``{path}``
    variables: tuple[tuple[str, str], ...] = ()
    ignored_by: str = ""  # SDKs that are known to ignore those variables
    loopback_only: bool = False  # whether SDKs follow the variables to a loopback address only


def _at(*addresses: str) -> tuple[Endpoint, ...]:
    """Return endpoints at port 80, the port of every cloud's service."""
    return tuple(Endpoint(IPv6Address(text) if ":" in text else IPv4Address(text), 80) for text in addresses)


LINK_LOCAL = "169.254.169.254"
"""The address of most clouds' services. A mock of several tells them apart by path and header."""

_ALL = (
    Preset(
        # EC2 user guide, "Access instance metadata" and "Use IMDSv2"
        name="aws",
        endpoints=_at(LINK_LOCAL, "fd00:ec2::254"),
        proof=Proof(
            "/latest/meta-data/instance-id",
            token=Token(
                "/latest/api/token", ("X-aws-ec2-metadata-token-ttl-seconds", "60"), "X-aws-ec2-metadata-token"
            ),
            answer="word",
        ),
        variables=(("AWS_EC2_METADATA_SERVICE_ENDPOINT", "{url}"),),
        ignored_by="ec2-metadata for Python, cloud-init",
    ),
    Preset(
        # ECS developer guide, "Task IAM role"; /creds is what amazon-ecs-local-container-endpoints serves to all
        name="ecs",
        endpoints=_at("169.254.170.2"),
        proof=Proof("/creds", answer="credentials"),
        path_variable="AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        variables=(("AWS_CONTAINER_CREDENTIALS_FULL_URI", "{url}{path}"),),
        loopback_only=True,
    ),
    Preset(
        # EKS user guide, "EKS Pod Identity"; the agent requires an Authorization header
        name="eks",
        endpoints=_at("169.254.170.23", "fd00:ec2::23"),
        proof=Proof("/v1/credentials", (("Authorization", "imds-detour"),), answer="credentials"),
        variables=(("AWS_CONTAINER_CREDENTIALS_FULL_URI", "{url}{path}"),),
        loopback_only=True,
    ),
    Preset(
        # Compute Engine documentation, "About VM metadata"; google-auth's _metadata.py asks by address, then by name
        name="gcp",
        endpoints=_at(LINK_LOCAL),
        proof=Proof("/computeMetadata/v1/", (("Metadata-Flavor", "Google"),), flavor=("Metadata-Flavor", "Google")),
        # Google's libraries for Node write the dot of a complete name, and glibc compares /etc/hosts to the letter.
        names=("metadata.google.internal", "metadata.google.internal."),
        variables=(("GCE_METADATA_HOST", "{host}"), ("GCE_METADATA_IP", "{host}")),
    ),
    Preset(
        # Azure documentation, "Azure Instance Metadata Service"
        name="azure",
        endpoints=_at(LINK_LOCAL),
        proof=Proof(
            "/metadata/instance?api-version=2021-02-01",
            (("Metadata", "true"),),
            answer="json",
            member="compute.vmId",
        ),
        variables=(("AZURE_POD_IDENTITY_AUTHORITY_HOST", "{url}"),),
    ),
    Preset(
        # OCI documentation, "Getting Instance Metadata"
        name="oci",
        endpoints=_at(LINK_LOCAL, "fd00:c1::a9fe:a9fe"),
        proof=Proof("/opc/v2/instance/", (("Authorization", "Bearer Oracle"),), answer="json", member="id"),
    ),
    Preset(
        # Alibaba Cloud documentation, "Access instance metadata", security hardening mode
        name="alibaba",
        endpoints=_at("100.100.100.200"),
        proof=Proof(
            "/latest/meta-data/instance-id",
            token=Token(
                "/latest/api/token", ("X-aliyun-ecs-metadata-token-ttl-seconds", "60"), "X-aliyun-ecs-metadata-token"
            ),
            answer="word",
        ),
    ),
    Preset(
        # DigitalOcean documentation, "Droplet metadata API"
        name="digitalocean",
        endpoints=_at(LINK_LOCAL),
        proof=Proof("/metadata/v1.json", answer="json", member="droplet_id"),
    ),
    Preset(
        # Hetzner documentation, "Server metadata"
        name="hetzner",
        endpoints=_at(LINK_LOCAL),
        proof=Proof("/hetzner/v1/metadata"),
    ),
    Preset(
        # Scaleway documentation, "Instance metadata"
        name="scaleway",
        endpoints=_at("169.254.42.42", "fd00:42::42"),
        proof=Proof("/conf?format=json", answer="json", member="id"),
    ),
    Preset(
        # Akamai (Linode) documentation, "Metadata service API"
        name="akamai",
        endpoints=_at(LINK_LOCAL, "fd00:a9fe:a9fe::1"),
        proof=Proof(
            "/v1/instance",
            (("Accept", "application/json"),),
            token=Token("/v1/token", ("Metadata-Token-Expiry-Seconds", "300"), "Metadata-Token"),
            answer="json",
            member="id",
        ),
    ),
    Preset(
        # OpenStack Nova documentation, "Metadata"
        name="openstack",
        endpoints=_at(LINK_LOCAL),
        proof=Proof("/openstack/latest/meta_data.json", answer="json", member="uuid"),
    ),
    Preset(
        # IBM Cloud documentation, "Accessing instance metadata"
        name="ibm",
        endpoints=_at(LINK_LOCAL),
        proof=Proof(
            "/metadata/v1/instance?version=2022-03-01",
            token=Token(
                "/instance_identity/v1/token?version=2022-03-01",
                ("Metadata-Flavor", "ibm"),
                "Authorization",
                prefix="Bearer ",
                member="access_token",
            ),
            answer="json",
            member="id",
        ),
        names=("api.metadata.cloud.ibm.com",),
    ),
)

PRESETS = {preset.name: preset for preset in _ALL}
METADATA_ADDRESSES = frozenset(endpoint.address for preset in _ALL for endpoint in preset.endpoints)
"""Addresses of real services: no mock can be there."""
