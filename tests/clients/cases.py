"""The cases of the client tests and of the table in docs/clients.md: a client, a service and its requests."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.clients.installs import PARTS, PROGRAMS
from tests.support.hosts.network import INSTANCE

PART = re.compile(r"\{(\w+)\}")
ADDRESS_ONLY = {"ec2-metadata", "cloud-init", "curl", "wget"}
UNPROXIED = {"ec2-metadata", "aws-sdk-js", "compute-metadata-go"}


@dataclass(frozen=True, slots=True)
class Case:
    """One client that reads one value from one service.

    In ``command`` and ``environ``, the name of a part in braces is replaced by its folder.

    Attributes:
        client: the client's name, a row of the table.
        what: the value, which distinguishes the cases of one client and preset.
        preset: the service, named as in MOCK_ENDPOINTS.
        command: the client's command line.
        printed: the members of the JSON that the client must print.
        asked: the requests that the mock must log in this order; other requests may come between them.
        environ: the client's environment, in addition to the place's.

    """

    client: str
    what: str
    preset: str
    command: tuple[str, ...]
    printed: Mapping[str, Any]
    asked: tuple[str, ...]
    environ: Mapping[str, str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The case's id in a test's name."""
        return f"{self.client}-{self.what}-{self.preset}"

    @property
    def ignores(self) -> bool:
        """Whether the client always uses the metadata address, whatever the endpoint variables say."""
        return self.client in ADDRESS_ONLY

    @property
    def proxied(self) -> bool:
        """Whether the client sends these requests to the proxy of its environment."""
        return self.client not in UNPROXIED

    @property
    def parts(self) -> set[str]:
        """The names of the parts that must be installed."""
        return set(PART.findall(" ".join((*self.command, *self.environ.values()))))

    @property
    def line(self) -> list[str]:
        """The command line, with the folders of installed parts."""
        return [filled(word) for word in self.command]

    @property
    def variables(self) -> dict[str, str]:
        """The environment, with the folders of installed parts."""
        return {name: filled(value) for name, value in self.environ.items()}


def filled(text: str) -> str:
    """Return a text in which the name of a part in braces is replaced by its folder."""
    return PART.sub(lambda match: PARTS[match[1]].folder, text)


# Values of src/imds_detour_mock/mock_data.json.
KEY = "MOCKMOCKMOCKMOCKMOCK"
KEYS = {"key": KEY, "token": "mock-session-token-opens-nothing"}
ACCESS = {"token": "mock-access-token-opens-nothing"}
IDENTITY = {"instance": INSTANCE, "region": "us-east-1"}
PROJECT_ID = {"project": "imds-detour-mock"}
GOOGLE, AVAILABLE = {**ACCESS, **PROJECT_ID}, {**ACCESS, **PROJECT_ID, "available": True}
MAC = "02:00:00:00:13:38"

TOKEN = "PUT /latest/api/token 200"
ROLES = (
    TOKEN,
    "GET /latest/meta-data/iam/security-credentials/ 200",
    "GET /latest/meta-data/iam/security-credentials/imds-detour-mock-role 200",
)
ZONE = (TOKEN, "GET /latest/meta-data/placement/availability-zone/ 200")
DOCUMENT_PATH = "dynamic/instance-identity/document"
DOCUMENT = f"GET /latest/{DOCUMENT_PATH} 200"
INSTANCE_ID = "GET /latest/meta-data/instance-id 200"
TASK, POD = ("GET /v2/credentials/0a1b2c3d 200",), ("GET /v1/credentials 200",)
PROJECT = "GET /computeMetadata/v1/project/project-id 200"
ACCOUNT = "GET /computeMetadata/v1/instance/service-accounts/default/"
GCP_TOKEN, SCOPED, RECURSIVE = (f"{ACCOUNT}{rest}" for rest in ("token 200", "token?scopes=", "?recursive=true 200"))
MANAGED = "GET /metadata/identity/oauth2/token"

