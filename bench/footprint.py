"""Remaining processes and memory after exec, DNS questions of a start, and the size of the bundle."""

from __future__ import annotations

import io
import os
import tarfile
import time
from typing import TYPE_CHECKING

from bench import subjects
from bench.rows import Row, row
from bench.testbed import Testbed

if TYPE_CHECKING:
    from collections.abc import Container


def measure() -> list[Row]:
    """Return the rows."""
    rows = []
    with Testbed() as testbed:
        for subject in subjects.detours():
            testbed.reset()
            testbed.command("count")
            before = _processes(testbed)
            testbed.start(subject, [subjects.tool("stamp"), "3"])
            while "stamp" not in (after := _processes(testbed, before)).values():
                time.sleep(0.02)
            left = [_memory(pid) for pid, name in after.items() if name != "stamp"]
            rows.append(row("left behind after exec", subject.name, "processes", [float(len(left))], at_most=0))
            rows.append(row("left behind after exec", subject.name, "KiB", [float(sum(left))], at_most=0))
            testbed.wait()
            rows.append(row("DNS questions of a start", subject.name, "", [float(testbed.command("count"))], at_most=2))
    if subjects.bundle():
        size = _compressed(subjects.BUNDLE) / 1e6
        rows.append(row("bundle, compressed", "bundle", "MB", [size], at_most=6))
    return rows


def _processes(testbed: Testbed, known: Container[str] = ()) -> dict[str, str]:
    """Return the unknown processes in the app's network namespace: their names, by process id."""
    namespace = os.readlink(f"/proc/{testbed.app.pid}/ns/net")
    names = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if pid not in known and os.readlink(f"/proc/{pid}/ns/net") == namespace:
                with open(f"/proc/{pid}/comm") as comm:
                    names[pid] = comm.read().strip()
        except OSError:
            continue  # it has just ended
    return names


def _memory(pid: str) -> int:
    """Return a process's resident memory in KiB."""
    with open(f"/proc/{pid}/status") as status:
        return next((int(line.split()[1]) for line in status if line.startswith("VmRSS")), 0)


def _compressed(folder: str) -> int:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:  # gzip: as registries keep layers
        archive.add(folder, arcname="imds-detour")
    return len(packed.getvalue())
