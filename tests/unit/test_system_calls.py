"""System calls that are made by number: the kernel's numbers, and what happens on a machine without one."""

import os
import re
from types import SimpleNamespace

import pytest

from imds_detour.process import handover, privileges

HEADERS = {("x86_64", 8): "x86_64-linux-gnu/asm/unistd_64.h", ("aarch64", 8): "asm-generic/unistd.h"}
"""linux-libc-dev's headers by machine and pointer size; arm64 uses the generic numbers."""
TABLES = {"setuid": privileges.SYS_SETUID, "rt_sigprocmask": handover.SYS_RT_SIGPROCMASK}


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("machine", HEADERS, ids=lambda machine: machine[0])
def test_number_is_that_of_the_kernels_header(name: str, machine: tuple[str, int]) -> None:
    """Each table has each machine's number, and no other machine's."""
    try:
        with open(f"/usr/include/{HEADERS[machine]}") as file:
            numbers = dict(re.findall(r"^#define __NR_(\w+) (\d+)$", file.read(), re.MULTILINE))
    except FileNotFoundError:
        pytest.skip(f"this machine has no header for {machine[0]}")
    assert TABLES[name][machine] == int(numbers[name])
    assert TABLES[name].keys() == HEADERS.keys()


@pytest.mark.parametrize(("machine", "size"), [("riscv64", 8), ("aarch64", 4), ("x86_64", 4)])
@pytest.mark.parametrize("allowed", [True, False])
def test_machine_without_a_number_uses_the_library(
    monkeypatch: pytest.MonkeyPatch, machine: str, size: int, allowed: bool
) -> None:
    """An unknown machine, or a 32-bit process on a known one, makes no call by number, which would be another call."""

    def setuid(_uid: int) -> None:
        if not allowed:
            raise PermissionError

    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine=machine))
    monkeypatch.setattr(privileges, "sizeof", lambda _type: size)
    monkeypatch.setattr(privileges, "CDLL", lambda _name: pytest.fail("a system call by number"))
    monkeypatch.setattr(os, "setuid", setuid)
    assert privileges.can_become_root() is allowed
