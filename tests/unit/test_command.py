"""The command: what execvp(3) would execute, found without executing it."""

import errno
import os
from pathlib import Path

import pytest

from imds_detour.errors import DetourError
from imds_detour.process import command


def test_command_keeps_argv_as_written() -> None:
    """argv[0] stays the user's name, and the program's path is separate."""
    result = command.find(["sh", "", "-x", "\udcff"], "/nowhere:/bin")
    assert result == command.Command((b"sh", b"", b"-x", b"\xff"), b"/bin/sh")


@pytest.mark.parametrize("path", [None, "/bin:/usr/bin"])
def test_missing_path_means_the_c_library_default(path: str | None) -> None:
    """Without PATH, programs are searched in the default of the C library."""
    assert command.find(["sh"], path).program == b"/bin/sh"


def test_empty_path_component_gives_a_relative_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty component of PATH gives a relative name, which the kernel looks up in the working directory."""
    (tmp_path / "tool").touch(0o755)
    monkeypatch.chdir(tmp_path)
    assert command.find(["tool"], "/nowhere:").program == b"tool"


@pytest.mark.parametrize(
    ("number", "status"), [(errno.ENOENT, 127), (errno.ENOEXEC, 126), (errno.EACCES, 126), (errno.E2BIG, 126)]
)
def test_exec_error_maps_to_126_or_127(number: int, status: int) -> None:
    """The status is 127 for a missing program and 126 for one that cannot be executed."""
    error = command.explain(b"/bin/true", OSError(number, os.strerror(number)))
    assert (error.step, error.status) == ("command", status)


def test_too_long_command_line_has_the_kernels_reason() -> None:
    """For a too long command line the reason is the kernel's: argument list too long."""
    error = command.explain(b"/bin/true", OSError(errno.E2BIG, os.strerror(errno.E2BIG)))
    assert error.reason == "cannot execute '/bin/true': argument list too long"


def test_missing_shell_is_named(tmp_path: Path) -> None:
    """For a script without a #! line in an image without /bin/sh, the reason names the missing /bin/sh."""
    error = command.explain(bytes(tmp_path / "script"), OSError(errno.ENOENT, os.strerror(errno.ENOENT)), by_shell=True)
    assert error.reason.endswith(": it has no `#!` line, and /bin/sh cannot run it: no such file or directory")


@pytest.mark.parametrize(
    ("content", "text"),
    [(b"", True), (b"echo\n", True), (b"\x7fELF", False), (b"a\0", False), (b"#!\n\0", True), (b"\xff\xfe", True)],
)
def test_text_has_no_elf_header_and_no_early_nul(tmp_path: Path, content: bytes, text: bool) -> None:
    """is_text() refuses an ELF header and a NUL in the first line, and accepts any encoding."""
    file = tmp_path / "file"
    file.write_bytes(content)
    assert command.is_text(bytes(file)) is text


def test_interpreter_loop_is_an_error(tmp_path: Path) -> None:
    """A script that is its own interpreter is an error with status 126."""
    file = tmp_path / "file"
    file.write_text(f"#!{file}\n")
    error = command.explain(bytes(file), OSError(errno.ELOOP, os.strerror(errno.ELOOP)))
    assert isinstance(error, DetourError)
    assert error.status == 126