IPV6 = {"AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE": "IPv6"}
ECS = {"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/credentials/0a1b2c3d"}
EKS = {
    "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://169.254.170.23/v1/credentials",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": f"{PROGRAMS}/eks-token",
}
EKS6 = {**EKS, "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://[fd00:ec2::23]/v1/credentials"}

NODE = {"NODE_PATH": "{node}/node_modules"}
CLOUD_INIT = {"PYTHONPATH": "{debian}"}


def _python(script: str) -> tuple[str, ...]:
    return ("{python}/bin/python", f"{PROGRAMS}/{script}")


def _node(script: str) -> tuple[str, ...]:
    return ("node", f"{PROGRAMS}/{script}")


def _curl(url: str, *headers: str) -> tuple[str, ...]:
    return ("curl", "-sS", "--fail", "--globoff", *(word for header in headers for word in ("-H", header)), url)


def _wget(url: str, *headers: str) -> tuple[str, ...]:
    return ("wget", "-q", "-O-", "--tries=1", "--timeout=10", *(f"--header={header}" for header in headers), url)


DOCUMENT_URL = f"http://169.254.169.254/latest/{DOCUMENT_PATH}"
DOCUMENT_URL6 = f"http://[fd00:ec2::254]/latest/{DOCUMENT_PATH}"
DOCUMENTED = {"instanceId": INSTANCE, "region": "us-east-1"}
GCP_TOKEN_URL = "http://metadata.google.internal/computeMetadata/v1/instance/service-accounts/default/token"
AZURE_TOKEN_URL = (
    "http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://vault.azure.net"
)

BOTO, CLI, JS = (
    _python("boto3_credentials.py"),
    ("sh", f"{PROGRAMS}/aws_cli_list.sh", "{python}/bin/aws"),
    _node("aws_js_chain.cjs"),
)
GO1, GO2 = "{debian}/bin/aws-go-v1", "{debian}/bin/aws-go-v2"

