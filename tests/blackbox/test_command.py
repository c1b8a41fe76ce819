"""The app's command is found as by execvp(3). If it cannot be executed, a line says why and the status is a shell's."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.blackbox.test_handover import NAIVE
from tests.support.hosts.network import DETOUR, SETTINGS, Network


def refused(done: subprocess.CompletedProcess[bytes], status: int, *, by_the_kernel: bool = False) -> str:
    """Return the error's message of a start that failed with this status; a failed exec has its announcement first."""
    assert (done.returncode, done.stdout) == (status, b""), done.stderr
    *before, line, end = done.stderr.decode().split("\n")
    assert (len(before), end) == (int(by_the_kernel), "")
    assert line.startswith("imds-detour: ")
    return line.removeprefix("imds-detour: ")


@pytest.mark.parametrize("words", [(), ("--",)])
def test_missing_command_gets_a_compose_hint(running: Network, words: tuple[str, ...]) -> None:
    """Without a command the message explains that Compose's ``entrypoint:`` discards the image's CMD."""
    line = refused(running.raw(DETOUR, *words, environ=SETTINGS), 125)
    assert line == (
        "no command to run; put it after imds-detour, in CMD, or in Compose's `command:`"
        " (`entrypoint:` discards the image's CMD)"
    )


@pytest.mark.parametrize("name", ["", "no-such-command", "/no/such/command", "./no-such-command", "/etc/passwd/x"])
def test_missing_program_is_127(running: Network, name: str) -> None:
    """A program that does not exist gives status 127, as in a shell."""
    where = "" if "/" in name else " in PATH"
    assert refused(running.raw(DETOUR, name, environ=SETTINGS), 127).startswith(f"command not found{where}: {name!r}; ")


def test_missing_program_is_noticed_before_any_change(network: Network) -> None:
    """A missing program is noticed before the DNS lookup and before any rule."""
    assert (network.detour("no-such-command").returncode, network.detour_rules()) == (127, "")


def program(path: Path, content: bytes, mode: int = 0o755) -> str:
    """Write a file with a mode and return its path."""
    path.write_bytes(content)
    path.chmod(mode)
    return str(path)


def foreign_elf() -> bytes:
    """Return a valid program for another machine."""
    with open("/bin/true", "rb") as file:
        data = bytearray(file.read())
    aarch64, x86_64 = 183, 62  # linux/elf-em.h
    machine = int.from_bytes(data[18:20], sys.byteorder)  # e_machine
    data[18:20] = (x86_64 if machine == aarch64 else aarch64).to_bytes(2, sys.byteorder)
    return bytes(data)


@pytest.mark.parametrize(
    ("script", "status", "reason"),
    [
        ('mkdir "$1"', 126, "cannot execute {!r}: it is a directory"),
        ('echo "#!/bin/sh" >"$1"', 126, "cannot execute {!r}: it is not executable: `chmod +x` it"),
        ('ln -s "$1" "$1"', 126, "cannot execute {!r}: too many levels of symbolic links"),
        ('ln -s nowhere "$1"', 127, "command not found: {!r}; "),
    ],
    ids=["directory", "not executable", "symlink loop", "dangling symlink"],
)
def test_path_without_program_is_refused(
    running: Network, tmp_path: Path, script: str, status: int, reason: str
) -> None:
    """A path without an executable program gives status 126 or 127 and the reason, as in execvp(3)."""
    path = str(tmp_path / "tool")
    subprocess.run(("sh", "-c", script, "sh", path), check=True)
    assert refused(running.raw(DETOUR, path, environ=SETTINGS), status).startswith(reason.format(path))


def test_file_on_a_noexec_mount_is_126(running: Network) -> None:
    """A file on a noexec mount gives status 126 and does not suggest chmod."""
    script = "mkdir -p /run/noexec && mount -t tmpfs -o noexec tmpfs /run/noexec && cp /bin/true /run/noexec/true"
    running.app.run("sh", "-c", script)
    line = refused(running.raw(DETOUR, "/run/noexec/true", environ=SETTINGS), 126)
    assert line == "cannot execute '/run/noexec/true': its file system is mounted noexec"


def test_program_for_another_machine_is_126(running: Network, tmp_path: Path) -> None:
    """A program for another machine gives status 126 and a hint at the image's platform."""
    path = program(tmp_path / "foreign", foreign_elf())
    line = refused(running.raw(DETOUR, path, environ=SETTINGS), 126, by_the_kernel=True)
    machine = os.uname().machine
    assert line == (
        f"cannot execute {path!r}: it is not a program for this machine ({machine}):"
        " was the image built for another platform?"
    )


