"""The system as imds-detour sees it: files that never end, a kernel with fewer capability sets, and an emulator."""

import os
from pathlib import Path

import pytest

from imds_detour.advice import access, failure
from imds_detour.errors import DetourError
from imds_detour.system import capabilities, files


def make(kind: str, folder: Path) -> str:
    """Return the path of a file of this kind."""
    path = str(folder / "file")
    if kind.startswith("/"):
        return kind
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        os.mkdir(path)
    else:
        with open(path, "wb") as file:
            file.write(b"text\n")
            file.truncate(files.MAX_SIZE + 1 if kind == "huge" else 5)
    return path


@pytest.mark.parametrize("kind", ["fifo", "/dev/zero", "/dev/tty", "/dev/ptmx", "directory", "huge"])
def test_endless_file_is_an_error(tmp_path: Path, kind: str) -> None:
    """Reading what is in place of a configuration file ends at once, with an error."""
    with pytest.raises(OSError, match=r"not a regular file|larger than|directory|No such device"):
        files.read(make(kind, tmp_path))


@pytest.mark.parametrize(("kind", "content"), [("regular", b"text\n"), ("/dev/null", b"")])
def test_regular_file_is_read(tmp_path: Path, kind: str, content: bytes) -> None:
    """The control: a regular file and /dev/null are read, as a whole or in part."""
    path = make(kind, tmp_path)
    assert (files.read(path), files.read(path, 2)) == (content, content[:2])


@pytest.mark.parametrize(
    ("kind", "safe"),
    [("fifo", False), ("/dev/zero", False), ("huge", False), ("regular", True), ("/dev/null", True), ("/none", True)],
)
def test_libc_is_kept_from_endless_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, safe: bool) -> None:
    """A file of libc without an end is noticed: libc itself would read it without a bound."""
    monkeypatch.setattr(files, "LIBCS", ("/none", make(kind, tmp_path)))
    assert files.is_libc_safe() is safe


GVISOR = "Name:\tpython\nCapInh:\t0\nCapPrm:\t1000\nCapEff:\t1000\nCapBnd:\t3000\nSeccomp:\t0\n"
"""gVisor's pkg/sentry/fsimpl/proc/task_files.go, shortened."""


@pytest.mark.parametrize(("left_out", "missing"), [("CapAmb", "CapAmb"), ("CapBnd:\t3000\n", "CapBnd")])
def test_capability_set_that_is_not_shown_is_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left_out: str, missing: str
) -> None:
    """A kernel that shows no ambient or bounding set (gVisor) has all five names, and the others' masks."""
    status = tmp_path / "status"
    status.write_text(GVISOR.replace(left_out, ""))
    monkeypatch.setattr(capabilities, "STATUS", str(status))
    sets = capabilities.sets()
    assert (sets[missing], sets["CapEff"], len(sets)) == (0, capabilities.NET_ADMIN, 5)


@pytest.mark.parametrize("shown", [GVISOR, f"{GVISOR}CapAmb:\t0\n"], ids=["gVisor", "control: Linux"])
def test_firewall_failure_in_gvisor_names_what_works_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shown: str
) -> None:
    """GVisor shows no ambient set and has no firewall, so the remedy is MOCK_BACKEND=env or a sidecar by runc."""
    status = tmp_path / "status"
    status.write_text(shown)
    monkeypatch.setattr(capabilities, "STATUS", str(status))
    failed = DetourError("firewall", "no firewall", "load the module")
    failure.complete(failed, [])
    expected = "load the module" if "CapAmb" in shown else access.NO_FIREWALL
    assert failed.remedy.startswith(expected)


@pytest.mark.parametrize(("thread", "emulated"), [("/usr/bin/qemu-aarch64-static", True), ("/usr/bin/python3", False)])
def test_emulator_shows_itself(monkeypatch: pytest.MonkeyPatch, thread: str, emulated: bool) -> None:
    """QEMU's user mode answers for /proc/self/exe, and for no other link to the program (seen with QEMU 7.2)."""
    assert not access.is_emulated()  # the control: these tests are not emulated
    links = {"/proc/self/exe": "/usr/bin/python3", "/proc/thread-self/exe": thread}
    monkeypatch.setattr(os, "readlink", links.__getitem__)
    assert access.is_emulated() is emulated
