"""The app's command is found as by execvp(3); when it cannot be run, the status is a shell's and a line says why."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.hosts.network import DETOUR, SETTINGS

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from tests.support.hosts.network import Network


def refused(done: subprocess.CompletedProcess[bytes], status: int, *, by_the_kernel: bool = False) -> str:
    """Return what a start says that failed with this status and printed nothing on stdout.

    What the kernel alone can tell comes at exec, behind the line that announces it.
    """
    assert (done.returncode, done.stdout) == (status, b""), done.stderr
    *before, line, end = done.stderr.decode().split("\n")
    assert (len(before), end) == (int(by_the_kernel), "")
    assert line.startswith("imds-detour: ")
    return line.removeprefix("imds-detour: ")


@pytest.mark.parametrize("words", [(), ("--",)])
def test_no_command_is_an_error_with_the_compose_hint(running: Network, words: tuple[str, ...]) -> None:
    """Compose's ``entrypoint:`` clears the image's CMD, which is how people come here."""
    line = refused(running.raw(DETOUR, *words, environ=SETTINGS), 125)
    assert line == (
        "no command to run; put it after imds-detour, in CMD, or in Compose's `command:`"
        " (`entrypoint:` discards the image's CMD)"
    )


@pytest.mark.parametrize("name", ["", "no-such-command", "/no/such/command", "./no-such-command", "/etc/passwd/x"])
def test_a_command_that_is_not_there_is_127(running: Network, name: str) -> None:
    """As a shell has it."""
    where = "" if "/" in name else " in PATH"
    assert refused(running.raw(DETOUR, name, environ=SETTINGS), 127).startswith(f"command not found{where}: {name!r}; ")


def test_a_command_that_is_not_there_is_noticed_before_anything_is_touched(network: Network) -> None:
    """No DNS server, no mock: the command is looked for first, and the firewall stays as it was."""
    done = network.detour("no-such-command")
    assert (done.returncode, network.ours()) == (127, "")


def program(path: Path, content: bytes, mode: int = 0o755) -> str:
    """Write a file with a mode and return its path."""
    path.write_bytes(content)
    path.chmod(mode)
    return str(path)


def foreign_elf() -> bytes:
    """Return a program that is fine but for its machine."""
    with open("/bin/true", "rb") as file:
        data = bytearray(file.read())
    aarch64, x86_64 = 183, 62  # linux/elf-em.h
    here = int.from_bytes(data[18:20], sys.byteorder)  # e_machine
    data[18:20] = (x86_64 if here == aarch64 else aarch64).to_bytes(2, sys.byteorder)
    return bytes(data)


def test_a_directory_is_126(running: Network, tmp_path: Path) -> None:
    """Named by its path."""
    line = refused(running.raw(DETOUR, str(tmp_path), environ=SETTINGS), 126)
    assert line == f"cannot execute {str(tmp_path)!r}: it is a directory"


def test_a_file_that_is_not_executable_is_126(running: Network, tmp_path: Path) -> None:
    """With the command that makes it so."""
    path = program(tmp_path / "plain", b"#!/bin/sh\n", 0o644)
    assert (
        refused(running.raw(DETOUR, path, environ=SETTINGS), 126)
        == f"cannot execute {path!r}: it is not executable: `chmod +x` it"
    )


def test_a_file_on_a_noexec_mount_is_126(running: Network) -> None:
    """No chmod would help there, and the message does not say so."""
    script = "mkdir -p /run/noexec && mount -t tmpfs -o noexec tmpfs /run/noexec && cp /bin/true /run/noexec/true"
    running.app.run("sh", "-c", script)
    line = refused(running.raw(DETOUR, "/run/noexec/true", environ=SETTINGS), 126)
    assert line == "cannot execute '/run/noexec/true': its file system is mounted noexec"


def test_a_symlink_loop_is_126(running: Network, tmp_path: Path) -> None:
    """In the kernel's words."""
    (tmp_path / "loop").symlink_to("loop")
    line = refused(running.raw(DETOUR, str(tmp_path / "loop"), environ=SETTINGS), 126)
    assert line.endswith(": too many levels of symbolic links")


