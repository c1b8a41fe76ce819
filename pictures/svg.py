"""A terminal's screen as SVG: a dark window of its own, which reads the same on light and on dark pages."""

from __future__ import annotations

from html import escape
from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyte.screens import Char

CELL, LINE, SIZE = 7.83, 19, 13
"""Width and height of a character's place and the size of its font, in pixels; most such fonts are 0.602 em wide."""
COLUMNS = 106
"""As wide as a README shows at about this size."""
MARGIN, BAR = 16, 34
"""Around the text, and the bar above it, in pixels."""
INK = "#d1d7e0"
COLOURS = {
    "default": INK,
    "red": "#ff7b72",
    "green": "#56d364",
    "brown": "#e3b341",  # what pyte calls ANSI's yellow
    "cyan": "#56d4dd",
}
LIGHTS = ("#ff5f57", "#febc2e", "#28c840")
FONTS = "ui-monospace, 'SF Mono', Menlo, 'DejaVu Sans Mono', Consolas, monospace"


def draw(rows: Sequence[Sequence[Char]], title: str) -> str:
    """Return the picture of these rows of characters; ``title`` is for those who do not see it."""
    rows = [part for row in rows for part in _wrapped(row)]
    width, height = COLUMNS * CELL + 2 * MARGIN, len(rows) * LINE + BAR + 2 * MARGIN - 4
    lights = "".join(
        f'<circle cx="{20 + 18 * place}" cy="{BAR / 2 + 2:g}" r="5.5" fill="{colour}"/>'
        for place, colour in enumerate(LIGHTS)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" role="img"'
        f' aria-labelledby="title" font-family="{FONTS}" font-size="{SIZE}">\n'
        f'<title id="title">{escape(title)}</title>\n'
        f'<rect x="0.5" y="0.5" width="{width - 1:.0f}" height="{height - 1:.0f}" rx="9" fill="#151b23"'
        ' stroke="#656c76"/>\n'
        f"{lights}\n"
        + "".join(_line(row, BAR + MARGIN + LINE * number + 4) for number, row in enumerate(rows))
        + "</svg>\n"
    )


def _wrapped(row: Sequence[Char]) -> list[Sequence[Char]]:
    """Break a row between words where it is too long."""
    text = "".join(char.data for char in row).rstrip()
    row = row[: len(text)]
    parts = []
    while len(row) > COLUMNS:
        end = text.rfind(" ", 0, COLUMNS + 1)
        end = end if end > 0 else COLUMNS
        parts.append(row[:end])
        kept = text[end:].lstrip()
        row, text = row[len(text) - len(kept) :], kept
    return [*parts, row]


def _line(row: Sequence[Char], y: float) -> str:
    pieces = []
    at = 0
    for (colour, bold), run in groupby(row, lambda char: (char.fg, char.bold)):
        text = "".join(char.data for char in run)
        if text.strip():
            lead = len(text) - len(text.lstrip())
            body = text.strip()
            weight = ' font-weight="600"' if bold else ""
            pieces.append(
                f'<tspan x="{MARGIN + (at + lead) * CELL:.1f}" textLength="{len(body) * CELL:.1f}"'
                f' fill="{COLOURS.get(colour, INK)}"{weight}>{escape(body)}</tspan>'
            )
        at += len(text)
    return f'<text y="{y:g}" xml:space="preserve">{"".join(pieces)}</text>\n' if pieces else ""
