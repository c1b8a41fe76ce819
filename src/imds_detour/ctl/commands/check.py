"""imds-detourctl check: ask through the metadata address now. For HEALTHCHECK and scripts: one line, status 0 or 1."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from imds_detour.ctl.rule_reader import open_rule_reader
from imds_detour.errors import DetourError

if TYPE_CHECKING:
    import argparse

TIMEOUT = 5.0
"""Seconds for all of it, when the settings allow more: a health check that waits longer tells of nothing but that."""
UNHEALTHY = 1
"""Exit status of a failed check, for whatever reason: HEALTHCHECK knows 0 and 1 (Dockerfile reference)."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the verb."""
    parser.epilog = (
        "Asks the mock directly and through the metadata address, and compares. Needs no\n"
        "capability; with NET_ADMIN it also sees our rule's counter rise. It tries once,\n"
        f"for {TIMEOUT:g} seconds at most.\n\n"
        "In a Dockerfile:\n"
        '  HEALTHCHECK CMD ["/opt/imds-detour/bin/imds-detourctl", "check"]\n\n'
        "exit status: 0 when the mock answers there, 1 for whatever else.\n"
    )
    from imds_detour.ctl import flags  # noqa: PLC0415  (see run())

    names = ("MOCK_HOSTNAME", "MOCK_PORT", "MOCK_ENDPOINTS", "MOCK_TIMEOUT", "MOCK_PROBE", "MOCK_LOG")
    flags.add(parser, names)


def run(arguments: argparse.Namespace) -> int:
    """Check, and say in one line what was seen.

    Raises:
        DetourError: with status UNHEALTHY, when it is not the mock that answers at the metadata address.

    """
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
    except OSError as error:  # no descriptor to be had, for example: main would end it with another status
        raise DetourError("system", f"the system refuses: {error}", status=UNHEALTHY) from None
    if settings.log != "quiet":
        terminal.Terminal.of(sys.stdout).line("; ".join(map(str, answers)), terminal.Style.GREEN)
    return 0
