"""Who the app shall run as: MOCK_USER, looked up in passwd(5) and group(5) as Dockerfile's USER is.

The files are read here and not by the C library, whose name service plug-ins may be of another libc, or missing.
"""

from __future__ import annotations

import re

from imds_detour.errors import DetourError
from imds_detour.text import quoted
from imds_detour.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_ID = 2**32 - 2
"""The last number that is a user's or a group's: the one after it is -1, which setresuid(2) takes for "as before"."""
USER_FIELDS, GROUP_FIELDS = 7, 4
"""How many fields a line of passwd(5) and of group(5) has."""
ROOTS_HOME = "/root"


class Wanted(Value):
    """A user and perhaps a group, each a name or a number, as the user of this program wrote them."""

    user: str
    group: str | None

    def __str__(self) -> str:
        return self.user if self.group is None else f"{self.user}:{self.group}"


class Account(Value):
    """What a process of a user has.

    Attributes:
        uid: the user's number.
        gid: the number of the group.
        groups: the supplementary groups, in order, ``gid`` among them.
        home: the home directory; ``/`` for a user without an entry, as container engines have it.

    """

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str

    def __str__(self) -> str:
        return f"{self.uid}:{self.gid}"


def wanted(text: str) -> Wanted:
    """Read ``user[:group]``.

    Raises:
        ValueError: when it is not of that form; the text says why, where there is something to say.

    """
    user, colon, group = text.partition(":")
    for part in (user, group) if colon else (user,):
        if not part or ":" in part or not part.isprintable():
            raise ValueError
        if re.fullmatch("[0-9]+", part) and _number(part) is None:
            raise ValueError(f"{quoted(part)} is not 0 to {MAX_ID}")
    return Wanted(user, group if colon else None)


def find(who: Wanted, passwd: str | None, group: str | None) -> Account:
    """Find a user's numbers, groups and home, by the rules of Dockerfile's USER.

    A name comes before a number. A number needs no entry, and then its group is 0 unless one is given. Supplementary
    groups are those whose line names the user; a group that is given replaces them all.

    Args:
        who: the user.
        passwd: the text of /etc/passwd; None where there is no such file.
        group: the text of /etc/group, likewise.

    Raises:
        DetourError: when a name is not there.

    """
    users = list(_entries(passwd, USER_FIELDS))
    number = _number(who.user)
    user = next((entry for entry in users if entry[0] == who.user), None)
    if user is None and number is not None:
        user = next((entry for entry in users if int(entry[2]) == number), ["", "", who.user, "0", "", "/", ""])
    if user is None:
        raise _unknown("user", who.user, "/etc/passwd", passwd)
    groups = list(_entries(group, GROUP_FIELDS))
    if who.group is None:
        gid = int(user[3])
        others = {int(entry[2]) for entry in groups if user[0] and user[0] in entry[3].split(",")}
    else:
        gid, others = _group(who.group, groups, group), set()
    return Account(int(user[2]), gid, tuple(sorted(others | {gid})), user[5] or "/")


def home_change(account: Account, passwd: str | None, home: str | None) -> dict[bytes, bytes | None]:
    """Return the change of HOME for a user's process: to its own where it still is root's, none where it was chosen."""
    roots = {ROOTS_HOME, *(entry[5] for entry in _entries(passwd, USER_FIELDS) if int(entry[2]) == 0)}
    if account.uid == 0 or home not in roots:
        return {}
    return {b"HOME": account.home.encode(errors="surrogateescape")}


def _group(name: str, groups: list[list[str]], text: str | None) -> int:
    found = next((entry[2] for entry in groups if entry[0] == name), name)
    number = _number(found)
    if number is None:
        raise _unknown("group", name, "/etc/group", text)
    return number


def _entries(text: str | None, fields: int) -> Iterator[list[str]]:
    """Yield the fields of each line; comments, NIS markers (``+``) and lines without proper numbers are no entries."""
    for line in (text or "").split("\n"):
        entry = line.split(":")
        numbers = entry[2:4] if fields == USER_FIELDS else entry[2:3]
        if len(entry) == fields and line[0] not in "#+-" and None not in map(_number, numbers):
            yield entry


def _number(text: str) -> int | None:
    # int() would also take "+1", " 1", "1_0" and other scripts' digits.
    return int(text) if re.fullmatch("[0-9]{1,10}", text) and int(text) <= MAX_ID else None


def _unknown(kind: str, name: str, path: str, text: str | None) -> DetourError:
    numbers = "give numbers, which need no entry: MOCK_USER=uid:gid"
    if text is None:
        return DetourError("user", f"MOCK_USER: no {kind} {quoted(name)}: there is no {path} here", numbers)
    tool = "useradd" if kind == "user" else "groupadd"
    return DetourError(
        "user",
        f"MOCK_USER: no {kind} {quoted(name)} in {path}",
        f"add it to the image (`RUN {tool} ...`), or {numbers}",
    )
