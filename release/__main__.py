"""The verbs of scripts/release."""

from __future__ import annotations

import argparse
import datetime as dt
import os
import re
import shlex
import sys
from typing import TYPE_CHECKING

from release import changelog, check, files, images, places
from release.names import (
    ARCHITECTURES,
    CHANGELOG,
    IMAGES,
    PLACEHOLDER,
    VERSION,
    Publisher,
    ReleaseError,
    publisher,
    read,
    version,
    write,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

OWNER = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
"""A GitHub account in lower case, since an image's name has no capitals."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says."""
    chosen = parser().parse_args(arguments)
    try:
        return int(globals()[f"do_{chosen.verb}"](chosen) or 0)
    except (ReleaseError, OSError) as error:
        sys.stderr.write(f"release: {error}\n")
        return 1


def do_owner(chosen: argparse.Namespace) -> None:
    """Write the account and the registry into every file that names them."""
    owner = chosen.owner.lower()
    if not OWNER.fullmatch(owner) and owner != PLACEHOLDER:
        raise ReleaseError(f"{chosen.owner!r} is not the name of a GitHub account: give your account or organization")
    places.set_publisher(Publisher(chosen.registry or publisher().registry, owner))


def do_version(chosen: argparse.Namespace) -> None:
    """Write the version into every file that repeats it, and date the changelog."""
    if not VERSION.fullmatch(chosen.version):
        raise ReleaseError(f"{chosen.version!r} is not a version: give three numbers, as in 1.2.3")
    text = changelog.dated(read(CHANGELOG), chosen.version, chosen.date)
    places.set_version(chosen.version)
    write(CHANGELOG, text)


def do_check(chosen: argparse.Namespace) -> int:
    """Print each reason not to release a tag."""
    found = check.problems(chosen.tag, os.environ.get("GITHUB_REPOSITORY", ""))
    sys.stderr.writelines(f"release: {line}\n" for line in found)
    return int(bool(found))


def do_notes(chosen: argparse.Namespace) -> None:
    """Print the changelog's section of a tag."""
    sys.stdout.write(changelog.notes(read(CHANGELOG), chosen.tag.removeprefix("v")) + "\n")


def do_packages(chosen: argparse.Namespace) -> None:
    """Build wheel and sdist, check them, and install the wheel."""
    wheel, sdist = files.packages(os.path.abspath(chosen.folder))
    files.try_wheel(wheel)
    _say(f"{os.path.basename(wheel)} and {os.path.basename(sdist)} pass twine check, and the wheel installs and runs")


def do_bundles(chosen: argparse.Namespace) -> None:
    """Build the bundles, and copy archive and bill of materials of each."""
    for architecture in chosen.architecture or ARCHITECTURES:
        files.publish_bundle(files.bundle(architecture), architecture, os.path.abspath(chosen.folder))
        _say(f"the bundle for {architecture} is in {chosen.folder}")


def do_sums(chosen: argparse.Namespace) -> None:
    """Write the checksums of the folder's files."""
    files.write_sums(chosen.folder)


def do_image(chosen: argparse.Namespace) -> None:
    """Push an image and print name and digest as the outputs of a workflow's step, or print the command."""
    if chosen.push:
        digest = images.push(chosen.target)
        sys.stdout.write(f"name={publisher().image(chosen.target)}\ndigest={digest}\n")
    else:
        sys.stdout.write(shlex.join(images.push_command(chosen.target, images.revision(), "metadata.json")) + "\n")


def do_registry(_chosen: argparse.Namespace) -> None:
    """Print the registry's host."""
    sys.stdout.write(publisher().registry + "\n")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    whole = argparse.ArgumentParser(prog="scripts/release", description=__doc__, epilog=f"The version is {version()}.")
    verbs = whole.add_subparsers(dest="verb", required=True, metavar="VERB")
    owner = verbs.add_parser("owner", help="set the GitHub account, and the registry, in all files")
    owner.add_argument("owner", metavar="NAME")
    owner.add_argument("registry", nargs="?", metavar="REGISTRY", help="ghcr.io if it never changed")
    number = verbs.add_parser("version", help="set the version in all files, and date the changelog")
    number.add_argument("version", metavar="VERSION")
    number.add_argument("--date", default=dt.datetime.now(dt.UTC).date().isoformat(), help="YYYY-MM-DD; today's")
    verbs.add_parser("check", help="say why a tag cannot be released").add_argument("tag", metavar="TAG")
    verbs.add_parser("notes", help="print the text of a tag's release").add_argument("tag", metavar="TAG")
    for verb, text in (
        ("packages", "build, check and try wheel and sdist"),
        ("bundles", "build the bundles, and take the bill of materials out of each"),
        ("sums", "write SHA256SUMS of a folder"),
    ):
        verbs.add_parser(verb, help=text).add_argument("folder", metavar="FOLDER")
    verbs.choices["bundles"].add_argument("architecture", nargs="*", metavar="ARCHITECTURE", help="amd64 arm64")
    image = verbs.add_parser("image", help="print the command that builds an image, or run it with --push")
    image.add_argument("target", choices=IMAGES)
    image.add_argument("--push", action="store_true", help="run it, and print name= and digest=")
    verbs.add_parser("registry", help="print the registry's host")
    return whole


def _say(text: str) -> None:
    sys.stderr.write(f"release: {text}\n")


if __name__ == "__main__":
    sys.exit(main())