@pytest.mark.parametrize(
    ("content", "status", "reason"),
    [
        *(
            (content, 126, "")
            for content in (b"\x7fELF", b"\x7fELF\x02\x01\x01" + bytes(200), b"\x7fELF" + b"\xff" * 300)
        ),
        *((content, 126, "") for content in (b"MZ\x90\0\3\0\0\0", b"\0\0")),
        (b"#! \t/no/such/interpreter -x\n", 127, "its interpreter '/no/such/interpreter' does not exist; "),
        (b"#!/bin/sh\r\necho\r\n", 127, "its interpreter '/bin/sh\\r' does not exist; it has Windows line endings"),
        (b"#!/etc/passwd\n", 126, "its interpreter '/etc/passwd': permission denied"),
    ],
    ids=["magic", "zeros", "ones", "windows", "nul", "no interpreter", "line endings", "interpreter not executable"],
)
def test_corrupt_program_or_bad_interpreter_is_named(
    running: Network, tmp_path: Path, content: bytes, status: int, reason: str
) -> None:
    """A corrupt program gives status 126, and no shell reads it; a bad interpreter gives 126 or 127 and is named."""
    path = program(tmp_path / "program", content)
    line = refused(running.raw(DETOUR, path, environ=SETTINGS), status, by_the_kernel=True)
    assert line.startswith(f"cannot execute {path!r}: {reason}")


def test_missing_interpreter_of_an_interpreter_is_named(running: Network, tmp_path: Path) -> None:
    """If a script's interpreter is a script with a missing interpreter, that one is named."""
    inner = program(tmp_path / "inner", b"#!/no/such/interpreter\n")
    outer = program(tmp_path / "outer", f"#!{inner}\n".encode())
    assert "'/no/such/interpreter' does not exist" in refused(
        running.raw(DETOUR, outer, environ=SETTINGS), 127, by_the_kernel=True
    )


@pytest.mark.parametrize("content", [b"printf '%s,' \"$@\"\n", b"#!\nprintf '%s,' \"$@\"\n"], ids=["none", "empty"])
def test_script_without_an_interpreter_is_run_by_sh(running: Network, tmp_path: Path, content: bytes) -> None:
    """Sh runs a script without an interpreter, as execvp(3) does. Negative control: Python's execvp does not."""
    path = program(tmp_path / "script", content)
    done = running.raw(DETOUR, path, "", "two words", "-x", environ=SETTINGS)
    assert (done.returncode, done.stdout) == (0, b",two words,-x,")
    naive = running.raw(sys.executable, "-c", NAIVE, path, environ=SETTINGS)
    assert (naive.returncode, naive.stdout, b"Exec format error" in naive.stderr) == (1, b"", True)


def with_path(network: Network, path: str) -> subprocess.CompletedProcess[bytes]:
    """Run ``tool`` with a PATH."""
    return network.raw(DETOUR, "tool", environ={**SETTINGS, "PATH": path})


@pytest.mark.parametrize("path", ["{0}/none:{0}/a:{0}/b", "/etc/passwd:{0}/a", "{0}/dangling:{0}/a", "{0}/x:{0}/a"])
def test_path_search_skips_what_is_not_executable(running: Network, tmp_path: Path, path: str) -> None:
    """The search of PATH skips missing folders, files as folders, dangling links and plain files."""
    for name in ("a", "b", "x", "dangling"):
        (tmp_path / name).mkdir()
    program(tmp_path / "a/tool", b"#!/bin/sh\necho a\n")
    program(tmp_path / "b/tool", b"#!/bin/sh\necho b\n")
    program(tmp_path / "x/tool", b"#!/bin/sh\necho x\n", 0o644)
    (tmp_path / "dangling/tool").symlink_to("nowhere")
    assert with_path(running, path.format(tmp_path)).stdout == b"a\n"


def test_path_search_reports_the_first_refusal(running: Network, tmp_path: Path) -> None:
    """If PATH holds only files that are not executable, the first one is reported with status 126."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        program(tmp_path / name / "tool", b"#!/bin/sh\n", 0o600)
    line = refused(with_path(running, f"{tmp_path}/none:{tmp_path}/one:{tmp_path}/two:"), 126)
    assert line.startswith(f"cannot execute '{tmp_path}/one/tool': ")


@pytest.mark.parametrize("path", ["", ":/bin", "/none:", "/none::/bin"])
def test_empty_path_component_is_the_working_directory(running: Network, tmp_path: Path, path: str) -> None:
    """An empty component of PATH means the working directory. An empty PATH is one empty component."""
    program(tmp_path / "tool", b"#!/bin/sh\necho here\n")
    command = f"cd {tmp_path} && PATH={path} exec {DETOUR} tool"
    assert running.raw("sh", "-c", command, environ=SETTINGS).stdout == b"here\n"


def test_missing_path_means_the_system_folders_and_a_slash_no_search(running: Network, tmp_path: Path) -> None:
    """Without PATH, /bin and /usr/bin are searched, not the working directory, but for a name with a slash."""
    program(tmp_path / "tool", b"#!/bin/sh\necho here\n")
    for name, status in (("tool", 127), ("true", 0)):
        command = f"cd {tmp_path} && unset PATH && exec {DETOUR} {name}"
        assert running.raw("sh", "-c", command, environ=SETTINGS).returncode == status
    (tmp_path / "folder").mkdir()
    program(tmp_path / "folder/tool", b"#!/bin/sh\necho searched\n")
    environ = {**SETTINGS, "PATH": f"{tmp_path}:{SETTINGS['PATH']}"}
    assert refused(running.raw(DETOUR, "folder/tool", environ=environ), 127).startswith("command not found: ")
