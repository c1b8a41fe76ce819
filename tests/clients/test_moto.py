"""moto's server as the mock: SDKs read its metadata and call its AWS services."""

import dataclasses

import pytest

from tests.clients.cases import BOTO, CASES, INSTANCE_ID, TOKEN, Case
from tests.clients.conftest import need
from tests.clients.installs import PARTS
from tests.clients.place import Place, expect
from tests.support.hosts.network import MOCK, PORT

KEYS = {"key": "test-key", "token": "test-session-token"}
ROLE = "GET /latest/meta-data/iam/security-credentials/"
ROLES = (TOKEN, f"{ROLE} 200", f"{ROLE}default-role 200")
CLOUD = f"http://{MOCK}:{PORT}"


def as_moto(id_: str, printed: dict[str, str], asked: tuple[str, ...]) -> Case:
    """Return a case of CASES with moto's answers."""
    (case,) = (case for case in CASES if case.id == id_)
    return dataclasses.replace(case, printed=printed, asked=asked)


# boto3's region, the Go SDKs, ec2-metadata and cloud-init need more than moto serves: a path with a final slash, the
# `Code` of credentials, the token's lifetime, the identity document.
MOTO = (
    as_moto("boto3-credentials-aws", KEYS, ROLES),
    as_moto("aws-cli-credentials-aws", {"key": KEYS["key"][-4:], "method": "iam-role"}, ROLES),
    as_moto("aws-sdk-js-credentials-aws", KEYS, ROLES),
    as_moto("aws-sdk-js-metadata-aws", {"instance": "i-fake"}, (TOKEN, INSTANCE_ID)),
    Case(
        "boto3",
        "caller",
        "aws",
        (BOTO[0], BOTO[1].replace("credentials", "identity"), CLOUD),
        {"account": "123456789012"},
        (*ROLES, "POST / 200"),
    ),
)


@pytest.mark.parametrize("case", MOTO, ids=[case.id for case in MOTO], indirect=True)
def test_client_reads_moto(place: Place, case: Case) -> None:
    """A client with imds-detour reads moto's values."""
    need("moto")
    moto = PARTS["moto"].folder
    place.serve(f"{moto}/bin/python", f"{moto}/bin/moto_server", "--host", MOCK, "--port", PORT)
    expect(case, place.run(*case.line, environ=case.variables))
