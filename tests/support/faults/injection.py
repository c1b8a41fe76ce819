"""Faults at a system call: strace replaces its result or sends a signal (strace(1), "Tampering")."""

import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass

CALL = re.compile(r"(?:(?P<process>\d+) +)?(?P<name>\w+)\(")


@dataclass(frozen=True, slots=True)
class Injection:
    """A fault at some of a program's system calls.

    Attributes:
        call: the call's name, or several names with commas.
        effect: the fault in strace's syntax: ``error=ENOENT``, ``retval=0``, ``signal=KILL``.
        when: the number of the call, counted from 1 in each process: ``3``, or ``3+`` for the third and all later ones.

    """

    call: str
    effect: str
    when: int | str = "1+"

    def __str__(self) -> str:
        return f"{self.call}:{self.effect}:when={self.when}"


@dataclass(frozen=True, slots=True)
class Call:
    """A system call in a log.

    Attributes:
        process: its process or thread; empty in a log of a single one.
        number: its number among the process's calls of that name, counted from 1.

    """

    process: str
    name: str
    number: int
    line: str


def strace(
    *injections: Injection,
    log: str = "/dev/null",
    calls: Iterable[str] = (),
    children: bool = False,
    paths: Iterable[str] = (),
    options: Iterable[str] = (),
) -> tuple[str, ...]:
    """Return a command that runs the command after it with these injections.

    Args:
        injections: the faults, in the program's first thread; with ``children`` in each thread and process.
        log: the file for a line per call of these names and of ``calls``; without names, of each call.
        calls: more names of calls.
        children: whether to follow other threads and processes.
        paths: include only calls that use one of these files.
        options: more options of strace.

    """
    names = ",".join(dict.fromkeys((*(injection.call for injection in injections), *calls)))
    return (
        *(shutil.which("strace") or "strace", "-o", log, *options),
        *(("-f",) if children else ()),
        *(word for path in paths for word in ("-P", path)),
        *(("-e", f"trace={names}") if names else ()),
        *(word for injection in injections for word in ("-e", f"inject={injection}")),
    )


def calls_made(log: str) -> list[Call]:
    """Return the system calls in a log, in order."""
    counts: dict[tuple[str, str], int] = {}
    made = []
    for line in log.splitlines():
        if parts := CALL.match(line):
            process, name = parts["process"] or "", parts["name"]
            counts[process, name] = counts.get((process, name), 0) + 1
            made.append(Call(process, name, counts[process, name], line))
    return made


def failed(log: str, call: str) -> bool:
    """Return whether a call of this name has an injected result; signals leave no mark."""
    return re.search(rf"\b{call}\b.* \(INJECTED\)$", log, re.MULTILINE) is not None
