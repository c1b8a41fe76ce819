"""Legacy iptables, through helper processes that use python-iptables."""

from __future__ import annotations

import time
from contextlib import suppress

from imds_detour.errors import DetourError
from imds_detour.firewall.change import Change, Replace
from imds_detour.firewall.iptables.helper import HelperLostError
from imds_detour.firewall.rules import LEGACY, Installed, Rule

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from imds_detour.firewall.change import AddGuard
    from imds_detour.firewall.iptables.helper import Helper


class LegacyFirewall:
    """The legacy tables of this network namespace, with a helper process for each IP version."""

    name = "legacy iptables"
    layout = LEGACY

    def __init__(self, helpers: Mapping[int, Helper], remaining: Callable[[], float]) -> None:
        self.versions = tuple(helpers)
        self._helpers = helpers
        self._remaining = remaining  # seconds before the deadline of the whole start
        self._begun: AddGuard | None = None

    def begin(self, guard: AddGuard) -> None:
        """Let the helpers check whether they can work, and then guard, while the caller goes on.

        The next require() waits for the check. The next apply(), of the same guard, waits for the guard, which may have
        been read back some time before. If a helper fails, those of others may keep their rules.
        """
        self._begun = guard
        calls = [("check", ()), ("apply", (guard, time.monotonic() + self._remaining()))]
        for helper in self._helpers.values():
            with suppress(HelperLostError):  # require() raises it
                helper.ask(calls, self._remaining())

    def require(self) -> None:
        """Raise DetourError if legacy iptables cannot be used. This changes no rules."""
        begun, self._begun = self._begun, None
        for version, helper in self._helpers.items():
            if begun:
                helper.answer(self._remaining())
            else:
                self._call(version, "check")
        self._begun = begun

    def apply(self, change: Change, timeout: float) -> tuple[Rule, ...]:
        """Change imds-detour's rules in a table, by a commit for each IP version, and return the previous ones."""
        previous: dict[int, tuple[Rule, ...]] = {}
        begun, self._begun = self._begun == change, None
        try:
            for version, helper in self._helpers.items():
                if begun:
                    previous[version] = helper.answer(self._remaining())
                else:
                    previous[version] = self._call(version, "apply", change, time.monotonic() + timeout)
        except DetourError as error:
            for version, rules in previous.items():  # undo the commits for the other IP version
                try:
                    self._call(version, "apply", Replace(change.table, rules), time.monotonic() + timeout)
                except DetourError as second:
                    if second.reason != error.reason:  # otherwise this helper is the one that was lost
                        error.reason += f"; the change for IPv{version} could not be undone: {second.reason}"
            raise
        return tuple(rule for of_version in previous.values() for rule in of_version)

    def installed(self, table: str | None = None) -> tuple[Installed, ...]:
        """Read imds-detour's rules from the kernel, in one table or in both."""
        return tuple(entry for version in self._helpers for entry in self._call(version, "installed", table))

    def joined(self, other: LegacyFirewall) -> LegacyFirewall:
        """Return a firewall that uses the helpers of both, which stay theirs to close."""
        return LegacyFirewall({**self._helpers, **other._helpers}, self._remaining)

    def close(self) -> None:
        """End the helpers. The rules stay."""
        for helper in self._helpers.values():
            helper.close()

    def _call(self, version: int, function: str, *arguments: object) -> Any:  # noqa: ANN401  (the function's own type)
        return self._helpers[version].call(function, *arguments, remaining=self._remaining())
