"""The README's table of clients says what the tests here show, and no more."""

from __future__ import annotations

import dataclasses
import os

import pytest

from tests.clients import matrix
from tests.clients.installs import HERE

ROOT = os.path.join(HERE, os.pardir, os.pardir)
SPANISH = {"| client |": "| cliente |", "(Debian's)": "(de Debian)"}
READMES: dict[str, dict[str, str]] = {"README.md": {}, "README.es.md": SPANISH}
BEGIN, END = "<!-- from build/clients.md, which `make test-clients` writes -->\n", "<!-- so far -->\n"


@pytest.mark.parametrize("name", READMES)
def test_the_readme_has_the_table(name: str) -> None:
    """A version that is raised, a client that is added, a way that is closed: the README says so, or this fails."""
    with open(f"{ROOT}/{name}", encoding="utf-8") as file:
        text = file.read()
    wanted = matrix.table(matrix.promised())
    for word, translated in READMES[name].items():
        wanted = wanted.replace(word, translated)
    assert text.partition(BEGIN)[2].partition(END)[0] == wanted


def test_a_cell_needs_all_of_its_tests() -> None:
    """One test that fails marks its word in the cell, and one that did not run leaves the word out."""
    found = [one for one in matrix.promised() if one.client == "boto3" and (one.preset, one.backend) != ("eks", "env")]
    failed = dataclasses.replace(found[0], backend="nft", verdict="fails")
    (row,) = (line for line in matrix.table([*found, failed]).splitlines() if line.startswith("| boto3"))
    assert row.split(" | ")[1:] == ["aws, ecs, eks", "**aws fails**, ecs, eks", "aws, ecs |"]