CASES = (
    Case("boto3", "credentials", "aws", BOTO, {**KEYS, "method": "iam-role"}, ROLES),
    Case("boto3", "credentials-ipv6", "aws", BOTO, {**KEYS, "method": "iam-role"}, ROLES, IPV6),
    Case("boto3", "region", "aws", _python("boto3_region.py"), {"region": "us-east-1"}, ZONE),
    Case("boto3", "region-ipv6", "aws", _python("boto3_region.py"), {"region": "us-east-1"}, ZONE, IPV6),
    Case("boto3", "credentials", "ecs", BOTO, {**KEYS, "method": "container-role"}, TASK, ECS),
    Case("boto3", "credentials", "eks", BOTO, {**KEYS, "method": "container-role"}, POD, EKS),
    Case("boto3", "credentials-ipv6", "eks", BOTO, {**KEYS, "method": "container-role"}, POD, EKS6),
    Case("aws-cli", "credentials", "aws", CLI, {"key": KEY[-4:], "method": "iam-role"}, ROLES),
    Case("aws-cli", "credentials", "ecs", CLI, {"key": KEY[-4:], "method": "container-role"}, TASK, ECS),
    Case("aws-cli", "credentials", "eks", CLI, {"key": KEY[-4:], "method": "container-role"}, POD, EKS),
    Case(
        "ec2-metadata",
        "identity",
        "aws",
        _python("ec2_metadata_instance.py"),
        {**IDENTITY, "account": "123456789012", "type": "t3.micro", "keys": True, "networks": [MAC]},
        (TOKEN, INSTANCE_ID, DOCUMENT, "GET /latest/meta-data/network/interfaces/macs/ 200"),
    ),
    Case("aws-sdk-js", "credentials", "aws", _node("aws_js_instance.cjs"), KEYS, ROLES, NODE),
    Case("aws-sdk-js", "credentials-ipv6", "aws", _node("aws_js_instance.cjs"), KEYS, ROLES, {**NODE, **IPV6}),
    Case("aws-sdk-js", "chain", "aws", JS, KEYS, ROLES, NODE),
    Case(
        "aws-sdk-js",
        "metadata",
        "aws",
        _node("aws_js_metadata.cjs"),
        {"instance": INSTANCE},
        (TOKEN, "GET //latest/meta-data/instance-id 200"),  # two slashes: the client follows no redirect
        NODE,
    ),
    Case("aws-sdk-js", "credentials", "ecs", JS, KEYS, TASK, {**NODE, **ECS}),
    Case("aws-sdk-js", "credentials", "eks", JS, KEYS, POD, {**NODE, **EKS}),
    Case("aws-sdk-js", "credentials-ipv6", "eks", JS, KEYS, POD, {**NODE, **EKS6}),
    Case("aws-sdk-go-v1", "identity", "aws", (GO1, "identity"), {**KEYS, **IDENTITY}, (*ROLES, DOCUMENT)),
    Case("aws-sdk-go-v1", "identity-ipv6", "aws", (GO1, "identity"), {**KEYS, **IDENTITY}, (*ROLES, DOCUMENT), IPV6),
    Case("aws-sdk-go-v1", "credentials", "ecs", (GO1,), KEYS, TASK, ECS),
    Case("aws-sdk-go-v2", "identity", "aws", (GO2, "identity"), {**KEYS, **IDENTITY}, (*ROLES, DOCUMENT)),
    Case("aws-sdk-go-v2", "identity-ipv6", "aws", (GO2, "identity"), {**KEYS, **IDENTITY}, (*ROLES, DOCUMENT), IPV6),
    Case("aws-sdk-go-v2", "credentials", "ecs", (GO2,), KEYS, TASK, ECS),
    Case(
        "cloud-init",
        "crawl",
        "aws",
        _python("cloud_init_crawl.py"),
        {"instance": INSTANCE, "document": INSTANCE, "macs": [MAC], "user-data": "#cloud-config\n{}\n"},
        (TOKEN, *(f"GET /2021-03-23/{path} 200" for path in ("user-data", "meta-data/", DOCUMENT_PATH))),
        CLOUD_INIT,
    ),
    Case("google-auth", "token", "gcp", _python("google_auth_token.py"), GOOGLE, (PROJECT, RECURSIVE, SCOPED)),
    Case("gcp-metadata", "token", "gcp", _node("gcp_metadata_project.cjs"), AVAILABLE, (PROJECT, GCP_TOKEN), NODE),
    Case("google-auth-library", "token", "gcp", _node("google_auth_js_token.cjs"), GOOGLE, (PROJECT, SCOPED), NODE),
    Case(
        "compute-metadata-go", "project", "gcp", ("{debian}/bin/gcp-go",), {**PROJECT_ID, "available": True}, (PROJECT,)
    ),
    Case("azure-identity", "token", "azure", _python("azure_identity_token.py"), ACCESS, (MANAGED,)),
    Case("azure-identity-js", "token", "azure", _node("azure_identity_token.cjs"), ACCESS, (MANAGED,), NODE),
    Case("curl", "document", "aws", _curl(DOCUMENT_URL), DOCUMENTED, (DOCUMENT,)),
    Case("curl", "document-ipv6", "aws", _curl(DOCUMENT_URL6), DOCUMENTED, (DOCUMENT,)),
    Case("curl", "token", "gcp", _curl(GCP_TOKEN_URL, "Metadata-Flavor: Google"), {}, (GCP_TOKEN,)),
    Case("curl", "token", "azure", _curl(AZURE_TOKEN_URL, "Metadata: true"), {}, (MANAGED,)),
    Case("wget", "document", "aws", _wget(DOCUMENT_URL), DOCUMENTED, (DOCUMENT,)),
    Case("wget", "document-ipv6", "aws", _wget(DOCUMENT_URL6), DOCUMENTED, (DOCUMENT,)),
    Case("wget", "token", "gcp", _wget(GCP_TOKEN_URL, "Metadata-Flavor: Google"), {}, (GCP_TOKEN,)),
)
