"""What stays: processes and memory after exec, DNS questions of a start, the size of the bundle."""

from __future__ import annotations

import io
import os
import tarfile
import time

from bench import subjects
from bench.ground import Ground
from bench.rows import Row, row


def measure() -> list[Row]:
    """Return the rows."""
    rows = []
    with Ground() as ground:
        for subject in subjects.ours():
            ground.reset()
            ground.tell("count")
            before = _processes(ground)
            ground.start(subject, [subjects.tool("stamp"), "3"])
            while not any(name == "stamp" for name, _ in (_processes(ground) - before)):
                time.sleep(0.02)
            left = [memory for name, memory in _processes(ground) - before if name != "stamp"]
            rows.append(row("left behind after exec", subject.name, "processes", [float(len(left))], at_most=0))
            rows.append(row("left behind after exec", subject.name, "KiB", [float(sum(left))], at_most=0))
            ground.wait()
            rows.append(row("DNS questions of a start", subject.name, "", [float(ground.tell("count"))], at_most=2))
    if subjects.bundle():
        size = _compressed(subjects.BUNDLE) / 1e6
        rows.append(row("bundle, compressed", "bundle", "MB", [size], at_most=6))
    return rows


def _processes(ground: Ground) -> set[tuple[str, int]]:
    """Return name and memory in KiB of each process in the app's network namespace."""
    here = os.readlink(f"/proc/{ground.app.pid}/ns/net")
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.readlink(f"/proc/{pid}/ns/net") == here:
                with open(f"/proc/{pid}/status") as status:
                    fields = dict(line.split(":", 1) for line in status)
                found.add((fields["Name"].strip(), int(fields.get("VmRSS", "0 kB").split()[0])))
        except OSError:
            continue  # it has ended meanwhile
    return found


def _compressed(folder: str) -> int:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:  # gzip: as registries keep layers
        archive.add(folder, arcname="imds-detour")
    return len(packed.getvalue())
