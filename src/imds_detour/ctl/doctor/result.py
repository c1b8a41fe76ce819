"""What the doctor finds: one value for each precondition."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class State(Enum):
    """How it is with a precondition."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIPPED = "skip"


@dataclass(frozen=True, slots=True)
class Finding:
    """One precondition, looked at.

    Attributes:
        name: what it is, in a word or two.
        state: how it is with it.
        seen: what was seen, in words.
        remedy: the one thing to change, with the Compose or Dockerfile line; empty where nothing is to be changed.

    """

    name: str
    state: State
    seen: str
    remedy: str = ""


def ok(name: str, seen: str) -> Finding:
    """Return a finding that all is well."""
    return Finding(name, State.OK, seen)


def warn(name: str, seen: str, remedy: str = "") -> Finding:
    """Return a finding that stops nothing by itself."""
    return Finding(name, State.WARN, seen, remedy)


def fail(name: str, seen: str, remedy: str) -> Finding:
    """Return a finding that stops the redirect, or makes it useless."""
    return Finding(name, State.FAIL, seen, remedy)


def untold(name: str, why: str) -> Finding:
    """Return that it cannot be seen from here: that is no failure, and nothing to call well."""
    return Finding(name, State.SKIPPED, f"cannot be told: {why}")


def skipped(name: str, why: str) -> Finding:
    """Return that it was not looked at, for want of something that comes before."""
    return Finding(name, State.SKIPPED, why)
