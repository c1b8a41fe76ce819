"""Flags for the settings, made from the table of settings."""

from __future__ import annotations

import os
import re
from functools import partial
from typing import TYPE_CHECKING

from imds_detour import result
from imds_detour.config import settings
from imds_detour.config.variables import VARIABLES, known
from imds_detour.errors import DetourError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Collection, Mapping

    from imds_detour.config.settings import Settings
    from imds_detour.config.variables import Variable
    from imds_detour.result import Environment

APP_SETTINGS = frozenset({"MOCK_USER", "MOCK_KEEP_NET_ADMIN", "MOCK_NO_PROXY"})
"""Settings for starting the app, which no verb does."""
ALIASES = {"MOCK_HOSTNAME": ("--mock",)}
"""A second flag, where people try another word than the first."""


def add(parser: argparse.ArgumentParser, names: Collection[str] | None = None) -> None:
    """Add the flags of these settings; without names, of all but APP_SETTINGS."""
    group = parser.add_argument_group("settings", "Each flag sets a variable of the environment, and wins over it.")
    for variable in VARIABLES:
        if variable.name not in APP_SETTINGS if names is None else variable.name in names:
            default = f", default {variable.default}" if variable.default else ""
            group.add_argument(
                *flags(variable.name),
                dest=variable.name,
                choices=(words := _words(variable)),
                type=partial(_meaning, words or ()),
                metavar=variable.name.removeprefix("MOCK_"),
                help=f"{variable.meaning} [{variable.name}{default}]".replace("%", "%%"),
            )


def add_namespace(parser: argparse.ArgumentParser) -> None:
    """Add the flags for a network namespace that has containers, or that is the host's own."""
    parser.add_argument(
        "--host",
        action="store_true",
        help="work in the host's own network namespace too: for the whole machine, with its containers (--bridges)",
    )
    parser.add_argument(
        "--bridges",
        action="store_true",
        help="redirect what comes from bridges in this network namespace too: Docker in Docker, or a host's containers",
    )


def inspect(settings: Settings, arguments: argparse.Namespace) -> Environment:
    """Look at this network namespace, as the flags of add_namespace() say; DetourError in a pod with its node's."""
    # From deploy/kubernetes. A node can be a container (kind), and then nothing else shows that this is its network.
    if not arguments.host and (node := os.environ.get("K8S_HOST_IP")) and node == os.environ.get("K8S_POD_IP"):
        reason = f"this pod has the network of its node, {node} (hostNetwork): a redirect here would hold for the node"
        raise DetourError("namespace", reason, "take imds-detour out of this pod, or label it imds-detour=off")
    return result.inspect(settings, host=arguments.host, forwarded=arguments.host or arguments.bridges)


def flags(name: str) -> tuple[str, ...]:
    """Return the flags of a variable."""
    return f"--{name.removeprefix('MOCK_').lower().replace('_', '-')}", *ALIASES.get(name, ())


def environ(arguments: argparse.Namespace) -> dict[str, str]:
    """Return the environment with the flags applied."""
    return {**os.environ, **_given(arguments)}


def parse(arguments: argparse.Namespace, **defaults: str) -> Settings:
    """Return the settings of flags and environment; ``defaults`` replace the defaults of variables.

    Raises DetourError as settings.parse() does, with the flag's name for a value of a flag.
    """
    try:
        return settings.parse({**defaults, **environ(arguments)})
    except DetourError as error:
        reason = error.reason
        for name in _given(arguments):
            reason = reason.replace(f"{name}=", f"{flags(name)[0]} ")
        raise DetourError(error.step, reason, error.remedy, status=error.status) from None


def refuse_env(settings: Settings, reason: str, remedy: str) -> None:
    """Raise a DetourError if the settings have MOCK_BACKEND=env, which only a start of an app can use."""
    if settings.backend == "env":
        raise DetourError("settings", f"MOCK_BACKEND=env sets variables for an app, and {reason}", remedy)


def _given(arguments: argparse.Namespace) -> Mapping[str, str]:
    given = {variable.name: getattr(arguments, variable.name, None) for variable in VARIABLES}
    return {name: value for name, value in given.items() if value is not None}


def _meaning(words: Collection[str], text: str) -> str:
    """Return the value that a word means, as in a variable; the word itself if it means none of them."""
    return known(text, words) or text


def _words(variable: Variable) -> list[str] | None:
    """Return a variable's values if they are a list of words: argparse checks them, and completion offers them."""
    return variable.allowed.split(", ") if re.fullmatch(r"\w+(, \w+)+", variable.allowed) else None
