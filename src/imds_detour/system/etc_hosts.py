"""/etc/hosts: the names by which some SDKs go to their metadata service. One marked line each, removed by the mark."""

from __future__ import annotations

import os
from contextlib import suppress
from ipaddress import ip_address

from imds_detour.errors import DetourError
from imds_detour.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from contextlib import ExitStack

    from imds_detour.endpoint import Address

PATH = "/etc/hosts"
MARK = "# imds-detour"
"""What ends every line of ours; hosts(5) lets a comment follow."""


class Line(Value):
    """What one line says.

    Attributes:
        address: the metadata address.
        names: the names that shall lead to it.

    """

    address: Address
    names: tuple[str, ...]

    @property
    def needed(self) -> tuple[str, ...]:
        """The names without those that are spelt with the dot of a complete one: SDKs have another way beside them."""
        return tuple(name for name in self.names if not name.endswith("."))

    def __str__(self) -> str:
        return f"{self.address}\t{' '.join(self.names)}\t{MARK}"


def addresses_of(name: str) -> tuple[Address, ...]:
    """Return the addresses that the file has for a name, none where it cannot be read."""
    try:
        with open(PATH, encoding="utf-8", errors="replace") as file:
            entries = [_entry(line) for line in file]
    except OSError:
        return ()
    found = []
    for entry in entries:
        if name.lower().rstrip(".") in (word.lower() for word in entry[1:]):
            with suppress(ValueError):
                found.append(ip_address(entry[0]))
    return tuple(found)


def with_lines(text: str, wanted: Iterable[Line]) -> str:
    """Return a hosts file's text with these lines of ours and no others, first of all, for the first one counts."""
    others = without_lines(text)
    return "".join(f"{line}\n" for line in wanted if not _says(others, line)) + others


def without_lines(text: str) -> str:
    """Return a hosts file's text without our lines."""
    return "".join(line for line in text.splitlines(keepends=True) if not _is_ours(line))


def lines_of_ours(text: str) -> str:
    """Return the lines of a hosts file's text that are ours, as they are."""
    return "".join(line for line in text.splitlines(keepends=True) if _is_ours(line))


def add(wanted: Sequence[Line], undo: ExitStack, trace: Callable[[str], None]) -> None:
    """Make these our lines; ``undo`` puts back those that were there before, perhaps an earlier start's.

    Raises:
        DetourError: when the file cannot be changed, and a name does not lead to its address already.

    """
    if not wanted:
        return
    before: list[str] = []

    def change(text: str) -> str:
        before.append(lines_of_ours(text))
        return with_lines(text, wanted)

    def put_back() -> None:
        with suppress(OSError):
            _rewrite(lambda text: "".join(before) + without_lines(text))

    undo.callback(put_back)
    try:
        _rewrite(change)
    except OSError as error:
        entries = ", ".join(f'"{name}:{line.address}"' for line in wanted for name in line.needed)
        raise DetourError(
            "hosts",
            f"cannot write {PATH}, and SDKs go by name to {wanted[0].names[0]}: {error.strerror or error}",
            f"let the container have the name from the start: in Compose `extra_hosts: [{entries}]`",
        ) from None
    for line in wanted:
        trace(f"{PATH}: {' '.join(line.names)} is {line.address}")


def remove() -> bool:
    """Take our lines out; return whether there were any. A file that cannot be changed keeps them."""
    try:
        return _rewrite(without_lines)
    except OSError:
        return False


def _says(text: str, line: Line) -> bool:
    """Whether a hosts file already leads each name to the address, and does so first."""
    for name in line.needed:
        found = next((entry[0] for entry in map(_entry, text.splitlines()) if name in entry[1:]), "")
        if found != str(line.address):
            return False
    return True


def _is_ours(line: str) -> bool:
    return line.rstrip("\r\n").endswith(MARK)


def _entry(line: str) -> list[str]:
    return line.partition("#")[0].split()


def _rewrite(change: Callable[[str], str]) -> bool:
    """Change the file where it is, for Docker mounts it and it cannot be replaced; return whether it changed."""
    with open(PATH, encoding="utf-8", errors="surrogateescape", newline="") as file:
        text = file.read()
    if (changed := change(text)) == text:
        return False
    before, after = (each.encode("utf-8", "surrogateescape") for each in (text, changed))
    handle = os.open(PATH, os.O_WRONLY | os.O_CLOEXEC)
    try:
        # What needs room comes first: on a full disk the file stays as it was. A reader in between sees lines twice.
        try:
            _write(handle, after[len(before) :], len(before))
        except OSError:
            os.ftruncate(handle, len(before))
            raise
        _write(handle, after[: len(before)], 0)
        os.ftruncate(handle, len(after))
    finally:
        os.close(handle)
    return True


def _write(handle: int, data: bytes, at: int) -> None:
    while data:
        written = os.pwrite(handle, data, at)
        data, at = data[written:], at + written
