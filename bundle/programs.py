"""Calls of other programs; a failure is one line."""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class BundleError(Exception):
    """A reason why the bundle cannot be built, as one line for the user."""


def run(*command: str, environ: Mapping[str, str] = os.environ, folder: str | None = None) -> str:
    """Run a program, in a folder if one is given, and return its standard output.

    Raises:
        BundleError: when it cannot be run or fails, with its error message.

    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environ, cwd=folder)
    except OSError as error:
        raise BundleError(f"{command[0]}: {error.strerror or error}") from None
    if done.returncode:
        raise BundleError(f"{_shown(command)}: {_why(done.stderr) or _why(done.stdout) or done.returncode}")
    return done.stdout


def _shown(command: tuple[str, ...]) -> str:
    """Return the start of a command line."""
    whole = " ".join((os.path.basename(command[0]), *command[1:]))
    return whole if len(whole) <= 60 else f"{whole[:60]}..."


def _why(said: str) -> str:
    """Return the first line with "error", else the last line."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if re.search(r"\berror\b", line, re.IGNORECASE)]
    return (errors or lines[-1:] or [""])[0]