def test_a_dangling_symlink_is_127(running: Network, tmp_path: Path) -> None:
    """There is nothing to execute, as execvp(3) sees it."""
    (tmp_path / "dangling").symlink_to("nowhere")
    assert refused(running.raw(DETOUR, str(tmp_path / "dangling"), environ=SETTINGS), 127).startswith(
        "command not found: "
    )


def test_a_program_for_another_machine_is_126(running: Network, tmp_path: Path) -> None:
    """With the hint at the image's platform."""
    path = program(tmp_path / "foreign", foreign_elf())
    line = refused(running.raw(DETOUR, path, environ=SETTINGS), 126, by_the_kernel=True)
    machine = os.uname().machine
    assert line == (
        f"cannot execute {path!r}: it is not a program for this machine ({machine}):"
        " was the image built for another platform?"
    )


@pytest.mark.parametrize(
    "content",
    [b"\x7fELF", b"\x7fELF\x02\x01\x01" + bytes(200), b"\x7fELF" + b"\xff" * 300, b"MZ\x90\0\3\0\0\0", b"\0\0"],
    ids=["magic only", "zeros", "ones", "windows", "nul"],
)
def test_a_corrupt_program_is_126(running: Network, tmp_path: Path, content: bytes) -> None:
    """And no shell gets to read binary as if it were a script."""
    path = program(tmp_path / "corrupt", content)
    line = refused(running.raw(DETOUR, path, environ=SETTINGS), 126, by_the_kernel=True)
    assert line.startswith(f"cannot execute {path!r}: ")


def test_a_missing_interpreter_is_127_and_named(running: Network, tmp_path: Path) -> None:
    """The script itself is there, and "not found" alone would be puzzling."""
    path = program(tmp_path / "script", b"#! \t/no/such/interpreter -x\n")
    line = refused(running.raw(DETOUR, path, environ=SETTINGS), 127, by_the_kernel=True)
    assert line.startswith(f"cannot execute {path!r}: its interpreter '/no/such/interpreter' does not exist; ")


def test_the_missing_one_in_a_chain_of_interpreters_is_named(running: Network, tmp_path: Path) -> None:
    """A script's interpreter may be a script, whose interpreter is not there."""
    inner = program(tmp_path / "inner", b"#!/no/such/interpreter\n")
    outer = program(tmp_path / "outer", f"#!{inner}\n".encode())
    assert "'/no/such/interpreter' does not exist" in refused(
        running.raw(DETOUR, outer, environ=SETTINGS), 127, by_the_kernel=True
    )


def test_windows_line_ends_are_recognised(running: Network, tmp_path: Path) -> None:
    """The interpreter that is not there is ``/bin/sh`` with a carriage return."""
    path = program(tmp_path / "script", b"#!/bin/sh\r\necho\r\n")
    line = refused(running.raw(DETOUR, path, environ=SETTINGS), 127, by_the_kernel=True)
    assert "its interpreter '/bin/sh\\r' does not exist; it has Windows line endings" in line


def test_an_interpreter_that_cannot_be_executed_is_126_and_named(running: Network, tmp_path: Path) -> None:
    """The script's own mode is fine, so "permission denied" alone would be puzzling."""
    path = program(tmp_path / "script", b"#!/etc/passwd\n")
    line = refused(running.raw(DETOUR, path, environ=SETTINGS), 126, by_the_kernel=True)
    assert line == f"cannot execute {path!r}: its interpreter '/etc/passwd': permission denied"


