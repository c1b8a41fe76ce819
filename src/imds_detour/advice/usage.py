"""The help text of the entrypoint."""

from __future__ import annotations

from imds_detour import __version__
from imds_detour.config.variables import VARIABLES


def text() -> str:
    """Return what ``imds-detour --help`` prints."""
    width = max(len(variable.name) for variable in VARIABLES)
    rows = [f"  {variable.name:{width}}  {variable.default or '-':6} {variable.meaning}" for variable in VARIABLES]
    return _HELP.format(version=__version__, settings="\n".join(rows))


_HELP = """\
imds-detour {version}: send the cloud metadata address (169.254.169.254) to your mock, prove it, exec your app

usage: imds-detour [--] COMMAND [ARG...]

A container entrypoint. It waits for the mock's name, redirects the metadata address to the mock, verifies that the mock
is the one that answers, drops NET_ADMIN, and becomes COMMAND. If a step fails, COMMAND does not start.

settings (environment):
{settings}

exit status: COMMAND's own; 125 when a step failed, 126 when COMMAND cannot be executed, 127 when it is not found,
128+n when signal n came while waiting.
"""
