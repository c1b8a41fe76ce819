"""The counted work and the steps of a start, read from strace; they do not depend on the machine's load."""

import re
from dataclasses import dataclass, fields
from typing import Self

OPTIONS = ("--string-limit=64", "--quiet=attach,exit,path-resolution,personality,superseded")
"""Options of strace for a log that work() and missing_steps() can read."""

MODULE = re.compile(
    r'(\d+) +open(?:at)?\(.*?"([^"]*?)(?:__pycache__/)?([^"/.]*)(?:\.cpython-\d+)?\.pyc?", '
    r".*(?:= \d|<unfinished \.\.\.>$)"
).match
"""Process, folder and name; a module with an outdated compiled file is opened twice and counts once. strace
writes a call that another process interrupts as unfinished."""


@dataclass(frozen=True, slots=True)
class Work:
    """Counted work of a start, up to the app.

    Attributes:
        modules: loaded files of Python code, in all processes, compiled or not.
        syscalls: system calls, in all processes.
        processes: processes started after the first one.
        programs: programs executed after the first one.
        threads: threads started.

    """

    modules: int
    syscalls: int
    processes: int
    programs: int
    threads: int

    def beyond(self, ceilings: Self) -> dict[str, tuple[int, int]]:
        """Return the counts above their ceilings: both numbers, by name."""
        pairs = {field.name: (getattr(self, field.name), getattr(ceilings, field.name)) for field in fields(self)}
        return {name: (seen, most) for name, (seen, most) in pairs.items() if seen > most}

    def without(self, other: Self) -> Self:
        """Return the difference to the work of another start."""
        return type(self)(*(getattr(self, field.name) - getattr(other, field.name) for field in fields(self)))


def work(trace: str, app: str) -> Work:
    """Count the work up to the execution of the app, which must have happened."""
    lines = trace.splitlines()
    # It does not return in one line where another thread has to end first.
    executed = re.compile(rf'execve\("[^"]*/{app}", .*( = 0|<unfinished \.\.\.>)$')
    end = next(number for number, line in enumerate(lines) if executed.search(line))
    calls = [line for line in lines[:end] if "resumed>" not in line]
    clones = [line for line in calls if re.match(r"\d+ +(clone3?|v?fork)\(", line)]
    threads = [line for line in clones if "CLONE_THREAD" in line]
    return Work(
        modules=len({match.groups() for match in map(MODULE, calls) if match}),
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
"""The system calls of each step, in this order."""
ORDER = (r'IPT_SO_SET_REPLACE, "filter', r'IPT_SO_SET_REPLACE, "nat', PROBE, COUNTER, r"PR_CAPBSET_DROP, CAP_NET_ADMIN")
"""Calls that must come in this order."""


def missing_steps(trace: str, app: str) -> list[str]:
    """Return the steps that a start omitted before it executed the app."""
    done = trace[: re.search(rf'execve\("[^"]*/{app}", ', trace).start()]  # type: ignore[union-attr]  # else it fails
    steps = {**STEPS, "order": ORDER}
    return [name for name, marks in steps.items() if not re.search(r"[^\n]*\n(?:.*\n)*?.*".join(marks), done)]
