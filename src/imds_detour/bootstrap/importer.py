"""How the bundle's modules are found: where its layout says they are, instead of by looking into folders.

All of them are bytecode without source below one folder. Python's own finder lists folders, asks after five kinds of
file and compares dates, in Python; that was 3 of a start's 60 ms of processor time.
"""

from __future__ import annotations

import marshal
import posix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
else:
    from _frozen_importlib import ModuleSpec  # importlib.machinery, without loading importlib

HEADER = 16
"""Bytes before the code in a .pyc (PEP 552)."""


class Bundled:
    """Finds and loads the modules below a folder; extension modules are left to Python's own finder."""

    def __init__(self, root: str) -> None:
        """Take the folder that has them all."""
        self._root = root
        self._code: dict[str, bytes] = {}

    def find_spec(
        self, name: str, _path: Sequence[str] | None = None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return what the import system wants to know of a module, None when it is not here."""
        place = f"{self._root}/{name.replace('.', '/')}"
        for package, file in ((False, f"{place}.pyc"), (True, f"{place}/__init__.pyc")):
            try:
                self._code[name] = _contents(file)
            except FileNotFoundError:
                continue
            # typeshed asks for a subclass of importlib.abc.Loader, the import system for nothing of the kind.
            spec = ModuleSpec(name, self, origin=file, is_package=package)  # type: ignore[arg-type]
            spec.has_location = True
            if spec.submodule_search_locations is not None:
                spec.submodule_search_locations.append(place)
            return spec
        return None

    def create_module(self, _spec: ModuleSpec) -> None:
        """Leave it to the import system."""

    def exec_module(self, module: ModuleType) -> None:
        """Run the module's code in it."""
        exec(marshal.loads(memoryview(self._code.pop(module.__name__))[HEADER:]), vars(module))  # noqa: S102, S302


def _contents(file: str) -> bytes:
    opened = posix.open(file, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        return posix.read(opened, posix.fstat(opened).st_size)
    finally:
        posix.close(opened)
