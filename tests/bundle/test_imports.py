"""No import and no codec that a start can reach is missing in the bundle."""

import subprocess
from pathlib import Path

import pytest

from tests.bundle.conftest import make_root, python
from tests.bundle.test_roots import run
from tests.support.hosts.network import Network

pytestmark = pytest.mark.slow

SCAN = """
import dis, marshal, os, sys, _imp
(folder,) = [folder for folder in sys.path if os.path.isdir(folder) and "encodings" in os.listdir(folder)]
suffixes = (".pyc", "/__init__.pyc", "", *_imp.extension_suffixes())

def is_there(name):
    path = os.path.join(folder, name.replace(".", "/"))
    return name in sys.modules or _imp.is_builtin(name) or _imp.is_frozen(name) or any(
        os.path.exists(path + suffix) and (suffix or os.path.isdir(path)) for suffix in suffixes)

def has(module, name):  # imds-detour replaces a part of iptc before it imports the rest
    return is_there(module + "." + name) or hasattr(__import__(module, fromlist=("",)), name)

def codes(code):
    yield code
    for constant in code.co_consts:
        if hasattr(constant, "co_code"):
            yield from codes(constant)

def scan(importer, package, code, own):
    for part in codes(code):
        for step in dis.get_instructions(part):
            if type(step.argval) is int and step.opname.startswith("LOAD_"):
                level = step.argval
            elif step.opname == "IMPORT_NAME":
                parents = package.split(".")[: len(package.split(".")) + 1 - level] if level else []
                module = ".".join((*parents, *filter(None, (step.argval,))))
                if not is_there(module) and (own or part.co_name != "<module>"):
                    print(importer, module)
            elif step.opname == "IMPORT_FROM" and (own or module in ("html.entities", "importlib.metadata")):
                if is_there(module) and not has(module, step.argval):  # imds-detour's imports, and those of stand-ins
                    print(importer, module + "." + step.argval)

for place, _, names in os.walk(folder):
    for name in names:
        if name.endswith(".pyc"):
            path = os.path.join(place, name)
            module = os.path.relpath(path, folder)[: -len(".pyc")].replace("/", ".")
            with open(path, "rb") as file:
                code = marshal.loads(file.read()[16:])  # the header of PEP 552
            own = module.split(".")[0] in ("imds_detour", "imds_detour_mock")
            scan(module.removesuffix(".__init__"), module.rpartition(".")[0], code, own)
"""
"""Prints each import statement without its module: all of imds-detour's own code, and those in functions of other code.

The imports at the top of the other modules run when test_contents.py imports every module.
"""
UNREACHED = {
    "_colorize": "Windows",
    "asyncio": "Windows and TLS",
    "concurrent.futures": "pools of processes",
    "ctypes": "Windows",
    "difflib": "its own tests",
    "dns.asyncbackend": "asynchronous DNS",
    "encodings": "Windows, and it catches ImportError",
    "os": "Windows",
    "pickle": "its own tests",
    "random": "its own tests",
    "shutil": "archives of tar",
    "tenacity.asyncio": "asynchronous retries",
    "warnings": "memory traces, and it catches ImportError",
    "zipfile": "archives of Python code",
}
"""Importers outside of imds-detour whose functions name a missing module, and what imds-detour does not use of them."""
CODECS = """
import json, dns.message, socket
from imds_detour.discovery.dns.nameservers import read
for codec in ("utf-8", "utf-8-sig", *(f"utf-{bits}{end}" for bits in (16, 32) for end in ("", "-le", "-be"))):
    assert json.loads('{"a": "b"}'.encode(codec)) == {"a": "b"}, codec
assert str(read(["search b\\u00fccher.example"])[0].search[0]) == "xn--bcher-kva.example."
dns.message.from_wire(bytes((0, 0, 0x28 | 0x80, *bytes(9))))  # a reply with the opcode UPDATE
"""


def script(bundle: str, text: str) -> list[str]:
    """Run a script with the bundle's interpreter, and return the lines that it prints."""
    done = subprocess.run([*python(bundle), "-c", text], capture_output=True, text=True, check=False, env={})
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_each_import_statement_finds_its_module(bundle: str) -> None:
    """Each import of imds-detour, also in functions, finds module and name; other code lacks only what is not used."""
    assert [line for line in script(bundle, SCAN) if line.split()[0] not in UNREACHED] == []


@pytest.mark.parametrize("statement", ["import no_module", "from json import no_name", "from . import no_module"])
@pytest.mark.parametrize("indent", ["", "def late():\n "])
def test_the_scan_detects_a_missing_module(bundle: str, statement: str, indent: str) -> None:
    """Negative control: the scan prints an import of a missing module or name, at the top and in a function."""
    scan = SCAN.partition("\nfor place")[0]
    code = f"scan('importer', 'json', compile({indent + statement!r}, '', 'exec'), True)"
    (line,) = script(bundle, f"{scan}\n{code}")
    assert line.endswith(statement.removeprefix("import ").rpartition(" ")[-1])


def test_codecs_and_late_imports_are_included(bundle: str) -> None:
    """Code finds the codecs for JSON and search lists, and the module for a DNS reply of another kind."""
    assert script(bundle, CODECS) == []


@pytest.mark.parametrize(("name", "hint"), [("MOCK_PROT", " (did you mean MOCK_PORT?)"), ("MOCK_SERVER_URL", "")])
def test_unknown_variable_gives_a_warning(clean: Network, bundle: str, tmp_path: Path, name: str, hint: str) -> None:
    """An unknown MOCK_* variable is a warning with a hint, and the app starts."""
    done = run(clean, make_root(tmp_path / "root", bundle), "/app", **{name: "1"})
    assert done.returncode == 0, done.stderr
    assert f"{name} is not a setting of imds-detour{hint};" in done.stderr


def test_search_list_with_other_letters_does_not_end_the_start(clean: Network, bundle: str, tmp_path: Path) -> None:
    """A start asks the DNS servers also when the search list in resolv.conf is not ASCII."""
    root = make_root(tmp_path / "root", bundle)
    clean.app.write("resolv.conf", "search b\u00fccher.example\nnameserver 10.88.0.3\n")
    done = run(clean, root, "/app", MOCK_HOSTNAME="no_such_name", MOCK_TIMEOUT="1")
    clean.app.write("resolv.conf", "nameserver 10.88.0.3\n")
    assert "10.88.0.3 says there is no such name (NXDOMAIN)" in done.stderr


def test_mock_reads_its_data_from_a_file(clean: Network, bundle: str, tmp_path: Path) -> None:
    """The mock of the bundle reads a file of data, with or without a byte order mark."""
    file = tmp_path / "data.json"
    file.write_text('{"meta-data": {"instance-id": "i-0"}}', encoding="utf-8-sig")
    ctl = f"{bundle}/bin/imds-detourctl"
    with clean.app.popen(
        *(ctl, "mock", "--listen", "127.0.0.1:8339", "--data", str(file)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as mock:
        assert mock.stdout is not None
        assert "8339" in mock.stdout.readline()
        assert clean.app.run("curl", "-sS", "http://127.0.0.1:8339/latest/meta-data/instance-id").stdout == "i-0"
        mock.terminate()
