"""The command as a value: what execvp(3) would run, found without running it."""

import errno
import os
from pathlib import Path

import pytest

from imds_detour.errors import DetourError
from imds_detour.process import command


def test_argv_is_kept_and_the_program_is_beside_it() -> None:
    """The name that the user wrote stays argv[0]."""
    found = command.find(["sh", "", "-x", "\udcff"], "/nowhere:/bin")
    assert found == command.Command((b"sh", b"", b"-x", b"\xff"), b"/bin/sh")


@pytest.mark.parametrize("path", [None, "/bin:/usr/bin"])
def test_without_path_the_systems_default_holds(path: str | None) -> None:
    """As in the C library."""
    assert command.find(["sh"], path).program == b"/bin/sh"


def test_an_empty_component_gives_a_name_without_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which the kernel then finds in the working directory."""
    (tmp_path / "tool").touch(0o755)
    monkeypatch.chdir(tmp_path)
    assert command.find(["tool"], "/nowhere:").program == b"tool"


@pytest.mark.parametrize(
    ("number", "status"), [(errno.ENOENT, 127), (errno.ENOEXEC, 126), (errno.EACCES, 126), (errno.E2BIG, 126)]
)
def test_what_the_kernel_says_becomes_a_status(number: int, status: int) -> None:
    """127 for what is not there, 126 for what cannot be run."""
    error = command.explain(b"/bin/true", OSError(number, os.strerror(number)))
    assert (error.step, error.status) == ("command", status)


def test_too_long_a_command_line_is_said_to_be() -> None:
    """In the kernel's words."""
    error = command.explain(b"/bin/true", OSError(errno.E2BIG, os.strerror(errno.E2BIG)))
    assert error.reason == "cannot execute '/bin/true': argument list too long"


def test_a_missing_shell_is_not_taken_for_a_missing_script(tmp_path: Path) -> None:
    """An image without /bin/sh cannot run a script without a first line that says by what."""
    error = command.explain(bytes(tmp_path / "script"), OSError(errno.ENOENT, os.strerror(errno.ENOENT)), by_shell=True)
    assert error.reason.endswith(": it has no `#!` line, and /bin/sh cannot run it: no such file or directory")


@pytest.mark.parametrize(
    ("content", "text"),
    [(b"", True), (b"echo\n", True), (b"\x7fELF", False), (b"a\0", False), (b"#!\n\0", True), (b"\xff\xfe", True)],
)
def test_text_is_what_a_shell_may_read(tmp_path: Path, content: bytes, text: bool) -> None:
    """No ELF header, and no NUL in the first line; encodings are the shell's business."""
    file = tmp_path / "file"
    file.write_bytes(content)
    assert command.is_text(bytes(file)) is text


def test_a_loop_of_interpreters_is_looked_at_for_a_while_only(tmp_path: Path) -> None:
    """A script that names itself."""
    file = tmp_path / "file"
    file.write_text(f"#!{file}\n")
    error = command.explain(bytes(file), OSError(errno.ELOOP, os.strerror(errno.ELOOP)))
    assert isinstance(error, DetourError)
    assert error.status == 126
