"""The apps of examples/ read the mock, with the SDKs of the client tests."""

import os

import pytest

from tests.clients.cases import DOCUMENT, IDENTITY, KEY, NODE, ROLES, ZONE, Case
from tests.clients.place import OWN_MOCK, Place, expect
from tests.support.hosts.network import INSTANCE

EXAMPLES = os.path.realpath(f"{os.path.dirname(__file__)}/../../examples")
END = KEY[-4:]
"""The apps print only the end of the access key."""

PYTHON, NODE_APP = ("{python}/bin/python", f"{EXAMPLES}/python/app.py"), ("node", f"{EXAMPLES}/node/app.cjs")
CASES = (
    Case("python", "app", "aws", PYTHON, {"key": END, "from": "iam-role", "region": "us-east-1"}, (*ROLES, *ZONE[1:])),
    Case("node", "app", "aws", NODE_APP, {"key": END, "instance": INSTANCE}, ROLES, NODE),
    Case("go", "app", "aws", ("{debian}/bin/example",), {"key": END, **IDENTITY}, (*ROLES, DOCUMENT)),
)


@pytest.mark.parametrize("case", CASES, ids=[case.client for case in CASES], indirect=True)
def test_example_app_reads_the_mock(place: Place, case: Case) -> None:
    """The app of an example, started as in its Dockerfile with imds-detour, reads the mock's values."""
    place.serve(*OWN_MOCK)
    expect(case, place.run(*case.line, environ=case.variables))


def test_every_example_has_a_case() -> None:
    """Each example with a Dockerfile has a case in these tests; the engines' tests run the others."""
    built = {entry.name for entry in os.scandir(EXAMPLES) if os.path.exists(f"{entry.path}/Dockerfile")}
    assert built == {case.client for case in CASES}
