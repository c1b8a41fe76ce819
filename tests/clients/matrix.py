"""The table of clients, ways and services: ``--matrix FILE`` writes it from what the tests of this run found."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.clients.cases import CASES
from tests.clients.installs import HERE

if TYPE_CHECKING:
    from collections.abc import Iterable

BACKENDS = ("legacy", "nft", "env")
PINNED = {
    "boto3": "boto3",
    "aws-cli": "awscli",
    "ec2-metadata": "ec2-metadata",
    "aws-sdk-js": "@aws-sdk/credential-providers",
    "google-auth": "google-auth",
    "gcp-metadata": "gcp-metadata",
    "google-auth-library": "google-auth-library",
    "azure-identity": "azure-identity",
    "azure-identity-js": "@azure/identity",
}
"""Which package's pin is a client's version. The others are Debian's, of whatever version is there."""
KEY = "backed by"
"""The property under which a test says which cell it backs."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one test has to say of one cell.

    Attributes:
        client: the row.
        preset: the word in the cell.
        backend: the column.
        verdict: ``works``, ``ignored_by`` or ``fails``.
        test: its name.

    """

    client: str
    preset: str
    backend: str
    verdict: str
    test: str


def promised() -> list[Finding]:
    """Return what the tests would find if all of them passed."""
    return [
        Finding(case.client, case.preset, backend, "deaf" if backend == "env" and case.deaf else "works", case.id)
        for case in CASES
        for backend in BACKENDS
    ]


def table(findings: Iterable[Finding]) -> str:
    """Return the table in Markdown: a cell has the services that the client reads that way, by all of its tests."""
    verdicts: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for finding in findings:
        verdicts[finding.client, finding.backend, finding.preset].add(finding.verdict)
    lines = [f"| client | {' | '.join(BACKENDS)} |", f"|---|{'---|' * len(BACKENDS)}"]
    for client in dict.fromkeys(case.client for case in CASES):
        presets = dict.fromkeys(case.preset for case in CASES if case.client == client)
        cells = [
            ", ".join(word for preset in presets if (word := _word(preset, verdicts[client, backend, preset]))) or "-"
            for backend in BACKENDS
        ]
        lines.append(f"| {_label(client)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def evidence(findings: Iterable[Finding]) -> str:
    """Return the tests behind each cell, in Markdown."""
    return "".join(
        f"- {one.client}, {one.preset}, {one.backend}: {one.verdict}, `{one.test}`\n"
        for one in sorted(findings, key=lambda one: (one.client, one.preset, one.backend, one.test))
    )


def _word(preset: str, verdicts: set[str]) -> str:
    if verdicts == {"works"}:
        return preset
    return f"**{preset} fails**" if "fails" in verdicts else ""


def _label(client: str) -> str:
    if client not in PINNED:
        return f"{client} (Debian's)"
    with open(f"{HERE}/pins/package.json") as file:
        pins: dict[str, str] = json.load(file)["dependencies"]
    with open(f"{HERE}/pins/python.txt") as file:
        pins |= dict(re.findall(r"(?m)^([\w.-]+)==(\S+)", file.read()))
    return f"{client} {pins[PINNED[client]]}"
