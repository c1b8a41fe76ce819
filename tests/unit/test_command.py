"""The command as a value: the program that execvp(3) would execute."""

import errno
import os
from pathlib import Path

import pytest

from imds_detour.advice import programs
from imds_detour.process import command


@pytest.mark.parametrize(
    ("number", "status"), [(errno.ENOENT, 127), (errno.ENOEXEC, 126), (errno.EACCES, 126), (errno.E2BIG, 126)]
)
def test_errno_of_execve_becomes_a_status(number: int, status: int) -> None:
    """The status is 127 for a missing file, and 126 for every other refusal. E2BIG is in the system's text."""
    error = programs.explain(b"/bin/true", OSError(number, os.strerror(number)))
    assert (error.step, error.status) == ("command", status)
    if number == errno.E2BIG:
        assert error.reason == "cannot execute '/bin/true': argument list too long"


def test_missing_shell_or_loop_of_interpreters_is_the_reason(tmp_path: Path) -> None:
    """Without /bin/sh, a script without `#!` fails for it; one that is its own interpreter gets 126, and it returns."""
    file = tmp_path / "file"
    error = command.refused(bytes(file), OSError(errno.ENOENT, os.strerror(errno.ENOENT)), by_shell=True)
    assert error.reason.endswith(": it has no `#!` line, and /bin/sh cannot run it: no such file or directory")
    file.write_text(f"#!{file}\n")
    assert programs.explain(bytes(file), OSError(errno.ELOOP, os.strerror(errno.ELOOP))).status == 126


@pytest.mark.parametrize(
    ("content", "text"),
    [(b"", True), (b"echo\n", True), (b"\x7fELF", False), (b"a\0", False), (b"#!\n\0", True), (b"\xff\xfe", True)],
)
def test_is_text_recognises_a_script(tmp_path: Path, content: bytes, text: bool) -> None:
    """A script has no ELF header, and no NUL in its first line; its encoding does not matter."""
    file = tmp_path / "file"
    file.write_bytes(content)
    assert command.is_text(bytes(file)) is text
