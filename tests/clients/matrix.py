"""The table of clients, services and backends, which ``--matrix FILE`` writes from the results of a test run."""

import dataclasses
import json
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from tests.clients.cases import CASES, Case
from tests.clients.installs import HERE

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
"""The package whose pinned version is the client's version. Other clients are Debian's, of any version."""
KEY = "backed by"
"""The property of a test that names its cell."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of a test for one cell: ``works``, ``fails``, or ``ignored`` if it ignores endpoint variables."""

    client: str
    preset: str
    backend: str
    verdict: str
    test: str


def expected_verdict(case: Case, backend: str) -> str:
    """Return the expected verdict of a case: a client may ignore the variables that the env backend sets."""
    return "ignored" if backend == "env" and case.ignores else "works"


def promised() -> list[Finding]:
    """Return the results of a run in which all tests pass."""
    return [
        Finding(case.client, case.preset, backend, expected_verdict(case, backend), case.id)
        for case in CASES
        for backend in BACKENDS
    ]


def table(findings: Iterable[Finding]) -> str:
    """Return the table in Markdown. A cell lists the services for which all tests of client and backend pass."""
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
    """Return the tests of each cell, in Markdown."""
    return "".join(
        f"- {finding.client}, {finding.preset}, {finding.backend}: {finding.verdict}, `{finding.test}`\n"
        for finding in sorted(findings, key=dataclasses.astuple)
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
