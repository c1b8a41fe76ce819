"""Write imds-detourctl's completion scripts for bash, zsh and fish: ``.venv/bin/python scripts/completions.py``.

They list verbs, flags and values of the parser: run it when one of these changes. A test compares.
"""

from __future__ import annotations

import argparse
import os
import re
from typing import NamedTuple

from imds_detour.ctl import main
from imds_detour.ctl.commands.completion import FILES

NOTE = "# Completion of imds-detourctl in {}. Written by scripts/completions.py.\n"


class Flag(NamedTuple):
    """A flag of a verb, or a positional argument, which has no names."""

    names: tuple[str, ...]
    text: str  # what it does
    value: str  # the name of its value; empty if it has none
    choices: tuple[str, ...]

    @property
    def is_file(self) -> bool:
        """Whether the value is the name of a file."""
        return self.value in ("FILE", "FOLDER")


def flags(parser: argparse.ArgumentParser) -> list[Flag]:
    """Return the flags of a parser, and its positional arguments but the verb."""
    return [
        Flag(
            tuple(name for name in action.option_strings if name.startswith("--")),
            re.sub(r" \[MOCK_.*\]$", "", (action.help or "") % vars(action)),
            str(action.metavar or action.dest.upper()) if action.nargs != 0 else "",
            tuple(action.choices or ()),
        )
        for action in parser._actions  # noqa: SLF001  (there is no other list)
        if not isinstance(action, argparse._SubParsersAction)  # noqa: SLF001  (likewise)
    ]


def verbs() -> dict[str, list[Flag]]:
    """Return the flags of each verb."""
    whole = main.parser(main.VERBS)
    return {verb: flags(whole.parse_args([verb, *_needed(verb)]).parser) for verb in main.VERBS}


def _needed(verb: str) -> list[str]:
    return {"completion": ["bash"], "copy": ["folder"]}.get(verb, [])


def bash(verbs: dict[str, list[Flag]], top: list[Flag]) -> str:
    """Return the script for bash."""
    values: dict[str, list[str]] = {}  # the flags with a value, by what completes it
    rows = []
    for verb, listed in verbs.items():
        for flag in listed:
            action = "files=1" if flag.is_file else f'words="{" ".join(flag.choices)}"'
            if flag.value and flag.names:
                values.setdefault(action, []).extend(f"{verb}:{name}" for name in flag.names)
        words = [word for flag in listed for word in (flag.names or flag.choices)]
        rows.append(f'        {verb}:*) words="{" ".join(words)}" ;;\n')
    rows = [f"        {' | '.join(places)}) {action} ;;\n" for action, places in values.items()] + rows
    first = " ".join([*verbs, *(name for flag in top for name in flag.names)])
    return f"""{NOTE.format("bash")}
_imds_detourctl() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD - 1]}} words= files=
    if [[ $word == = ]]; then
        word=
    elif [[ $before == = ]]; then
        before=${{COMP_WORDS[COMP_CWORD - 2]}}
    fi
    if ((COMP_CWORD == 1)); then
        words="{first}"
    else
        case ${{COMP_WORDS[1]}}:$before in
{"".join(rows)}        esac
    fi
    COMPREPLY=($(compgen ${{files:+-f}} -W "$words" -- "$word"))
}}
complete -F _imds_detourctl imds-detourctl
"""


def zsh(verbs: dict[str, list[Flag]], top: list[Flag]) -> str:
    """Return the script for zsh, to be found in its fpath or evaluated after compinit."""

    def spec(flag: Flag, name: str) -> str:
        action = "_files" if flag.is_file else f"({' '.join(flag.choices)})" if flag.choices else " "
        value = f":{_zsh(flag.value)}:{action}" if flag.value else ""
        if not flag.names:
            return _quoted(f"1{value}")
        several = "*" if flag.value and name == "--listen" else ""
        return _quoted(f"{several}{name}{'=' if flag.value else ''}[{_zsh(flag.text)}]{value}")

    def arguments(listed: list[Flag]) -> str:
        specs = (spec(flag, name) for flag in listed for name in flag.names or ("",))
        return "".join(f" \\\n            {text}" for text in specs)

    described = "".join(f"        {_quoted(f'{verb}:{main.VERBS[verb]}')}\n" for verb in verbs)
    cases = "".join(f"    {verb}) _arguments{arguments(listed)} ;;\n" for verb, listed in verbs.items())
    return f"""#compdef imds-detourctl
{NOTE.format("zsh")}
_imds_detourctl() {{
    local -a verbs=(
{described}    )
    if ((CURRENT == 2)); then
        _describe verb verbs
        _arguments{arguments(top)}
        return
    fi
    shift words
    ((CURRENT--))
    case $words[1] in
{cases}    esac
}}
if [[ $funcstack[1] == _imds-detourctl ]]; then
    _imds_detourctl "$@"
else
    compdef _imds_detourctl imds-detourctl
fi
"""


def fish(verbs: dict[str, list[Flag]], top: list[Flag]) -> str:
    """Return the script for fish."""
    command = "complete -c imds-detourctl"

    def lines(listed: list[Flag], condition: str) -> list[str]:
        written = []
        for flag in listed:
            names = "".join(f" -l {name.removeprefix('--')}" for name in flag.names)
            value = " -r -F" if flag.is_file else " -x" if flag.value and flag.names else ""
            choices = f" -a {_quoted(' '.join(flag.choices))}" if flag.choices else ""
            written.append(f"{command} -n {_quoted(condition)}{names}{value}{choices} -d {_fish(flag.text)}\n")
        return written

    none = "test (count (commandline -opc)) -eq 1"
    rows = [f"{command} -n {_quoted(none)} -a {verb} -d {_fish(main.VERBS[verb])}\n" for verb in verbs]
    for verb, listed in verbs.items():
        rows += lines(listed, f"contains -- {verb} (commandline -opc)[2]")
    return f"{NOTE.format('fish')}\n{command} -f\n{''.join([*rows, *lines(top, none)])}"


def _zsh(text: str) -> str:
    """Escape what is special in a description or a message of _arguments."""
    return "".join(f"\\{character}" if character in ":[]\\" else character for character in text)


def _quoted(text: str) -> str:
    """Return a word for bash and zsh, in single quotes."""
    return "'" + text.replace("'", "'\\''") + "'"


def _fish(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def scripts() -> dict[str, str]:
    """Return the text of each shell's script."""
    top = flags(main.parser(()))
    listed = verbs()
    return {shell: write(listed, top) for shell, write in (("bash", bash), ("zsh", zsh), ("fish", fish))}


if __name__ == "__main__":
    for shell, text in scripts().items():
        os.makedirs(os.path.dirname(FILES[shell]), exist_ok=True)
        with open(FILES[shell], "w", encoding="utf-8") as file:
            file.write(text)
