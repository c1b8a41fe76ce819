"""The app's command: find its program as execvp(3) does, and say why the kernel does not take one."""

from __future__ import annotations

import errno
import os
import stat

from imds_detour.errors import STATUS_CANNOT_EXECUTE, STATUS_NOT_FOUND, DetourError, words
from imds_detour.text import quoted
from imds_detour.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

DEFAULT_PATH = "/bin:/usr/bin"
"""Where execvp(3) looks when PATH is not set (glibc's confstr _CS_PATH)."""
BINPRM_BUF_SIZE = 256
"""linux/binfmts.h: the bytes of a file that the kernel looks at."""


class Command(Value):
    """A command whose program is there.

    Attributes:
        argv: as the user wrote it, byte by byte.
        program: the file to execute.

    """

    argv: tuple[bytes, ...]
    program: bytes


def find(arguments: Sequence[str], path: str | None) -> Command:
    """Find the program of a command, by the rules of execvp(3).

    Args:
        arguments: everything behind our own name; one leading ``--`` is taken off.
        path: the value of PATH, or None where it is not set.

    Raises:
        DetourError: status 125 without a command, 127 when the program is not there, 126 when it cannot be executed.

    """
    words = arguments[1:] if arguments[:1] == ["--"] else arguments
    if not words:
        raise DetourError(
            "command",
            "no command to run",
            "put it behind imds-detour, in CMD, or in Compose's `command:` (`entrypoint:` clears the image's CMD)",
        )
    name = words[0]
    folders = [""] if "/" in name else (DEFAULT_PATH if path is None else path).split(":")
    refused: DetourError | None = None
    for folder in folders if name else ():
        program = os.fsencode(f"{folder}/{name}" if folder else name)
        try:
            why = _why_not(program)
        except (FileNotFoundError, NotADirectoryError):
            continue
        if not why:
            return Command(tuple(os.fsencode(word) for word in words), program)
        refused = refused or _cannot_execute(program, why)
    if refused:
        raise refused
    where = "" if "/" in name else " in PATH"
    raise DetourError(
        "command",
        f"command not found{where}: {quoted(name)}",
        "correct it, or install it in the image",
        status=STATUS_NOT_FOUND,
    )


def _why_not(program: bytes) -> str:
    """Say why a file cannot be executed; empty when nothing is to be seen against it.

    Raises:
        FileNotFoundError: when there is none; NotADirectoryError: when there cannot be.

    """
    try:
        mode = os.stat(program).st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        return words(error)
    if stat.S_ISDIR(mode):
        return "it is a directory"
    if not stat.S_ISREG(mode):
        return "it is not a regular file"
    # The second looks with the capabilities of a user who is not root, as exec will; old seccomp filters refuse it.
    if os.access(program, os.X_OK) or os.access(program, os.X_OK, effective_ids=True):
        return ""
    if os.statvfs(program).f_flag & os.ST_NOEXEC:
        return "its file system is mounted noexec"
    return "it is not executable: `chmod +x` it"


def _shown(path: bytes) -> str:
    return quoted(os.fsdecode(path), 200)


def _cannot_execute(program: bytes, why: str) -> DetourError:
    who = "" if os.geteuid() == 0 else f" (as uid {os.geteuid()})"
    return DetourError("command", f"cannot execute {_shown(program)}: {why}{who}", status=STATUS_CANNOT_EXECUTE)


def is_text(program: bytes) -> bool:
    """Whether a file that the kernel does not know may be a script without "#!"; anything binary is none."""
    head = _head(program)
    return not head.startswith(b"\x7fELF") and b"\0" not in head.partition(b"\n")[0]


def explain(program: bytes, error: OSError, *, by_shell: bool = False) -> DetourError:
    """Return what to tell the user when execve(2) refuses a program: status 126, or 127 when a file is missing.

    Args:
        program: what was to be executed.
        error: what the kernel said.
        by_shell: whether it said so of /bin/sh, which was to run the program.

    """
    if by_shell:
        return _cannot_execute(program, f"it has no `#!` line, and /bin/sh cannot run it: {words(error)}")
    cannot = f"cannot execute {_shown(program)}"
    interpreter = _interpreter(program)
    if error.errno == errno.ENOENT and interpreter:
        reason = f"{cannot}: its interpreter {_shown(interpreter)} is not there"
        if interpreter.endswith(b"\r"):
            remedy = "its lines end as on Windows (\\r\\n): convert it, for example by `sed -i 's/\\r$//'`"
        else:
            remedy = "correct its first line, or install it"
        return DetourError("command", reason, remedy, status=STATUS_NOT_FOUND)
    if error.errno == errno.ENOENT:
        reason = f"{cannot}: it, or the loader that it is linked to, is not there"
        return DetourError("command", reason, "was it built for another libc?", status=STATUS_NOT_FOUND)
    if error.errno == errno.ENOEXEC:
        machine = os.uname().machine
        why = f"it is no program for this machine ({machine}): was the image built for another platform?"
        return _cannot_execute(program, why)
    whose = f"its interpreter {_shown(interpreter)}: " if interpreter else ""
    return _cannot_execute(program, whose + words(error))


def _interpreter(program: bytes) -> bytes:
    """Return what a "#!" line names, as the kernel reads it; empty when there is no such line.

    An interpreter may be a script itself: then the last one of the chain is what the kernel wanted and did not get.
    """
    found = b""
    for _ in range(5):  # linux/fs/exec.c: after that many it gives up with ELOOP
        head = _head(found or program)
        if not head.startswith(b"#!"):
            break
        words = head[2:].split(b"\n")[0].replace(b"\t", b" ").split(b" ")
        found = next(filter(None, words), b"")
    return found


def _head(program: bytes) -> bytes:
    try:
        with open(program, "rb") as file:
            return file.read(BINPRM_BUF_SIZE)
    except OSError:
        return b""
