"""Look up the user of MOCK_USER in passwd(5) and group(5), by the rules of USER in a Dockerfile.

The C library could not: its name service plug-ins may be missing, or belong to another libc.
"""

from __future__ import annotations

from imds_detour.config.user import UserSpec, parse_id
from imds_detour.errors import DetourError
from imds_detour.text import quoted
from imds_detour.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

USER_FIELDS, GROUP_FIELDS = 7, 4
"""Fields of a line of passwd(5) and of group(5)."""


class Account(Value):
    """A user's numbers and home directory."""

    uid: int  # number of the user
    gid: int  # number of the group
    groups: tuple[int, ...]  # supplementary groups, sorted, with ``gid``
    home: str  # home directory; ``/`` for a user without an entry, as in container engines

    def __str__(self) -> str:
        return f"{self.uid}:{self.gid}"


def find(spec: UserSpec, passwd: str | None, group: str | None) -> Account:
    """Return the account of a user; DetourError if a name has no entry.

    Digits are looked up as a name first. A number needs no entry; its default group is 0. Supplementary groups are
    those whose line names the user; a group in ``spec`` replaces them all. ``passwd`` and ``group`` are the texts of
    the files, None without a file.
    """
    users = list(_entries(passwd, USER_FIELDS))
    number = parse_id(spec.user)
    named = [entry for entry in users if entry[0] == spec.user] or [entry for entry in users if int(entry[2]) == number]
    if not named and number is None:
        raise _unknown("user", spec.user, "/etc/passwd", passwd)
    name, _, uid, gid, _, home, _ = named[0] if named else ["", "", spec.user, "0", "", "/", ""]
    groups = list(_entries(group, GROUP_FIELDS))
    others = {int(entry[2]) for entry in groups if name and name in entry[3].split(",")}
    if spec.group is not None:
        gid, others = next((entry[2] for entry in groups if entry[0] == spec.group), spec.group), set()
    if parse_id(gid) is None:
        raise _unknown("group", gid, "/etc/group", group)
    return Account(int(uid), int(gid), tuple(sorted(others | {int(gid)})), home or "/")


def home_variable(account: Account, passwd: str | None, home: str | None) -> dict[bytes, bytes | None]:
    """Return the new HOME of a user's process if ``home`` is root's, otherwise nothing."""
    roots = {"/root", *(entry[5] for entry in _entries(passwd, USER_FIELDS) if int(entry[2]) == 0)}
    if account.uid == 0 or home not in roots:
        return {}
    return {b"HOME": account.home.encode(errors="surrogateescape")}


def _entries(text: str | None, fields: int) -> Iterator[list[str]]:
    """Yield the fields of the lines, without comments, NIS markers (``+``) and lines without valid numbers."""
    for line in (text or "").split("\n"):
        entry = line.split(":")
        numbers = entry[2:4] if fields == USER_FIELDS else entry[2:3]
        if len(entry) == fields and line[0] not in "#+-" and None not in map(parse_id, numbers):
            yield entry


def _unknown(kind: str, name: str, path: str, text: str | None) -> DetourError:
    subject, numbers = f"MOCK_USER: no {kind} {quoted(name)}", "give numbers, which need no entry: MOCK_USER=uid:gid"
    if text is None:
        return DetourError("user", f"{subject}: there is no {path}", numbers)
    return DetourError("user", f"{subject} in {path}", f"add it to the image (`RUN {kind}add ...`), or {numbers}")
