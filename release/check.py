"""What must hold before anything is published."""

from __future__ import annotations

from release import changelog, places
from release.names import (
    CHANGELOG,
    PLACEHOLDER,
    PROJECT,
    PUBLISH,
    ROOT,
    SOURCE,
    ReleaseError,
    publisher,
    read,
    version,
)


def problems(tag: str, repository: str, root: str = ROOT) -> list[str]:
    """Return a line for each reason not to release a tag from a repository (``owner/name``, or empty if unknown)."""
    number, owner = version(root), publisher(root).owner
    lines = places.differing(root)
    if tag != f"v{number}":
        lines.append(f"the tag is {tag}, and {SOURCE} has {number}: tag v{number}, or run `scripts/release version`")
    try:
        changelog.notes(read(CHANGELOG, root), number)
    except ReleaseError as error:
        lines.append(str(error))
    if owner == PLACEHOLDER:
        lines.append(f"{PUBLISH} has the placeholder {PLACEHOLDER}: run `scripts/release owner NAME` and commit")
    elif repository and repository.lower() != f"{owner}/{PROJECT}":
        lines.append(
            f"this repository is {repository}, and {PUBLISH} has {owner}/{PROJECT}: run `scripts/release owner NAME`"
        )
    return lines
