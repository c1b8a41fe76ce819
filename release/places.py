"""The places that repeat the version or the publisher: found by pattern, compared by a test, rewritten by a verb."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, NamedTuple

from release.names import CHANGELOG, PUBLISH, ROOT, SOURCE, VERSION, Publisher, publisher, read, version, write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NAME = r"imds-detour(?:-ctl|-mock)?"
NUMBER = VERSION.pattern
VERSIONS = (
    ("", re.compile(rf"\b{NAME}:(?P<value>{NUMBER})")),  # an image's tag
    ("", re.compile(rf"name: {NAME}\b[^\n]*?(?:\n +newName:[^\n]*)?(?:\n +|, )newTag: \"?(?P<value>{NUMBER})")),
    ("Dockerfile", re.compile(rf"^ARG VERSION=(?P<value>{NUMBER})$", re.MULTILINE)),
    ("", re.compile(rf"/{NAME}//\S*\?ref=v(?P<value>{NUMBER})")),  # a folder of manifests at a tag
    ("devcontainer-feature.json", re.compile(rf"^ +\"version\": \"(?P<value>{NUMBER})\"", re.MULTILINE)),
    ("Chart.yaml", re.compile(rf"^(?:version|appVersion): \"?(?P<value>{NUMBER})\"?$", re.MULTILINE)),
)
"""The end of a file's name, and a pattern in such files whose group ``value`` is the version."""
HOST = r"(?<![\w./@-])(?:\w+://)?(?P<host>[\w-]+(?:\.[\w-]+)+(?::\d+)?)"
OWNERS = re.compile(rf"(?:{HOST}/|--repo |uses: )(?P<value>[\w.-]+)/{NAME}\b")
"""A repository or an image: the host, the account, and one of the project's names. gh and workflows name no host."""
REPOSITORIES = "github.com"
READERS_OWN = re.compile(r"\.(?:example|test)$")
"""The host of a registry that a reader replaces by one of their own (RFC 2606)."""
NOT_LOOKED_AT = {"tests", "build", "dist", "__pycache__"}
"""Folders without places: tests have names that are wrong on purpose."""
HIDDEN = {".github", ".ci"}
"""The hidden folders that have files of the project."""


class Place(NamedTuple):
    """A value that a file repeats: the file, its line, the value as ``host/owner`` or a version."""

    file: str
    line: int
    value: str


def files(root: str = ROOT) -> Iterator[str]:
    """Yield the text files that may repeat something, relative to the root."""
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(
            name for name in folders if name not in NOT_LOOKED_AT and (name[0] != "." or name in HIDDEN)
        )
        for name in sorted(names):
            path = os.path.relpath(os.path.join(folder, name), root)
            if not os.path.islink(os.path.join(folder, name)) and path not in {CHANGELOG, PUBLISH, SOURCE}:
                yield path


def text_of(name: str, root: str) -> str:
    """Return a file's text, or an empty text if it has none."""
    try:
        return read(name, root)
    except UnicodeDecodeError:
        return ""


def versions(root: str = ROOT) -> list[Place]:
    """Return the places that repeat the version."""
    return [
        Place(name, _line(text, match), match["value"])
        for name in files(root)
        for text in (text_of(name, root),)
        for ending, pattern in VERSIONS
        if name.endswith(ending)
        for match in pattern.finditer(text)
    ]


def owners(root: str = ROOT) -> list[Place]:
    """Return the places that name the repository or a published image."""
    return [
        Place(name, _line(text, match), f"{host}/{match['value']}")
        for name in files(root)
        for text in (text_of(name, root),)
        for match in OWNERS.finditer(text)
        for host in (match["host"] or REPOSITORIES,)
        if not READERS_OWN.search(host)
    ]


def differing(root: str = ROOT) -> list[str]:
    """Return a line for each place that differs from the version or from release/publish.env."""
    whose, number = publisher(root), version(root)
    right = {f"{REPOSITORIES}/{whose.owner}", f"{whose.registry}/{whose.owner}"}
    return [
        f"{place.file}:{place.line} has {place.value}, and {wanted}"
        for found, values, wanted in (
            (versions(root), {number}, f"{SOURCE} has {number}"),
            (owners(root), right, f"{PUBLISH} has {whose.registry}/{whose.owner}"),
        )
        for place in found
        if place.value not in values
    ]


def set_version(number: str, root: str = ROOT) -> None:
    """Write a version into the package and into every place that repeats it."""
    write(SOURCE, read(SOURCE, root).replace(f'"{version(root)}"', f'"{number}"'), root)
    for name in {place.file for place in versions(root)}:
        text = read(name, root)
        for ending, pattern in VERSIONS:
            if name.endswith(ending):
                text = pattern.sub(_putting("value", lambda _match: number), text)
        write(name, text, root)


def set_publisher(new: Publisher, root: str = ROOT) -> None:
    """Write a publisher into release/publish.env and into every place that names it."""
    for name in {place.file for place in owners(root)}:
        write(name, OWNERS.sub(_putting("value", lambda match: _owner(match, new)), read(name, root)), root)
        write(name, OWNERS.sub(_putting("host", lambda match: _host(match, new)), read(name, root)), root)
    old = publisher(root)
    text = read(PUBLISH, root).replace(f"OWNER={old.owner}", f"OWNER={new.owner}")
    write(PUBLISH, text.replace(f"REGISTRY={old.registry}", f"REGISTRY={new.registry}"), root)


def _owner(match: re.Match[str], new: Publisher) -> str:
    return match["value"] if READERS_OWN.search(match["host"] or "") else new.owner


def _host(match: re.Match[str], new: Publisher) -> str:
    return match["host"] if match["host"] == REPOSITORIES or READERS_OWN.search(match["host"]) else new.registry


def _putting(group: str, value: Callable[[re.Match[str]], str]) -> Callable[[re.Match[str]], str]:
    """Return a replacement for re.sub that changes one group of the match, if the match has it."""

    def put(match: re.Match[str]) -> str:
        if match[group] is None:
            return match[0]
        start, end = (position - match.start() for position in match.span(group))
        return match[0][:start] + value(match) + match[0][end:]

    return put


def _line(text: str, match: re.Match[str]) -> int:
    return text.count("\n", 0, match.start("value")) + 1
