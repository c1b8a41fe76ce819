"""The JSON objects of the verbs, for programs. docs/status.md describes their keys."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from imds_detour.text import readable

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from imds_detour.errors import DetourError
    from imds_detour.result import Target


def add_flag(parser: argparse.ArgumentParser) -> None:
    """Add ``--json``."""
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text, for programs")


def write(facts: Mapping[str, Any]) -> None:
    """Write an object in one line to stdout; OSError if that fails."""
    sys.stdout.write(json.dumps({"schema": 1, **facts}) + "\n")


def redirect(target: Target, verified: object) -> dict[str, str | None]:
    """Return the keys of a redirect; ``verified`` is the mock's answer, None if it was not asked."""
    return {
        "service": target.service.preset.name,
        "endpoint": str(target.redirect.endpoint),
        "mock": target.mock.name,
        "address": str(target.redirect.mock),
        "verified": None if verified is None else str(verified),
    }


def write_failure(error: DetourError) -> None:
    """Write the object of a verb that has failed."""
    write({"failed": {name: readable(str(getattr(error, name) or "")) for name in ("step", "reason", "remedy")}})
