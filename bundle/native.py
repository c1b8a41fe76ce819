"""The bundle's machine code: the interpreter, its libraries and extensions, and the launcher."""

from __future__ import annotations

import os
import re
import sys
import sysconfig
from typing import TYPE_CHECKING

from bundle.contents import EXTENSIONS, LOADED_BY_NAME
from bundle.programs import BundleError, run

if TYPE_CHECKING:
    from collections.abc import Iterable

LAUNCHER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "launcher.c")
COMPILE = ("musl-gcc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-Os", "-static", "-s", "-Wl,--build-id=none")
"""The compiler is musl's, which makes a smaller and faster launcher than glibc's."""


def interpreter() -> str:
    """Return this interpreter, which is the bundle's."""
    return os.path.realpath(sys.executable)


def extensions() -> dict[str, str]:
    """Return the extensions of iptables by file name; two names may be the same file."""
    for folder in (f"/usr/lib/{sysconfig.get_config_var('MULTIARCH')}/xtables", "/usr/lib/xtables"):
        if os.path.isdir(folder):
            return {name: f"{folder}/{name}" for name in EXTENSIONS if os.path.exists(f"{folder}/{name}")}
    raise BundleError("no iptables extensions: apt-get install iptables")


def libraries(programs: Iterable[str]) -> dict[str, str]:
    """Return all linked libraries by their name, with the loader."""
    by_name = _known_to_the_loader()
    wanted = {name: by_name[name] for name in LOADED_BY_NAME if name in by_name}
    if missing := set(LOADED_BY_NAME) - set(wanted):
        raise BundleError(f"libraries are missing: {', '.join(sorted(missing))}")
    linked = dict(wanted)
    for program in (*programs, *wanted.values()):
        for name, path in re.findall(r"^\s+(?:(\S+) => )?(/\S+) \(0x", _ldd(program), re.MULTILINE):
            linked[name or os.path.basename(path)] = path
    return {os.path.basename(name): path for name, path in linked.items()}


def loader() -> str:
    """Return the interpreter's dynamic loader, such as ld-linux-x86-64.so.2."""
    shown = run("readelf", "--program-headers", "--wide", interpreter())
    match = re.search(r"program interpreter: (\S+)\]", shown)
    if not match:
        raise BundleError(f"{interpreter()} is not dynamically linked")
    return os.path.basename(match[1])


def compile_launcher(target: str, link_map: str) -> None:
    """Compile the launcher for this loader and this interpreter, and write the linker's map."""
    names = {"LOADER": loader(), "PYTHON": os.path.basename(interpreter())}
    defined = (f'-D{name}="{value}"' for name, value in names.items())
    run(*COMPILE, f"-Wl,-Map={link_map}", *defined, "-o", target, LAUNCHER)


def linked_statically(link_map: str) -> set[str]:
    """Return the system's objects and archives of which the linker took a part, by its map."""
    with open(link_map) as file:
        text = file.read()
    objects = re.findall(r"^LOAD (/usr/\S+\.o)$", text, re.MULTILINE)
    members, _, _ = text.partition("Memory Configuration")  # the archives' members that are needed come first
    return {*objects, *re.findall(r"^(/usr/\S+\.a)\(", members, re.MULTILINE)}


def _ldd(program: str) -> str:
    shown = run("ldd", program)
    if lacking := [line.strip() for line in shown.splitlines() if "not found" in line]:
        raise BundleError(f"{program} lacks a library: {lacking[0]}")
    return shown


def _known_to_the_loader() -> dict[str, str]:
    shown = run("/sbin/ldconfig", "-p")
    own = sysconfig.get_config_var("MULTIARCH") or ""
    others = dict(reversed(re.findall(r"^\s+(\S+) \(.*\) => (\S+)$", shown, re.MULTILINE)))
    native = {
        name: path for name, path in re.findall(r"^\s+(\S+) \(.*\) => (\S+)$", shown, re.MULTILINE) if own in path
    }
    return {**others, **native}
