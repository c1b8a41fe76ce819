"""The table of clients in docs/clients.md agrees with the client tests."""

import dataclasses
import os

from tests.clients import matrix
from tests.clients.installs import HERE

ROOT = os.path.join(HERE, os.pardir, os.pardir)
BEGIN, END = "<!-- from build/clients.md, which `make test-clients` writes -->\n", "<!-- so far -->\n"


def test_page_has_the_table() -> None:
    """The page has the table with the current clients, versions and backends."""
    with open(f"{ROOT}/docs/clients.md", encoding="utf-8") as file:
        text = file.read()
    assert text.partition(BEGIN)[2].partition(END)[0] == matrix.table(matrix.promised())


def test_table_cell_needs_all_of_its_tests() -> None:
    """A failed test marks its service in the cell, and a test that did not run leaves the service out."""
    boto3 = [finding for finding in matrix.promised() if finding.client == "boto3"]
    ran = [finding for finding in boto3 if (finding.preset, finding.backend) != ("eks", "env")]
    failed = dataclasses.replace(ran[0], backend="nft", verdict="fails")
    (row,) = (line for line in matrix.table([*ran, failed]).splitlines() if line.startswith("| boto3"))
    assert row.split(" | ")[1:] == ["aws, ecs, eks", "**aws fails**, ecs, eks", "aws, ecs |"]
