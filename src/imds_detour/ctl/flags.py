"""Flags that mirror the settings: made from the settings table, so that the two cannot drift apart."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from imds_detour.config import settings
from imds_detour.config.variables import VARIABLES
from imds_detour.errors import DetourError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Collection, Mapping

    from imds_detour.config.settings import Settings
    from imds_detour.config.variables import Variable

ABOUT_THE_APP = frozenset({"MOCK_USER", "MOCK_KEEP_NET_ADMIN", "MOCK_NO_PROXY"})
"""Settings that say how the app is started: no verb starts one."""
SHORTER = {"MOCK_HOSTNAME": ("--mock",)}
"""A second name, where the first is not what people would try."""


def add(parser: argparse.ArgumentParser, names: Collection[str] | None = None) -> None:
    """Add the flags of these settings; of all that do not concern the app when none are named."""
    group = parser.add_argument_group(
        "settings", "Each flag stands for a variable of the environment, and wins over it."
    )
    for variable in VARIABLES:
        if variable.name not in ABOUT_THE_APP if names is None else variable.name in names:
            default = f", default {variable.default}" if variable.default else ""
            group.add_argument(
                *flags(variable),
                dest=variable.name,
                choices=_words(variable),
                metavar=variable.name.removeprefix("MOCK_"),
                help=f"{variable.meaning} [{variable.name}{default}]".replace("%", "%%"),
            )


def flags(variable: Variable) -> tuple[str, ...]:
    """Return the flags that mirror a variable."""
    name = variable.name.removeprefix("MOCK_").lower().replace("_", "-")
    return f"--{name}", *SHORTER.get(variable.name, ())


def environ(arguments: argparse.Namespace) -> dict[str, str]:
    """Return the environment as the flags have it."""
    return {**os.environ, **_given(arguments)}


def parse(arguments: argparse.Namespace, **instead: str) -> Settings:
    """Return the settings of flags and environment, and of ``instead`` where neither has a say in it.

    Raises:
        DetourError: as settings.parse() does, and with the flag's name for what a flag says.

    """
    try:
        return settings.parse({**instead, **environ(arguments)})
    except DetourError as error:
        reason = error.reason
        for variable in VARIABLES:
            if variable.name in _given(arguments):
                reason = reason.replace(f"{variable.name}=", f"{flags(variable)[0]} ")
        raise DetourError(error.step, reason, error.remedy, status=error.status) from None


def _given(arguments: argparse.Namespace) -> Mapping[str, str]:
    values = vars(arguments)
    return {each.name: values[each.name] for each in VARIABLES if values.get(each.name) is not None}


def _words(variable: Variable) -> list[str] | None:
    """Return what a variable may be where that is a list of words: argparse checks them, and completion offers them."""
    return variable.allowed.split(", ") if re.fullmatch(r"\w+(, \w+)+", variable.allowed) else None
