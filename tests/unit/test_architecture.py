"""The rooms of src: which imports which, how large they are, and what they may use."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from functools import cache

import pytest

ROOT = os.path.realpath(os.path.join(os.path.dirname(__file__), "..", ".."))
SRC = f"{ROOT}/src"

LAYERS = (
    ("value", "errors", "lean"),
    ("text", "endpoint"),
    ("deadline", "log"),
    ("config", "advice.values", "advice.commands", "advice.usage"),
    ("system", "advice.access"),
    ("firewall.rules",),
    ("firewall",),
    ("discovery", "advice.mocks"),
    ("process.accounts", "process.command", "process.handover", "process.privileges", "process.users", "advice"),
    ("result",),
    ("verify",),
    ("redirect", "guard"),
    ("env_backend",),
    ("process",),
    ("main",),
    ("ctl",),
    ("bootstrap",),
)
"""Each room imports rooms of its own line and of those above it, and no others."""
PURE = ("config", "advice.values", "firewall.rules", "firewall.render")
ACTS = (
    *("os", "time", "subprocess", "ctypes", "posix", "fcntl"),
    *("imds_detour.deadline", "imds_detour.lean", "imds_detour.log", "imds_detour.system"),
)
"""What a module that only builds values does not import."""

MAX_MODULE, MAX_FUNCTION, MAX_AT_TOP = 250, 50, 18
MAX_ENTRYPOINT, MAX_ADVICE, MAX_CTL, MAX_MOCK = 6340, 520, 3755, 1950
"""Lines of source that a start may import, of the advice that only a failure imports, of the operator's tool, and of
the development mock."""

STARTING = re.compile(r"^(open|fork|popen|bind|listen|connect|socketpair|start\w*|install\w*|signal|pipe2?|memfd_\w+)$")
"""Names of functions that do something to the system: no constructor calls one."""

PRIVATE_LANGUAGE = (
    *("of ours", "stands", "whoever", "anew", "for want of", "nobody", "somebody"),
    *("for ever", "in clothes", "IPv6 clothes"),
)
NAMELESS = {"found", "each", "one", "here", "told"}
"""Words that are no name for a thing that has one."""


@cache
def modules() -> dict[str, str]:
    """Return the path of each module of both packages, by its name."""
    paths = {}
    for folder, _, names in os.walk(SRC):
        for name in names:
            if name.endswith(".py"):
                path = os.path.join(folder, name)
                paths[os.path.relpath(path, SRC).removesuffix(".py").replace("/", ".").removesuffix(".__init__")] = path
    return paths


@cache
def tree(module: str) -> ast.Module:
    """Return a module's syntax tree."""
    with open(modules()[module]) as file:
        return ast.parse(file.read())


def lines(module: str) -> int:
    """Return the number of lines of a module."""
    with open(modules()[module]) as file:
        return len(file.readlines())


