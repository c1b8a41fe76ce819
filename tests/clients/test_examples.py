"""The apps of examples/, whose Dockerfiles users copy: each reads the mock, with SDKs that are installed anyway."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.clients.cases import DOCUMENT, KEY, NODE, ROLES, ZONE, Case
from tests.clients.place import OURS, expect
from tests.support.hosts.network import INSTANCE

if TYPE_CHECKING:
    from tests.clients.place import Place

EXAMPLES = os.path.realpath(f"{os.path.dirname(__file__)}/../../examples")
END = KEY[-4:]
"""The end of the access key is all that they print of it."""

CASES = (
    Case(
        "python",
        "app",
        "aws",
        ("{python}/bin/python", f"{EXAMPLES}/python/app.py"),
        {"key": END, "from": "iam-role", "region": "us-east-1"},
        (*ROLES, *ZONE[1:]),
    ),
    Case("node", "app", "aws", ("node", f"{EXAMPLES}/node/app.cjs"), {"key": END, "instance": INSTANCE}, ROLES, NODE),
    Case(
        "go",
        "app",
        "aws",
        ("{debian}/bin/example",),
        {"key": END, "instance": INSTANCE, "region": "us-east-1"},
        (*ROLES, DOCUMENT),
    ),
)


@pytest.mark.parametrize("case", CASES, ids=[case.client for case in CASES], indirect=True)
def test_the_app_of_an_example_reads_the_mock(place: Place, case: Case) -> None:
    """As its Dockerfile starts it, behind imds-detour."""
    place.serve(*OURS)
    expect(case, place.run(*case.line, environ=case.variables))


def test_every_example_is_run() -> None:
    """One that is added is added here as well."""
    folders = {entry.name for entry in os.scandir(EXAMPLES) if entry.is_dir()}
    assert folders == {case.client for case in CASES}
