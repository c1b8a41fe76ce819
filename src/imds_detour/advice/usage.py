"""The help text of the entrypoint."""

from __future__ import annotations

import textwrap

from imds_detour import __version__
from imds_detour.config.variables import VARIABLES


def text() -> str:
    """Return what ``imds-detour --help`` prints, in 80 columns."""
    wrap = textwrap.TextWrapper(80, subsequent_indent=" " * 30, break_on_hyphens=False).fill
    rows = (wrap(f"  {variable.name:19}  {variable.default or '-':6} {variable.meaning}") for variable in VARIABLES)
    return _HELP.format(version=__version__, settings="\n".join(rows))


_HELP = """\
imds-detour {version}: send 169.254.169.254 to your mock, prove it, exec your app

usage:   imds-detour [--] COMMAND [ARG...]
example: MOCK_HOSTNAME=mock_metadata:1338 imds-detour python app.py

A container entrypoint. It waits for the mock's name, redirects the metadata
address to the mock, verifies that the mock is the one that answers, drops
NET_ADMIN, and becomes COMMAND. If a step fails, COMMAND does not start.

settings (environment):
{settings}

exit status: COMMAND's own; 125 when a step failed, 126 when COMMAND cannot be
executed, 127 when it is not found, 128+n when signal n came while waiting.
"""
