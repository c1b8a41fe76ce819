"""Become the user that MOCK_USER names, for good: looked up before anything is touched, switched to at the very end."""

from __future__ import annotations

import os
import stat

from imds_detour.errors import DetourError, words
from imds_detour.process import accounts
from imds_detour.system import capabilities

TYPE_CHECKING = False
if TYPE_CHECKING:
    from imds_detour.process.accounts import Account, Wanted

PASSWD, GROUP = "/etc/passwd", "/etc/group"
REMEDY = "add SETUID and SETGID: in Compose `cap_add: [NET_ADMIN, SETGID, SETUID]`, and start as root"


def prepare(who: Wanted) -> Account:
    """Find the account, and see whether this process may switch to it.

    Raises:
        DetourError: when a name is unknown, or the capabilities to switch are not there.

    """
    account = accounts.find(who, _text(PASSWD), _text(GROUP))
    needs = {capabilities.SETUID: os.getuid() != account.uid, capabilities.SETGID: not _has_groups(account)}
    have = capabilities.effective()
    if any(needed and not have & capability for capability, needed in needs.items()):
        raise DetourError("user", f"MOCK_USER={who}: this process may not become {account}", REMEDY)
    return account


def home_change(account: Account, home: str | None) -> dict[bytes, bytes | None]:
    """Return the change of HOME that comes with an account (see accounts.home_change)."""
    return accounts.home_change(account, _text(PASSWD), home)


def switch(account: Account) -> tuple[int, ...]:
    """Become another user, with no way back, and check it.

    Returns:
        The standard streams that could not be given to the user: it cannot open them anew, as /dev/stdout does.

    Raises:
        DetourError: when it cannot be done, or is not what the kernel shows afterwards.

    """
    from imds_detour.process import privileges  # noqa: PLC0415  (behind the look-ups, which take time)

    kept = _give_streams(account.uid)
    try:
        if not _has_groups(account):
            os.setgroups(account.groups)
            os.setresgid(account.gid, account.gid, account.gid)
        os.setresuid(account.uid, account.uid, account.uid)
    except OSError as error:
        why = words(error)
        raise DetourError("user", f"cannot become {account}: {why}", _remedy(error)) from None
    if account.uid != 0:
        privileges.drop_own_capabilities()
    _verify(account, back=account.uid != 0 and privileges.can_become_root())
    return kept


def _text(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="\n") as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise DetourError("user", f"cannot read {path}: {words(error)}") from None


def _has_groups(account: Account) -> bool:
    return os.getresgid() == (account.gid,) * 3 and set(os.getgroups()) == set(account.groups)


def _give_streams(uid: int) -> tuple[int, ...]:
    """Give pipes and terminals at 0, 1 and 2 to the user where they are ours, so that it can open /dev/stdout.

    A container engine does so for Dockerfile's USER. Files and devices stay as they are: what is in a volume, or
    /dev/null, outlives the container or is not its alone. The group stays, tty for a terminal.
    """
    kept = []
    for number in (0, 1, 2):
        found = os.fstat(number)
        stream = stat.S_ISFIFO(found.st_mode) or (stat.S_ISCHR(found.st_mode) and os.isatty(number))
        if stream and found.st_uid != uid and found.st_uid == os.geteuid():
            try:
                os.fchown(number, uid, -1)
            except OSError:  # no CHOWN, or a file system that has no owners
                kept.append(number)
    return tuple(kept)


def _verify(account: Account, *, back: bool) -> None:
    """See what the kernel has made of it; root is what the user asked for, or out of reach.

    Raises:
        DetourError: when it is another user, other groups, or a process that may be root again.

    """
    wrong = [
        name
        for name, right in {
            "user": os.getresuid() == (account.uid,) * 3,
            "groups": _has_groups(account),
            "capabilities": account.uid == 0 or not any(capabilities.sets()[name] for name in _OWN_SETS),
            "way back to root": not back,
        }.items()
        if not right
    ]
    if wrong:
        raise DetourError("user", f"wrong after becoming {account}: {', '.join(wrong)}", "please report it")


_OWN_SETS = ("CapPrm", "CapEff", "CapAmb")


def _remedy(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return REMEDY
    return "a rootless engine maps some numbers only (/proc/self/uid_map); take one of those"
