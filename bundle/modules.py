"""The Python modules of the bundle: all imports of the roots, as bytecode without source."""

from __future__ import annotations

import importlib.machinery
import os
import py_compile
import shutil
import sys
import sysconfig
from contextlib import contextmanager
from dataclasses import dataclass
from modulefinder import Module as Found
from modulefinder import ModuleFinder
from typing import TYPE_CHECKING

from bundle.contents import LEFT_OUT, ROOTS, STAND_INS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bundle.target import Target

_HERE = os.path.dirname(os.path.abspath(__file__))
SOURCE = os.path.join(os.path.dirname(_HERE), "src")
STAND_IN_SOURCE = os.path.join(_HERE, "stand_ins")
OWN = (SOURCE, STAND_IN_SOURCE)


@dataclass(frozen=True, slots=True, order=True)
class Module:
    """A file of a Python module.

    Attributes:
        origin: the source file, or the library of an extension module.
        place: its place below lib/python3.x.
        folder: its folder on the search path.

    """

    place: str
    origin: str
    folder: str


class _Finder(ModuleFinder):
    """A finder that knows folders without __init__.py (PEP 420), of which modulefinder knows nothing."""

    def import_module(self, partname: str, fqname: str, parent: Found) -> Found | None:
        """Load a module or a package, whose parent is loaded."""
        for folder in getattr(parent, "__path__", None) or ():
            place = os.path.join(folder, partname)
            if fqname not in self.modules and os.path.isdir(place) and not os.path.exists(f"{place}/__init__.py"):
                package = self.add_module(fqname)
                vars(package)["__path__"] = [place]
                setattr(parent, partname, package)
        return super().import_module(partname, fqname, parent)


def find(target: Target, dependencies: str) -> list[Module]:
    """Return imds-detour's modules and all that they import, from dependencies and standard library."""
    standard = f"{target.root}{sysconfig.get_path('stdlib')}"
    path = [SOURCE, dependencies, standard, f"{standard}/lib-dynload"]
    finder = _Finder(path, excludes=[*LEFT_OUT, *STAND_INS])
    with _extension_modules(target.extension_suffix):
        for root in (*_own_modules(), *ROOTS):
            finder.import_hook(root)
    files = {name: getattr(module, "__file__", None) for name, module in finder.modules.items()}
    imported = {file for name, file in files.items() if file and not _is_frozen(name)}
    data = {
        os.path.join(folder, name)
        for folder, _, names in os.walk(SOURCE)
        for name in names
        if name.endswith((".html", ".json", ".txt")) or folder.endswith("/completions")
    }
    stand_ins = {f"{STAND_IN_SOURCE}/{place}.py" for place in STAND_INS.values()}
    return sorted(_module(os.path.abspath(file), (*path, STAND_IN_SOURCE)) for file in imported | data | stand_ins)


@contextmanager
def _extension_modules(suffix: str) -> Iterator[None]:
    """Let imports find extension modules of the target instead of this interpreter's."""
    machinery = importlib.machinery
    loaders = (
        (machinery.ExtensionFileLoader, [suffix]),
        (machinery.SourceFileLoader, machinery.SOURCE_SUFFIXES),
    )
    before = sys.path_hooks[:]
    sys.path_hooks[:] = [machinery.FileFinder.path_hook(*loaders)]
    sys.path_importer_cache.clear()
    try:
        yield
    finally:
        sys.path_hooks[:] = before
        sys.path_importer_cache.clear()


def _own_modules() -> list[str]:
    """Return the names of all of imds-detour's modules, since verbs and backends are imported by name."""
    places = (
        os.path.relpath(os.path.join(folder, name), SOURCE)
        for folder, _, names in os.walk(SOURCE)
        for name in names
        if name.endswith(".py")
    )
    return sorted(place.removesuffix(".py").replace("/", ".").removesuffix(".__init__") for place in places)


def _is_frozen(name: str) -> bool:
    """Return whether the interpreter contains the module. os needs its file, by which Python finds its folder."""
    frozen = importlib.machinery.FrozenImporter.find_spec(name) is not None
    return name != "os" and (frozen or name.startswith("importlib._bootstrap"))


def _module(file: str, path: tuple[str, ...]) -> Module:
    folder = next(folder for folder in reversed(path) if file.startswith(f"{folder}/"))
    place = file.removeprefix(f"{folder}/")
    return Module(f"{place.removesuffix('.py')}.pyc" if place.endswith(".py") else place, file, folder)


def write(module: Module, target: str) -> None:
    """Copy an extension module, or compile a module without assertions and docstrings."""
    if not module.origin.endswith(".py"):
        shutil.copyfile(module.origin, target)
        return
    # Tracebacks show a path independent of this machine, so that the bytes are reproducible.
    shown = module.origin.removeprefix(f"{module.folder}/")
    py_compile.compile(
        module.origin,
        target,
        shown,
        doraise=True,
        optimize=1 if module.folder == SOURCE else 2,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )


def python_name() -> str:
    """Return the name of the folder of modules, such as python3.11."""
    return f"python{sys.version_info.major}.{sys.version_info.minor}"
