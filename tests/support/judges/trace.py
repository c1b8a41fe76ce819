"""The work and the steps of a start, read from strace: counts do not depend on the machine's load."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields

OPTIONS = ("--string-limit=64", "--quiet=attach,exit,path-resolution,personality,superseded")
"""What strace is told besides the file of its log, so that work() and missing_steps() can read that."""

MODULE = re.compile(
    r'(\d+) +open(?:at)?\(.*?"([^"]*?)(?:__pycache__/)?([^"/.]*)(?:\.cpython-\d+)?\.pyc?", .*= \d'
).match
"""Process, folder and name; a module whose compiled form is out of date is opened twice, and is one all the same."""


@dataclass(frozen=True, slots=True)
class Work:
    """Counted work of a start, up to the app.

    Attributes:
        modules: files of Python code that were loaded, in every process, compiled before or not.
        syscalls: system calls, in every process.
        processes: processes started besides the first one.
        programs: programs executed besides the first one.
        threads: threads started.

    """

    modules: int
    syscalls: int
    processes: int
    programs: int
    threads: int

    def beyond(self, ceilings: Work) -> dict[str, tuple[int, int]]:
        """Return what is more than its ceiling: both numbers, by name."""
        pairs = {field.name: (getattr(self, field.name), getattr(ceilings, field.name)) for field in fields(self)}
        return {name: (seen, most) for name, (seen, most) in pairs.items() if seen > most}

    def without(self, other: Work) -> Work:
        """Return the work that is more than that of another start."""
        return Work(*(getattr(self, field.name) - getattr(other, field.name) for field in fields(self)))


def work(trace: str, app: str) -> Work:
    """Count what came before the app was executed; an app that never was is an error."""
    lines = trace.splitlines()
    # It does not return in one line where another thread has to end first.
    executed = re.compile(rf'execve\("[^"]*/{app}", .*( = 0|<unfinished \.\.\.>)$')
    end = next(number for number, line in enumerate(lines) if executed.search(line))
    calls = [line for line in lines[:end] if "resumed>" not in line]
    clones = [line for line in calls if re.match(r"\d+ +(clone3?|v?fork)\(", line)]
    threads = [line for line in clones if "CLONE_THREAD" in line]
    return Work(
        modules=len({found.groups() for found in map(MODULE, calls) if found}),
        syscalls=len(calls),
        processes=len(clones) - len(threads),
        programs=sum(" execve(" in line and line.endswith(" = 0") for line in calls) - 1,
        threads=len(threads),
    )


METADATA = r"sin_addr=inet_addr\(\"169\.254\.169\.254\"\)"
GET = r'"GET /latest/meta-data/instance-id '
MOCK = r"connect\(.*sin_port=htons\(1338\)"
COUNTER = r'IPT_SO_GET_ENTRIES, "nat'
PROBE = rf"connect\(.*sin_port=htons\(80\), {METADATA}"

STEPS = {
    "guard": (r'IPT_SO_SET_REPLACE, "filter', r'IPT_SO_GET_ENTRIES, "filter'),
    "route check": (rf"connect\(.*sin_port=htons\(9\), {METADATA}",),
    "redirect": (r'IPT_SO_SET_REPLACE, "nat', COUNTER),
    "comparison": (MOCK, GET, PROBE, GET),
    "counter": (COUNTER, PROBE, GET, COUNTER),
    "NET_ADMIN": (r"PR_CAPBSET_DROP, CAP_NET_ADMIN",),
}
"""What each step of the way looks like to the kernel, in this order."""
ORDER = (r'IPT_SO_SET_REPLACE, "filter', r'IPT_SO_SET_REPLACE, "nat', PROBE, COUNTER, r"PR_CAPBSET_DROP, CAP_NET_ADMIN")
"""And what must not come before what."""


def missing_steps(trace: str, app: str) -> list[str]:
    """Return the steps of the way that a start left out before it executed the app."""
    done = trace[: re.search(rf'execve\("[^"]*/{app}", ', trace).start()]  # type: ignore[union-attr]  # else it fails
    steps = {**STEPS, "order": ORDER}
    return [name for name, marks in steps.items() if not re.search(r"[^\n]*\n(?:.*\n)*?.*".join(marks), done)]
