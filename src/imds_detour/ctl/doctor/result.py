"""The result of a check."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class State(Enum):
    """The state of what was checked."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIPPED = "skip"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of a check."""

    name: str  # what was checked, in a word or two
    state: State  # its state
    seen: str  # what was seen
    remedy: str = ""  # what to change, with the Compose or Dockerfile line; empty if nothing is to be changed


def ok(name: str, seen: str) -> CheckResult:
    """Return a result that all is well."""
    return CheckResult(name, State.OK, seen)


def warn(name: str, seen: str, remedy: str = "") -> CheckResult:
    """Return a result that stops nothing by itself."""
    return CheckResult(name, State.WARN, seen, remedy)


def fail(name: str, seen: str, remedy: str) -> CheckResult:
    """Return a result that stops the redirect, or makes it useless."""
    return CheckResult(name, State.FAIL, seen, remedy)


def unknown(name: str, reason: str) -> CheckResult:
    """Return a result for what cannot be seen from here."""
    return CheckResult(name, State.SKIPPED, f"cannot be told: {reason}")


def skipped(name: str, reason: str) -> CheckResult:
    """Return a result for what was not checked, because something before it is missing."""
    return CheckResult(name, State.SKIPPED, reason)
