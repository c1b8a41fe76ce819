"""Why a command that is not found may be no command: a flag, a verb of imds-detourctl, or several words in one."""

from __future__ import annotations

import json

from imds_detour.config.variables import BY_NAME
from imds_detour.text import VISIBLE, is_made_of, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

VERBS = ("doctor", "status", "check", "plan", "init", "sidecar", "remove", "mock", "demo", "copy", "completion")
"""The verbs of imds-detourctl (imds_detour.ctl.main)."""


def remedy(arguments: Sequence[str]) -> str:
    """Return what to write instead of a command that is not found, or an empty string."""
    words = arguments[1:] if arguments[:1] == ["--"] else arguments
    name = words[0]
    if name.startswith("-"):
        return f"imds-detour takes no flags: {_instead_of(name, words[1:])}"
    if name in VERBS:
        return f"{name} is a verb of imds-detourctl: `imds-detourctl {name}`"
    if len(name.split()) > 1 and len(name) <= 80:
        lists = (json.dumps(command, ensure_ascii=False) for command in (name.split(), ["sh", "-c", name]))
        return f"this is one word, with its blanks: write {printable(', or '.join(lists))}"
    return ""


def _instead_of(flag: str, rest: Sequence[str]) -> str:
    word, equals, value = flag.lstrip("-").partition("=")
    setting = "MOCK_" + {"mock": "hostname"}.get(word, word).upper().replace("-", "_")
    if setting not in BY_NAME:
        return "the app's command comes first; `imds-detour --help`, alone, lists the settings"
    value = value if equals else next(iter(rest), "")
    shown = f"={value}" if is_made_of(VISIBLE, value, 80) else ""
    return f"set {setting}{shown} in the environment"
