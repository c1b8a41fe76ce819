"""The changelog's section of a version: it becomes the text of the release."""

from __future__ import annotations

import re

from release.names import CHANGELOG, ReleaseError

HEADING = re.compile(r"^## \[(?P<name>[^\]]+)\](?: - (?P<date>\d{4}-\d{2}-\d{2}))?\n", re.MULTILINE)
UNRELEASED = "Unreleased"


def sections(text: str) -> dict[str, str]:
    """Return the text below each heading of a version, by its name, without empty lines around it."""
    headings = list(HEADING.finditer(text))
    ends = [*(heading.start() for heading in headings[1:]), len(text)]
    return {heading["name"]: text[heading.end() : end].strip("\n") for heading, end in zip(headings, ends, strict=True)}


def notes(text: str, version: str) -> str:
    """Return the text of a version's release.

    Raises:
        ReleaseError: the version has no section, or an empty one.
    """
    found = sections(text).get(version, "")
    if not found:
        raise ReleaseError(
            f"{CHANGELOG} has no text for {version}: run `scripts/release version {version}`, which dates [Unreleased]"
        )
    return found


def dated(text: str, version: str, date: str) -> str:
    """Return the changelog with the unreleased section as that of a version, below a new empty one.

    Raises:
        ReleaseError: nothing is unreleased, or the version has a section already.
    """
    known = sections(text)
    if version in known:
        raise ReleaseError(f"{CHANGELOG} has a section for {version} already: choose another version")
    if not known.get(UNRELEASED):
        raise ReleaseError(f"{CHANGELOG} has nothing under [{UNRELEASED}]: write what changed")
    heading = f"## [{UNRELEASED}]\n"
    return text.replace(heading, f"{heading}\n## [{version}] - {date}\n", 1)
