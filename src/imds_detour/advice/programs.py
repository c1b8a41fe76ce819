"""Why the kernel refuses a program: its interpreter, its platform, or its capabilities."""

from __future__ import annotations

import errno
import os

from imds_detour.errors import STATUS_CANNOT_EXECUTE, STATUS_NOT_FOUND, DetourError, error_text
from imds_detour.process.command import cannot_execute, head, shown
from imds_detour.system.capabilities import NET_ADMIN, sets


def explain(program: bytes, error: OSError) -> DetourError:
    """Return the error for a refusal by execve(2): status 126, or 127 without a file."""
    cannot = f"cannot execute {shown(program)}"
    interpreter = _interpreter(program)
    if error.errno == errno.ENOENT:
        subject, remedy = "it, or its dynamic loader,", "was it built for another libc?"
        if interpreter:
            subject, remedy = f"its interpreter {shown(interpreter)}", "correct its first line, or install it"
        if interpreter.endswith(b"\r"):
            remedy = "it has Windows line endings (\\r\\n): convert it, for example with `sed -i 's/\\r$//'`"
        return DetourError("command", f"{cannot}: {subject} does not exist", remedy, status=STATUS_NOT_FOUND)
    if error.errno == errno.ENOEXEC:
        machine = f"this machine ({os.uname().machine})"
        return cannot_execute(program, f"it is not a program for {machine}: was the image built for another platform?")
    file = interpreter or program
    if error.errno == errno.EPERM and (forbidden := _forbidden_capabilities(file)):
        name, give = "a capability that this container lacks", "add it to the container (`cap_add`)"
        if forbidden & NET_ADMIN:
            name, give = "NET_ADMIN, which imds-detour drops", "let the app keep it (MOCK_KEEP_NET_ADMIN=1)"
        reason = f"{cannot}: {error_text(error)}, because the file gives itself {name}"
        remedy = f"{give}, or take it from the file in the image: `setcap -r {os.fsdecode(file)}`"
        return DetourError("command", reason, remedy, status=STATUS_CANNOT_EXECUTE)
    subject = f"its interpreter {shown(interpreter)}: " if interpreter else ""
    return cannot_execute(program, subject + error_text(error))


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
        start = head(interpreter or program)
        if not start.startswith(b"#!"):
            break
        parts = start[2:].split(b"\n")[0].replace(b"\t", b" ").split(b" ")
        interpreter = next(filter(None, parts), b"")
    return interpreter
