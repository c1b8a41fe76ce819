"""The project's documents: their text, headings, links and code blocks."""

import functools
import glob
import os
import re

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
DOCUMENTS = sorted(
    os.path.relpath(file, ROOT)
    for pattern in ("*.md", "docs/**/*.md", "deploy/**/*.md", "examples/**/*.md", "bench/**/*.md")
    for file in glob.glob(f"{ROOT}/{pattern}", recursive=True)
)
READMES = ("README.md", "README.es.md")
LINK = re.compile(r"!?\[[^\]]*\]\(([^()\s]+)\)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@functools.cache
def read(name: str) -> str:
    """Return a file of the project."""
    with open(f"{ROOT}/{name}", encoding="utf-8") as file:
        return file.read()


def anchors(text: str) -> list[str]:
    """Return the names by which GitHub links a document's headings, in their order."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]


def general(line: str) -> str:
    """Return the line of a start with the mock's address and the time replaced; those of a document are examples."""
    return re.sub(r"\(\d+\.\d+\.\d+\.\d+|\d+ ms", "X", line)


def blocks(name: str, language: str) -> list[str]:
    """Return a document's code blocks in a language."""
    return [code for kind, code in FENCE.findall(read(name)) if kind == language]
