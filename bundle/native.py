"""The bundle's machine code: interpreter, libraries, extensions, launcher and python-iptables' wrapper."""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING

from bundle.contents import EXTENSIONS, LOADED_BY_NAME
from bundle.programs import BundleError, run

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bundle.target import Target

LAUNCHER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "launcher.c")
COMPILE = ("-nostdinc", "-nostdlib", "-s", "-Wl,--build-id=none")
"""Options of both programs that are compiled: no data of this machine, and only the inputs that are named."""
STATIC = ("-std=c11", "-Wall", "-Wextra", "-Werror", "-Os", "-fno-pie", "-no-pie", "-static")
SHARED = ("-O2", "-fPIC", "-shared")


def interpreter(target: Target) -> str:
    """Return the interpreter, the target's file of the one that runs this build."""
    return f"{target.root}{os.path.realpath(sys.executable)}"


def extensions(target: Target) -> dict[str, str]:
    """Return the extensions of iptables by file name; two names may be the same file."""
    for folder in (f"{target.root}/usr/lib/{target.triplet}/xtables", f"{target.root}/usr/lib/xtables"):
        if os.path.isdir(folder):
            return {name: f"{folder}/{name}" for name in EXTENSIONS if os.path.exists(f"{folder}/{name}")}
    raise BundleError("no iptables extensions: apt-get install iptables")


def libraries(target: Target, programs: Iterable[str]) -> dict[str, str]:
    """Return all linked libraries by their name, with the loader."""
    wanted = [*LOADED_BY_NAME, *(name for program in programs for name in _needed(program))]
    found: dict[str, str] = {}
    while wanted:
        name = wanted.pop()
        if name not in found:
            found[name] = _library(target, name)
            wanted += _needed(found[name])
    return found


def loader(target: Target) -> str:
    """Return the interpreter's dynamic loader, such as ld-linux-x86-64.so.2."""
    shown = run("readelf", "--program-headers", "--wide", interpreter(target))
    match = re.search(r"program interpreter: (\S+)\]", shown)
    if not match:
        raise BundleError(f"{interpreter(target)} is not dynamically linked")
    return os.path.basename(match[1])


def compile_launcher(target: Target, output: str, link_map: str) -> None:
    """Compile the launcher for this loader and this interpreter, and write the linker's map.

    It is linked to musl, which makes a smaller and faster launcher than glibc.
    """
    names = {"LOADER": loader(target), "PYTHON": os.path.basename(interpreter(target))}
    defined = (f'-D{name}="{value}"' for name, value in names.items())
    musl = f"usr/lib/{target.machine}-linux-musl"
    version = run(target.compiler, "-dumpversion").strip()
    libraries = (f"{musl}/libc.a", f"usr/lib/gcc/{target.triplet}/{version}/libgcc.a", f"{musl}/libc.a")
    headers = ("-isystem", f"usr/include/{target.machine}-linux-musl")
    inputs = (f"{musl}/crt1.o", f"{musl}/crti.o", LAUNCHER, *libraries, f"{musl}/crtn.o")
    _compile(target, *STATIC, *defined, *headers, *inputs, output=output, link_map=link_map)


def compile_wrapper(target: Target, source: str, output: str, link_map: str) -> None:
    """Compile python-iptables' C file into a shared library, and write the linker's map.

    A library built by pip would have the flags and paths of the Python that built it.
    """
    own = run(target.compiler, "-print-file-name=include").strip()
    headers = (
        word for folder in (own, f"usr/include/{target.triplet}", "usr/include") for word in ("-isystem", folder)
    )
    libc = f"lib/{target.triplet}/libc.so.6"
    _compile(target, *SHARED, *headers, source, libc, output=output, link_map=link_map)


def _compile(target: Target, *words: str, output: str, link_map: str) -> None:
    """Run the compiler in the root, so that relative paths, also those in the map, are the same for each root."""
    command = (target.compiler, *COMPILE, *words, "-Xlinker", f"-Map={link_map}", "-o", output)
    run(*command, folder=target.root or "/")


def linked_statically(target: Target, link_map: str) -> set[str]:
    """Return the system's objects and archives of which the linker took a part, by its map."""
    with open(link_map) as file:
        text = file.read()
    objects = re.findall(r"^LOAD (usr/\S+\.o)$", text, re.MULTILINE)
    members, _, _ = text.partition("Memory Configuration")  # the archives' members that are needed come first
    archives = re.findall(r"^(usr/\S+\.a)\(", members, re.MULTILINE)
    return {f"{target.root}/{name}" for name in (*objects, *archives)}


def _needed(program: str) -> list[str]:
    return re.findall(r"\(NEEDED\).*\[(.*)\]", run("readelf", "--dynamic", "--wide", program))


def _library(target: Target, name: str) -> str:
    for folder in (f"lib/{target.triplet}", f"usr/lib/{target.triplet}", "lib64", "lib", "usr/lib64", "usr/lib"):
        if os.path.exists(path := f"{target.root}/{folder}/{name}"):
            return path
    raise BundleError(f"the library {name} is missing for {target.architecture}")
