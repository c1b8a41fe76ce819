"""A terminal picture: run a command on a terminal, and let rich draw its output as SVG."""

from __future__ import annotations

import io
import os
import pty
import subprocess
from html import escape
from typing import TYPE_CHECKING

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

WIDTH = 106
"""Columns. In a README such a picture has about the size of the text around it."""
ASPECT = 0.602
"""Width of a character by its height, in most monospace fonts."""

BACKGROUND, TEXT, WHITE = (21, 27, 35), (209, 215, 224), (240, 246, 252)
GREY, RED, GREEN, YELLOW = (101, 108, 118), (255, 123, 114), (86, 211, 100), (227, 179, 65)
BLUE, MAGENTA, CYAN = (88, 166, 255), (188, 140, 255), (86, 212, 221)
THEME = TerminalTheme(BACKGROUND, TEXT, [GREY, RED, GREEN, YELLOW, BLUE, MAGENTA, CYAN, WHITE])
"""A dark window, readable on light and dark pages."""

FORMAT = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {{width}} {{height}}" role="img" aria-labelledby="title">
<title id="title">{title}</title>
<style>
.{{unique_id}}-matrix {{{{
    font: {{char_height}}px ui-monospace, 'SF Mono', Menlo, 'DejaVu Sans Mono', Consolas, monospace;
}}}}
{{styles}}
</style>
<defs>
{{lines}}
</defs>
{{chrome}}
<g class="{{unique_id}}-matrix" xml:space="preserve" transform="translate({{terminal_x}}, {{terminal_y}})">
{{backgrounds}}
{{matrix}}
</g>
</svg>
"""
"""rich's own template fetches a font from the network. This one names fonts that machines have."""


def output(command: Sequence[str], environ: Mapping[str, str]) -> str:
    """Run a command with a terminal as its stdin, stdout and stderr; return what it wrote."""
    reader, terminal = pty.openpty()
    settings = {**environ, "TERM": "xterm"}
    process = subprocess.Popen(command, env=settings, stdin=terminal, stdout=terminal, stderr=terminal)
    os.close(terminal)
    written = b""
    try:
        while data := os.read(reader, 4096):
            written += data
    except OSError:  # EIO: the last process with the terminal open has ended
        pass
    finally:
        os.close(reader)
    process.wait()
    return written.decode().replace("\r\n", "\n")


def draw(text: str, title: str) -> str:
    """Return a picture of a terminal's output; ``title`` is for readers who cannot see it."""
    console = Console(file=io.StringIO(), width=WIDTH, record=True)
    console.print(Text.from_ansi(text.rstrip()))
    console.line()  # rich defines no clip path for the last line
    code_format = FORMAT.format(title=escape(title))
    picture: str = console.export_svg(
        title="", theme=THEME, code_format=code_format, font_aspect_ratio=ASPECT, unique_id="terminal"
    )
    return picture
