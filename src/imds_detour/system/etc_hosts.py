"""/etc/hosts: marked lines with the host names that some SDKs use for their metadata service."""

from __future__ import annotations

import os

from imds_detour.errors import DetourError, error_text
from imds_detour.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from imds_detour.endpoint import Address

PATH = "/etc/hosts"
MARK = "# imds-detour"
"""The end of every line that imds-detour adds: a comment (hosts(5))."""


def add(names: Mapping[Address, tuple[str, ...]]) -> Callable[[], None] | None:
    """Add names, and return a function that restores the file, None without a change. Both may raise DetourError."""
    if not names:
        return None
    replaced: str | None = None  # the lines before; None until they are known

    def change(text: str) -> str:
        nonlocal replaced
        others = without_marked(text)
        replaced = "".join(line for line in text.splitlines(keepends=True) if _is_marked(line))
        # These lines come first, because the first entry of a name counts. One that has the address already needs none.
        needed = {address: aliases for address, aliases in names.items() if not _has(others, address, aliases)}
        return "".join(f"{address}\t{' '.join(aliases)}\t{MARK}\n" for address, aliases in needed.items()) + others

    def restore() -> None:
        try:
            rewrite(lambda text: (replaced or "") + without_marked(text))
        except OSError as error:
            raise unwritable(error) from None

    try:
        changed = rewrite(change)
    except OSError as error:
        remaining = ""
        if replaced is not None:
            try:
                restore()
            except DetourError as second:
                remaining = f"; {second.reason}"
        entries = ", ".join(f'"{name}:{address}"' for address, aliases in names.items() for name in _required(aliases))
        first = next(iter(names.values()))[0]
        reason = f"cannot write {PATH}, and SDKs use the name {first}: {error.strerror or error}{remaining}"
        remedy = f"add the name to the container: in Compose `extra_hosts: [{entries}]`"
        raise DetourError("hosts", reason, remedy) from None
    return restore if changed else None


def without_marked(text: str, keep: Collection[Address] = ()) -> str:
    """Return a hosts file's text without the marked lines, except those of some addresses."""
    kept = tuple(f"{address}\t" for address in keep)
    lines = text.splitlines(keepends=True)
    return "".join(line for line in lines if not _is_marked(line) or line.startswith(kept))


def unwritable(error: OSError) -> DetourError:
    """Return the error for marked lines that remain."""
    remedy = f"remove the lines that end with `{MARK}` by hand, or make {PATH} writable and try again"
    return DetourError("hosts", f"cannot write {PATH}, which has lines of imds-detour: {error_text(error)}", remedy)


def _required(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names that SDKs need: those that use a final dot try without it too, and metadata.goog is an alias."""
    return tuple(name for name in names if not name.endswith((".", ".goog")))


def _has(text: str, address: Address, names: tuple[str, ...]) -> bool:
    """Whether the first entry of every name has the address."""
    entries = [entry(line) for line in text.splitlines()]
    firsts = (next((words[0] for words in entries if name in words[1:]), "") for name in _required(names))
    return all(first == str(address) for first in firsts)


def _is_marked(line: str) -> bool:
    return line.rstrip("\r\n").endswith(MARK)


def entry(line: str) -> list[str]:
    """Return the address and the names of a line."""
    return line.partition("#")[0].split()


def read() -> str:
    """Return the file's text; OSError if it cannot be read."""
    return files.read(PATH).decode("utf-8", "surrogateescape")


def rewrite(change: Callable[[str], str]) -> bool:
    """Change the file in place, because a mounted file cannot be replaced; return whether it changed."""
    text = read()
    if (changed := change(text)) == text:
        return False
    old, new = (version.encode("utf-8", "surrogateescape") for version in (text, changed))
    with open(PATH, "r+b", buffering=0) as file:
        handle = file.fileno()
        # First write what makes the file longer: on a full disk it stays as it was. A reader may see lines twice.
        try:
            _write(handle, new[len(old) :], len(old))
        except OSError:
            os.ftruncate(handle, len(old))
            raise
        _write(handle, new[: len(old)], 0)
        os.ftruncate(handle, len(new))
    return True


def _write(handle: int, data: bytes, offset: int) -> None:
    while data:
        written = os.pwrite(handle, data, offset)
        data, offset = data[written:], offset + written
