"""``--help`` and ``--version``, and the settings table of the README."""

import os
import re

import pytest

from imds_detour import __version__
from imds_detour.config.variables import VARIABLES
from tests.support.hosts.network import DETOUR, SETTINGS, Network

README = os.path.join(os.path.dirname(__file__), "..", "..", "README.md")
HELP = f"""\
imds-detour {__version__}: send 169.254.169.254 to your mock, prove it, exec your app

usage:   imds-detour [--] COMMAND [ARG...]
example: MOCK_HOSTNAME=mock_metadata:1338 imds-detour python app.py

A container entrypoint. It waits for the mock's name, redirects the metadata
address to the mock, verifies that the mock is the one that answers, drops
NET_ADMIN, and becomes COMMAND. If a step fails, COMMAND does not start.

settings (environment):
"""
HELP_END = """

exit status: COMMAND's own; 125 when a step failed, 126 when COMMAND cannot be
executed, 127 when it is not found, 128+n when signal n came while waiting.
"""


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_help_lists_every_setting_and_version_is_one_line(running: Network, locale: str) -> None:
    """In any environment, --help prints the settings in 80 columns, --version a line; a closed stdout is no error."""
    done = running.raw(DETOUR, "--help", environ={"LC_ALL": locale, "MOCK_PORT": "http"})
    text = done.stdout.decode("ascii")
    assert (done.returncode, text[: len(HELP)], text[-len(HELP_END) :], done.stderr) == (0, HELP, HELP_END, b"")
    assert max(map(len, text.splitlines())) <= 80
    rows = re.sub(r"\n {30}", " ", text.removeprefix(HELP).removesuffix(HELP_END)).splitlines()
    assert rows == [f"  {row.name:19}  {row.default or '-':6} {row.meaning}" for row in VARIABLES]
    for word in ("--help", "--version"):
        closed = running.raw("sh", "-c", f"exec {DETOUR} {word} >&-", environ={**SETTINGS, "LC_ALL": locale})
        assert b"Traceback" not in closed.stderr
    done = running.raw(DETOUR, "--version", environ={})
    assert (done.returncode, done.stdout, done.stderr) == (0, f"imds-detour {__version__}\n".encode(), b"")


@pytest.mark.parametrize("words", [("--help", "x"), ("--", "--help"), ("--version", "--help"), ("-h",), ("--helpme",)])
def test_help_and_version_need_to_be_the_only_argument(running: Network, words: tuple[str, ...]) -> None:
    """--help and --version with another argument are a command."""
    done = running.raw(DETOUR, *words, environ=SETTINGS)
    assert (done.returncode, done.stdout) == (127, b"")
    name = words[1] if words[0] == "--" else words[0]
    assert done.stderr.decode().startswith(f"imds-detour: command not found in PATH: {name!r}; ")


def test_readme_settings_table_equals_the_code() -> None:
    """The README's table has the settings in the code's order with their defaults."""
    with open(README, encoding="utf-8") as file:
        lines = [line.strip().strip("|") for line in file if line.startswith("| `MOCK_")]
    rows = [[cell.strip() for cell in line.split("|")] for line in lines]
    assert [row[0] for row in rows] == [f"`{variable.name}`" for variable in VARIABLES]
    for row, variable in zip(rows, VARIABLES, strict=True):
        assert row[1] == f"`{variable.default}`" if variable.default else row[1] in ("-", "required")
        assert len(row) == 3
        assert row[2]
