"""The result of a check."""

from dataclasses import dataclass, field
from enum import Enum
from functools import partial

from imds_detour.errors import DetourError


class State(Enum):
    """The state of what was checked."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIPPED = "skip"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of a check."""

    name: str = field(default="", kw_only=True)  # what was checked, in a word or two; run_checks() adds it
    state: State  # its state
    seen: str  # what was seen
    remedy: str = ""  # what to change, with the Compose or Dockerfile line; empty if nothing is to be changed

    @property
    def see(self) -> str:
        """The heading in the documents for a failure or a warning; empty otherwise."""
        anchor = self.name.partition(" (")[0].lower().replace(" ", "-")  # without the service, as in "TCP (aws)"
        return f"docs/troubleshooting.md#{anchor}" if self.state in (State.FAIL, State.WARN) else ""


ok = partial(CheckResult, State.OK)
"""All is well."""
warn = partial(CheckResult, State.WARN)
"""Something that stops nothing by itself."""
fail = partial(CheckResult, State.FAIL)
"""Something that stops the redirect, or makes it useless; with a remedy."""
skipped = partial(CheckResult, State.SKIPPED)
"""Something that was not checked, because it is not needed or something before it is missing."""


def fail_as(error: DetourError) -> CheckResult:
    """Return the result for what a start fails by, in the same words."""
    return fail(error.reason, error.remedy)


def unknown(reason: str) -> CheckResult:
    """Return a result for what cannot be seen from here."""
    return skipped(f"cannot be told: {reason}")
