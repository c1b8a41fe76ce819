"""The app's command: find its program as execvp(3) does, and explain a refusal by the kernel."""

from __future__ import annotations

import errno
import os
import stat

from imds_detour.errors import STATUS_CANNOT_EXECUTE, STATUS_NOT_FOUND, DetourError, error_text
from imds_detour.system.capabilities import NET_ADMIN, sets
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
        refused = refused or _cannot_execute(program, obstacle)
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


def _shown(path: bytes) -> str:
    return quoted(os.fsdecode(path), 200)


def _cannot_execute(program: bytes, reason: str) -> DetourError:
    user = "" if os.geteuid() == 0 else f" (as uid {os.geteuid()})"
    return DetourError("command", f"cannot execute {_shown(program)}: {reason}{user}", status=STATUS_CANNOT_EXECUTE)


def is_text(program: bytes) -> bool:
    """Whether a file that the kernel does not recognise may be a script without "#!", and not a binary file."""
    head = _head(program)
    return not head.startswith(b"\x7fELF") and b"\0" not in head.partition(b"\n")[0]


def explain(program: bytes, error: OSError, *, by_shell: bool = False) -> DetourError:
    """Return the error for a refusal by execve(2), of /bin/sh with ``by_shell``: status 126, or 127 without a file."""
    if by_shell:
        return _cannot_execute(program, f"it has no `#!` line, and /bin/sh cannot run it: {error_text(error)}")
    cannot = f"cannot execute {_shown(program)}"
    interpreter = _interpreter(program)
    if error.errno == errno.ENOENT:
        subject, remedy = "it, or its dynamic loader,", "was it built for another libc?"
        if interpreter:
            subject, remedy = f"its interpreter {_shown(interpreter)}", "correct its first line, or install it"
        if interpreter.endswith(b"\r"):
            remedy = "it has Windows line endings (\\r\\n): convert it, for example with `sed -i 's/\\r$//'`"
        return DetourError("command", f"{cannot}: {subject} does not exist", remedy, status=STATUS_NOT_FOUND)
    if error.errno == errno.ENOEXEC:
        machine = f"this machine ({os.uname().machine})"
        return _cannot_execute(program, f"it is not a program for {machine}: was the image built for another platform?")
    file = interpreter or program
    if error.errno == errno.EPERM and (forbidden := _forbidden_capabilities(file)):
        name, give = "a capability that this container lacks", "add it to the container (`cap_add`)"
        if forbidden & NET_ADMIN:
            name, give = "NET_ADMIN, which imds-detour drops", "let the app keep it (MOCK_KEEP_NET_ADMIN=1)"
        reason = f"{cannot}: {error_text(error)}, because the file gives itself {name}"
        remedy = f"{give}, or take it from the file in the image: `setcap -r {os.fsdecode(file)}`"
        return DetourError("command", reason, remedy, status=STATUS_CANNOT_EXECUTE)
    subject = f"its interpreter {_shown(interpreter)}: " if interpreter else ""
    return _cannot_execute(program, subject + error_text(error))


def _forbidden_capabilities(program: bytes) -> int:
    """Return a file's capabilities that are outside of the bounding set, as a mask; execve(2) fails with EPERM then."""
    try:
        data = os.getxattr(program, "security.capability")
    except OSError:
        return 0
    # linux/capability.h, struct vfs_cap_data: flags, then permitted and inheritable, once or twice, of 32 bits each
    permitted = int.from_bytes(data[4:8], "little") | int.from_bytes(data[12:16], "little") << 32
    return permitted & ~sets()["CapBnd"] if data[0] & 1 else 0


def _interpreter(program: bytes) -> bytes:
    """Return the last interpreter in a chain of "#!" lines, as the kernel reads them; empty without such a line."""
    interpreter = b""
    for _ in range(5):  # linux/fs/exec.c: after that many it fails with ELOOP
        head = _head(interpreter or program)
        if not head.startswith(b"#!"):
            break
        parts = head[2:].split(b"\n")[0].replace(b"\t", b" ").split(b" ")
        interpreter = next(filter(None, parts), b"")
    return interpreter


def _head(program: bytes) -> bytes:
    try:
        return read(program, BINPRM_BUF_SIZE)
    except OSError:
        return b""
