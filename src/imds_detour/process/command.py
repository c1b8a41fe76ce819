"""The app's command: find its program as execvp(3) does, and explain a refusal by the kernel."""

from __future__ import annotations

import errno
import os
import stat

from imds_detour.errors import STATUS_CANNOT_EXECUTE, STATUS_NOT_FOUND, DetourError, error_text
from imds_detour.system.files import read
from imds_detour.text import quoted
from imds_detour.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

DEFAULT_PATH = "/bin:/usr/bin"
"""The folders of execvp(3) without PATH (glibc's confstr _CS_PATH)."""
BINPRM_BUF_SIZE = 256
"""linux/binfmts.h: the kernel recognises a program by so many bytes."""


class Command(Value):
    """A command whose program exists."""

    argv: tuple[bytes, ...]  # arguments, byte by byte as the user wrote them
    program: bytes  # file to execute


def find(arguments: Sequence[str], path: str | None) -> Command:
    """Find the program of a command, by the rules of execvp(3).

    A leading ``--`` is dropped. ``path`` is PATH, None if it is not set. Raises DetourError with status 125 without a
    command, 127 if the program is not found, and 126 if it cannot be executed.
    """
    argv = arguments[1:] if arguments[:1] == ["--"] else arguments
    if not argv:
        remedy = "put it after imds-detour, in CMD, or in Compose's `command:` (`entrypoint:` discards the image's CMD)"
        raise DetourError("command", "no command to run", remedy)
    name = argv[0]
    folders = [""] if "/" in name else (DEFAULT_PATH if path is None else path).split(":")
    refused: DetourError | None = None
    for folder in folders if name else ():
        program = os.fsencode(f"{folder}/{name}" if folder else name)
        try:
            obstacle = _obstacle(program)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            obstacle = error_text(error)
        if not obstacle:
            return Command(tuple(os.fsencode(argument) for argument in argv), program)
        refused = refused or cannot_execute(program, obstacle)
    if refused:
        raise refused
    reason = f"command not found{'' if '/' in name else ' in PATH'}: {quoted(name)}"
    raise DetourError("command", reason, "correct it, or install it in the image", status=STATUS_NOT_FOUND)


def _obstacle(program: bytes) -> str:
    """Return why a file cannot be executed, or an empty string; OSError if it cannot be looked at."""
    mode = os.stat(program).st_mode
    if stat.S_ISDIR(mode):
        return "it is a directory"
    if not stat.S_ISREG(mode):
        return "it is not a regular file"
    # The second call uses capabilities, as exec does; old seccomp filters refuse it.
    if os.access(program, os.X_OK) or os.access(program, os.X_OK, effective_ids=True):
        return ""
    if os.statvfs(program).f_flag & os.ST_NOEXEC:
        return "its file system is mounted noexec"
    return "it is not executable: `chmod +x` it"


def shown(path: bytes) -> str:
    """Return a path in quotes, printable and short."""
    return quoted(os.fsdecode(path), 200)


def cannot_execute(program: bytes, reason: str) -> DetourError:
    """Return the error for a program that this user cannot execute, for a reason."""
    user = "" if os.geteuid() == 0 else f" (as uid {os.geteuid()})"
    return DetourError("command", f"cannot execute {shown(program)}: {reason}{user}", status=STATUS_CANNOT_EXECUTE)


def is_text(program: bytes) -> bool:
    """Whether a file that the kernel does not recognise may be a script without "#!", and not a binary file."""
    start = head(program)
    return not start.startswith(b"\x7fELF") and b"\0" not in start.partition(b"\n")[0]


def refused(program: bytes, error: OSError, *, by_shell: bool = False) -> DetourError:
    """Return the error for a refusal by execve(2), of /bin/sh with ``by_shell``; advice.programs says more."""
    failure = cannot_execute(program, "it has no `#!` line, and /bin/sh cannot run it: " * by_shell + error_text(error))
    failure.status = STATUS_NOT_FOUND if error.errno == errno.ENOENT and not by_shell else STATUS_CANNOT_EXECUTE
    return failure


def head(program: bytes) -> bytes:
    """Return the bytes by which the kernel recognises a program; none if they cannot be read."""
    try:
        return read(program, BINPRM_BUF_SIZE)
    except OSError:
        return b""