@pytest.mark.parametrize("content", [b"printf '%s,' \"$@\"\n", b"#!\nprintf '%s,' \"$@\"\n"], ids=["none", "empty"])
def test_a_script_without_an_interpreter_is_run_by_sh(running: Network, tmp_path: Path, content: bytes) -> None:
    """As execvp(3) does, arguments included."""
    path = program(tmp_path / "script", content)
    done = running.raw(DETOUR, path, "", "two words", "-x", environ=SETTINGS)
    assert (done.returncode, done.stdout) == (0, b",two words,-x,")


NAIVE = "import os, sys; os.execvp(sys.argv[1], sys.argv[1:])"


def test_a_naive_wrapper_cannot_run_it(running: Network, tmp_path: Path) -> None:
    """Negative control: Python's execvp is not execvp(3)."""
    path = program(tmp_path / "script", b"echo started\n")
    done = running.raw(sys.executable, "-c", NAIVE, path, environ=SETTINGS)
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"Exec format error" in done.stderr


def with_path(network: Network, path: str) -> subprocess.CompletedProcess[bytes]:
    """Run ``tool`` with a PATH."""
    return network.raw(DETOUR, "tool", environ={**SETTINGS, "PATH": path})


@pytest.mark.parametrize("path", ["{0}/none:{0}/a:{0}/b", "/etc/passwd:{0}/a", "{0}/dangling:{0}/a", "{0}/x:{0}/a"])
def test_what_is_not_executable_is_passed_over_in_path(running: Network, tmp_path: Path, path: str) -> None:
    """Missing folders, folders that are none, dangling links and plain files do not end the search."""
    for name in ("a", "b", "x", "dangling"):
        (tmp_path / name).mkdir()
    program(tmp_path / "a/tool", b"#!/bin/sh\necho a\n")
    program(tmp_path / "b/tool", b"#!/bin/sh\necho b\n")
    program(tmp_path / "x/tool", b"#!/bin/sh\necho x\n", 0o644)
    (tmp_path / "dangling/tool").symlink_to("nowhere")
    assert with_path(running, path.format(tmp_path)).stdout == b"a\n"


def test_the_first_refusal_in_path_is_remembered(running: Network, tmp_path: Path) -> None:
    """Where nothing better comes, 126 for the first that was there, not 127."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        program(tmp_path / name / "tool", b"#!/bin/sh\n", 0o600)
    line = refused(with_path(running, f"{tmp_path}/none:{tmp_path}/one:{tmp_path}/two:"), 126)
    assert line.startswith(f"cannot execute '{tmp_path}/one/tool': ")


@pytest.mark.parametrize("path", ["", ":/bin", "/none:", "/none::/bin"])
def test_an_empty_component_of_path_is_the_working_directory(running: Network, tmp_path: Path, path: str) -> None:
    """An empty PATH is one empty component, as in execvp(3)."""
    program(tmp_path / "tool", b"#!/bin/sh\necho here\n")
    command = f"cd {tmp_path} && PATH={path} exec {DETOUR} tool"
    assert running.raw("sh", "-c", command, environ=SETTINGS).stdout == b"here\n"


def test_without_path_the_systems_folders_are_searched(running: Network, tmp_path: Path) -> None:
    """/bin and /usr/bin, and not the working directory."""
    program(tmp_path / "tool", b"#!/bin/sh\necho here\n")
    for name, status in (("tool", 127), ("true", 0)):
        command = f"cd {tmp_path} && unset PATH && exec {DETOUR} {name}"
        assert running.raw("sh", "-c", command, environ=SETTINGS).returncode == status


def test_a_name_with_a_slash_is_not_searched_for(running: Network, tmp_path: Path) -> None:
    """It is relative to the working directory, whatever PATH says."""
    (tmp_path / "folder").mkdir()
    program(tmp_path / "folder/tool", b"#!/bin/sh\necho searched\n")
    environ = {**SETTINGS, "PATH": f"{tmp_path}:{SETTINGS['PATH']}"}
    assert refused(running.raw(DETOUR, "folder/tool", environ=environ), 127).startswith("command not found: ")
