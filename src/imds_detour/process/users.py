"""Become the user of MOCK_USER: check it before any change, and switch to it last."""

from __future__ import annotations

import os
import stat

from imds_detour.errors import DetourError, error_text
from imds_detour.process import accounts, privileges
from imds_detour.system import capabilities, files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from imds_detour.config.user import UserSpec
    from imds_detour.process.accounts import Account

PASSWD, GROUP = "/etc/passwd", "/etc/group"
REMEDY = "add SETUID and SETGID: in Compose `cap_add: [NET_ADMIN, SETGID, SETUID]`, and start as root"


def prepare(spec: UserSpec, home: str | None) -> tuple[Account, dict[bytes, bytes | None]]:
    """Return the user's account and the change of HOME; DetourError if it is unknown, or may not be switched to."""
    passwd = _text(PASSWD)
    account = accounts.find(spec, passwd, _text(GROUP))
    required = {capabilities.SETUID: os.getuid() != account.uid, capabilities.SETGID: not _has_groups(account)}
    effective = capabilities.effective()
    if any(needed and not effective & capability for capability, needed in required.items()):
        raise DetourError("user", f"MOCK_USER={spec}: this process may not become {account}", REMEDY)
    return account, accounts.home_variable(account, passwd, home)


def switch(account: Account) -> tuple[int, ...]:
    """Become another user for good, or raise DetourError; return the streams that /dev/stdout cannot reopen."""
    kept = _give_streams(account.uid)
    try:
        if not _has_groups(account):
            os.setgroups(account.groups)
            os.setresgid(account.gid, account.gid, account.gid)
        os.setresuid(account.uid, account.uid, account.uid)
    except OSError as error:
        remedy = "a rootless engine maps some numbers only (/proc/self/uid_map); use one of them"
        remedy = REMEDY if isinstance(error, PermissionError) else remedy
        raise DetourError("user", f"cannot become {account}: {error_text(error)}", remedy) from None
    if account.uid != 0:
        privileges.drop_own_capabilities()
    _verify(account)
    return kept


def _text(path: str) -> str | None:
    try:
        return files.read(path).decode("utf-8", "surrogateescape")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise DetourError("user", f"cannot read {path}: {error_text(error)}") from None


def _has_groups(account: Account) -> bool:
    return os.getresgid() == (account.gid,) * 3 and set(os.getgroups()) == set(account.groups)


def _give_streams(uid: int) -> tuple[int, ...]:
    """Make the user the owner of this user's pipes and terminals at 0, 1 and 2; return those that stay.

    A container engine does so for USER in a Dockerfile, so that the app can open /dev/stdout. Files and devices stay:
    a file in a volume or /dev/null is shared, or outlives the container. The group stays (tty for a terminal).
    """
    kept = []
    for number in (0, 1, 2):
        status = os.fstat(number)
        stream = stat.S_ISFIFO(status.st_mode) or (stat.S_ISCHR(status.st_mode) and os.isatty(number))
        if stream and status.st_uid != uid and status.st_uid == os.geteuid():
            try:
                os.fchown(number, uid, -1)
            except OSError:  # no CHOWN, or a file system without owners
                kept.append(number)
    return tuple(kept)


def _verify(account: Account) -> None:
    """Raise a DetourError if user, groups or capabilities are wrong, or the process could become root again."""
    wrong = {"can become root again": privileges.can_become_root()} if account.uid != 0 else {}
    sets = capabilities.sets()
    wrong = {
        "user": os.getresuid() != (account.uid,) * 3,
        "groups": not _has_groups(account),
        "capabilities": account.uid != 0 and any(sets[name] for name in ("CapPrm", "CapEff", "CapAmb")),
        **wrong,
    }
    if any(wrong.values()):
        names = ", ".join(name for name in wrong if wrong[name])
        raise DetourError("user", f"wrong after becoming {account}: {names}", "please report it")
