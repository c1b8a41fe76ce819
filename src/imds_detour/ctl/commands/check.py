"""imds-detourctl check: ask through the metadata address, for HEALTHCHECK and scripts. One line, status 0 or 1."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from imds_detour.ctl.rule_reader import open_rule_reader
from imds_detour.errors import DetourError

if TYPE_CHECKING:
    import argparse

TIMEOUT = 5.0
"""Seconds for all of it, if the settings allow more: a health check must not wait long."""
UNHEALTHY = 1
"""Exit status of a failed check, for any reason: HEALTHCHECK knows 0 and 1 (Dockerfile reference)."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the verb."""
    from imds_detour.ctl import flags, report  # noqa: PLC0415  (see run())

    report.add_flag(parser)
    names = ("MOCK_HOSTNAME", "MOCK_PORT", "MOCK_ENDPOINTS", "MOCK_TIMEOUT", "MOCK_PROBE", "MOCK_LOG")
    flags.add(parser, names)


def run(arguments: argparse.Namespace) -> int:
    """Check, and print the result in one line."""
    try:
        with open_rule_reader() as reader:
            # Imported while the helper of legacy iptables, if there is one, loads.
            from imds_detour.ctl import flags, health, terminal  # noqa: PLC0415  (see above)
            from imds_detour.deadline import Deadline  # noqa: PLC0415  (likewise)
            from imds_detour.log import Log  # noqa: PLC0415  (likewise)

            settings = flags.parse(arguments)
            deadline = Deadline(min(settings.timeout, TIMEOUT))
            answers = health.HealthCheck(reader, deadline, Log("quiet")).check(settings)
    except DetourError as error:
        raise DetourError(error.step, error.reason, error.remedy, status=UNHEALTHY) from None
    except OSError as error:  # without a descriptor, for example: main would use another status
        raise DetourError("system", f"the system refuses: {error}", status=UNHEALTHY) from None
    if getattr(arguments, "json", False):
        from imds_detour.ctl import report  # noqa: PLC0415  (see above)

        report.write({"redirects": [answer.facts() for answer in answers]})
    elif settings.log != "quiet":
        terminal.Terminal.of(sys.stdout).line("; ".join(map(str, answers)), terminal.Style.GREEN)
    return 0