def imports(module: str) -> set[str]:
    """Return what a module imports at run time: modules of both packages, and top names of others."""
    names: set[str] = set()
    for node in _at_run_time(tree(module)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                names.add(whole if whole in modules() else node.module)
    return names


def _at_run_time(node: ast.AST) -> list[ast.AST]:
    """Return all nodes but those under ``if TYPE_CHECKING:``."""
    nodes = []
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
            for other in child.orelse:
                nodes += [other, *_at_run_time(other)]
            continue
        nodes += [child, *_at_run_time(child)]
    return nodes


def layer(module: str) -> int:
    """Return the line of LAYERS that a module belongs to, by the longest name that fits."""
    inner = module.removeprefix("imds_detour.")
    fitting = {
        len(name): number for number, row in enumerate(LAYERS) for name in row if f"{inner}.".startswith(f"{name}.")
    }
    return fitting[max(fitting)]


def internal(module: str) -> list[str]:
    """Return the modules of imds_detour that a module imports, without the package itself."""
    return sorted(name for name in imports(module) if name.startswith("imds_detour."))


def test_no_import_runs_back_up() -> None:
    """A room imports its layer and those below, the mock only imds_detour.errors; only its verb imports the mock."""
    wrong = [
        f"{module} imports {name}"
        for module in modules()
        if module.startswith("imds_detour.")
        for name in internal(module)
        if layer(name) > layer(module)
    ]
    users = {
        module
        for module in modules()
        if module.startswith("imds_detour.") and any(name.startswith("imds_detour_mock") for name in imports(module))
    }
    assert (wrong, users) == ([], {"imds_detour.ctl.commands.mock"})
    known = {name for module in modules() if module.startswith("imds_detour_mock") for name in internal(module)}
    assert known == {"imds_detour.errors"}


def test_no_import_cycles() -> None:
    """No modules import each other in a cycle; imports inside functions count."""
    graph = {module: internal(module) for module in modules() if module.startswith("imds_detour.")}
    done: set[str] = set()
    cycles: list[str] = []

    def visit(module: str, path: tuple[str, ...]) -> None:
        if module in path:
            cycles.append(" -> ".join((*path[path.index(module) :], module)))
        elif module not in done:
            for name in graph.get(module, ()):
                visit(name, (*path, module))
            done.add(module)

    for module in graph:
        visit(module, ())
    assert cycles == []


@pytest.mark.parametrize("room", PURE)
def test_pure_rooms_import_nothing_that_acts(room: str) -> None:
    """Settings and rules import nothing that reads a file, the environment or the kernel."""
    acting = [
        f"{module} imports {name}"
        for module in modules()
        if f"{module}.".startswith(f"imds_detour.{room}.")
        for name in imports(module)
        if name.startswith(ACTS)
    ]
    assert acting == []
    # Negative control: discovery is above config, and a module that reads the kernel acts.
    assert layer("imds_detour.discovery.mock") > layer("imds_detour.config.settings")
    assert any(name.startswith(ACTS) for name in imports("imds_detour.system.routes"))


def loaded_by_a_start() -> set[str]:
    """Return the modules that the entrypoint may import, in any of its ways, without the advice for a failure."""
    waiting, loaded = ["imds_detour.bootstrap.pip"], set()
    while waiting:
        module = waiting.pop()
        if module not in loaded and not module.startswith("imds_detour.advice."):
            loaded.add(module)
            packages = [module.rpartition(".")[0]] if "." in module else []
            waiting += [name for name in (*internal(module), *packages) if name in modules()]
    return loaded


def test_start_imports_little_and_nothing_of_the_tool() -> None:
    """A start imports at most MAX_ENTRYPOINT lines, with any settings, and no module of the tool or the mock.

    The advice has a budget of its own: a start that succeeds does not load it (netns/test_counted_work.py).
    """
    loaded = loaded_by_a_start()
    assert not [name for name in loaded if name.startswith(("imds_detour.ctl", "imds_detour_mock"))]
    assert sum(map(lines, loaded)) <= MAX_ENTRYPOINT
    assert sum(lines(module) for module in modules() if module.startswith("imds_detour.advice")) <= MAX_ADVICE


def test_advice_is_imported_in_functions_only() -> None:
    """No module of a start imports the advice at its top: only a function that reports a failure does."""

    def at_top(module: str) -> list[ast.stmt]:
        statements = (node for node in tree(module).body if isinstance(node, ast.ImportFrom))
        return [node for node in statements if (node.module or "").startswith("imds_detour.advice")]

    assert [module for module in loaded_by_a_start() if at_top(module)] == []
    assert at_top("imds_detour.advice.failure")  # control: it imports other modules of the advice


def test_modules_and_packages_stay_small() -> None:
    """Modules, functions, the top of the package, the tool and the mock have a size that one can read."""
    large = {module: lines(module) for module in modules() if lines(module) > MAX_MODULE}
    long = [
        f"{module}.{node.name}: {(node.end_lineno or 0) - node.lineno + 1}"
        for module in modules()
        for node in ast.walk(tree(module))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno + 1 > MAX_FUNCTION
    ]
    at_top = [name for name in os.listdir(f"{SRC}/imds_detour") if name.endswith(".py")]
    assert (large, long) == ({}, [])
    assert len(at_top) <= MAX_AT_TOP
    assert sum(lines(module) for module in modules() if module.startswith("imds_detour.ctl")) <= MAX_CTL
    assert sum(lines(module) for module in modules() if module.startswith("imds_detour_mock")) <= MAX_MOCK


def _calls(function: ast.FunctionDef) -> set[str]:
    calls = {node.func for node in ast.walk(function) if isinstance(node, ast.Call)}
    return {
        call.id if isinstance(call, ast.Name) else call.attr
        for call in calls
        if isinstance(call, ast.Name | ast.Attribute)
    }


def test_constructors_only_build() -> None:
    """No constructor forks, binds, starts a thread or installs a handler; a function whose name says so does."""
    acting = [
        f"{module}.{kind.name}: {name}"
        for module in modules()
        for kind in ast.walk(tree(module))
        if isinstance(kind, ast.ClassDef)
        for function in kind.body
        if isinstance(function, ast.FunctionDef) and function.name in ("__init__", "__post_init__")
        for name in _calls(function)
        if STARTING.match(name)
    ]
    assert acting == []


def _exemptions() -> dict[str, list[str]]:
    """Return the source files that may use what banned-api names, by pattern."""
    with open(f"{ROOT}/pyproject.toml", "rb") as file:
        ignores = tomllib.load(file)["tool"]["ruff"]["lint"]["per-file-ignores"]
    exempt: dict[str, list[str]] = {}
    for pattern, rules in ignores.items():
        if pattern.startswith("src/") and "TID251" in rules:
            names = re.search(r"\{(.*)\}", pattern)
            options = names[1].split(",") if names else [""]
            exempt[pattern] = [re.sub(r"\{.*\}", option, pattern) for option in options]
    return exempt


@pytest.mark.parametrize("pattern", _exemptions())
def test_each_exemption_from_the_bans_is_needed(pattern: str) -> None:
    """A file that uses nothing banned has no exemption; a pattern with ``*`` needs one file that does."""
    for place in _exemptions()[pattern]:
        command = (sys.executable, "-m", "ruff", "check", "--quiet", "--select", "TID251", "--no-cache")
        without = ("--config", "lint.per-file-ignores={}", place.replace("/*.py", ""))
        done = subprocess.run([*command, *without], cwd=ROOT, capture_output=True, text=True, check=False)
        assert "TID251" in done.stdout, place


@pytest.mark.parametrize("words", PRIVATE_LANGUAGE)
def test_source_has_no_private_language(words: str) -> None:
    """Names, docstrings, comments and messages use words that a reader knows."""
    pattern = re.compile(rf"\b{words}\b", re.IGNORECASE)
    places = []
    for module, path in modules().items():
        with open(path) as file:
            places += [f"{module}:{number}" for number, line in enumerate(file, 1) if pattern.search(line)]
    assert places == []


def test_things_that_have_a_name_are_called_by_it() -> None:
    """No variable, argument or attribute is called ``found``, ``each``, ``one``, ``here`` or ``told``."""
    nameless = [
        f"{module}:{node.lineno}: {name}"
        for module in modules()
        for node in ast.walk(tree(module))
        if (name := getattr(node, "id", None) or getattr(node, "arg", None) or getattr(node, "attr", None)) in NAMELESS
        and isinstance(node, ast.Name | ast.arg | ast.Attribute)
    ]
    assert nameless == []
