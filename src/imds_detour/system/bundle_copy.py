"""Copy the bundle into a volume, from which containers with unmodified images start it."""

from __future__ import annotations

import os
import stat
import sys
from contextlib import suppress

from imds_detour.errors import DetourError, error_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

PROGRAM = "bin/imds-detour"
"""What an app starts. It is copied last, so that no app starts from an incomplete copy."""
VOLUME = "mount a writable volume there, away from the image's own folder: in Compose `volumes: [imds-detour:/volume]`"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `imds-detourctl copy`."""
    parser.usage = "%(prog)s FOLDER"
    parser.add_argument("folder", metavar="FOLDER", help="a volume, which is empty or has an older copy")


def run(arguments: argparse.Namespace) -> int:
    """Copy the bundle that runs this, and print how many files were written."""
    changed = copy(bundle_folder(), arguments.folder)
    sys.stdout.write(f"{arguments.folder}: " + (f"{changed} files written\n" if changed else "up to date\n"))
    return 0


def bundle_folder() -> str:
    """Return the folder of the bundle that runs this; DetourError if it is another installation."""
    folder = os.path.realpath(f"{__file__}/../../../../..")  # lib/python3.x/imds_detour/system
    if not os.path.isfile(f"{folder}/{PROGRAM}"):
        raise DetourError("copy", "this installation is not the bundle", "use the image imds-detour (`make images`)")
    return folder


def copy(source: str, target: str) -> int:
    """Make each file of a bundle the same in a folder, and return how many were not.

    Each file is replaced as a whole, so a program that runs from the folder keeps the old one. Other files stay.

    Raises:
        DetourError: when the folder cannot be written to, is the bundle itself, or has something else than a bundle.

    """
    target = os.path.realpath(target)
    if target == os.path.realpath(source):
        raise DetourError("copy", f"{target} is the image's own folder, or a volume that hides it", VOLUME)
    try:
        os.makedirs(target, exist_ok=True)
        if set(os.listdir(target)) - {"lost+found"} and not os.path.lexists(f"{target}/bin"):
            raise DetourError("copy", f"{target} has other files than imds-detour's", VOLUME)
        return sum(_replace(f"{source}/{place}", f"{target}/{place}") for place in _places(source))
    except OSError as error:
        reason = f"cannot write to {target}: {error_text(error)}"
        raise DetourError("copy", reason, VOLUME) from None


def _places(source: str) -> list[str]:
    """Return the files below a folder, as paths relative to it, the program last."""
    places = [
        os.path.relpath(os.path.join(folder, name), source) for folder, _, names in os.walk(source) for name in names
    ]
    return sorted(places, key=lambda place: (place == PROGRAM, place))


def _replace(origin: str, place: str) -> bool:
    """Replace a file or link that is not the same; return whether it was not."""
    content = _content(origin)
    with suppress(OSError):
        if _content(place) == content:
            return False
    os.makedirs(os.path.dirname(place), exist_ok=True)
    new = f"{os.path.dirname(place)}/.{os.urandom(8).hex()}.new"  # another container may fill the same volume
    mode, data = content
    try:
        if stat.S_ISLNK(mode):
            os.symlink(data, new)
        else:
            with open(new, "xb") as file:
                file.write(data)
                os.fchmod(file.fileno(), stat.S_IMODE(mode))
        os.replace(new, place)
    except BaseException:
        with suppress(OSError):
            os.unlink(new)
        raise
    return True


def _content(path: str) -> tuple[int, bytes]:
    """Return the mode of a file and its bytes, or a link's target."""
    mode = os.lstat(path).st_mode
    if stat.S_ISLNK(mode):
        return mode, os.fsencode(os.readlink(path))
    with open(path, "rb") as file:
        return mode, file.read()
