"""The image's environment does not affect imds-detour, and reaches the app unchanged."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.bundle.conftest import compile_c, python
from tests.support.hosts.network import INSTANCE, SETTINGS, Network

pytestmark = pytest.mark.slow

FOLDERS = ("LD_LIBRARY_PATH", "LOCPATH", "GCONV_PATH", "PYTHONHOME", "PYTHONPATH", "XTABLES_LIBDIR", "IPTABLES_LIBDIR")
# With LD_TRACE_LOADED_OBJECTS the loader lists libraries and runs nothing.
SWITCHES = ("LD_TRACE_LOADED_OBJECTS", "LD_SHOW_AUXV", "LD_BIND_NOW", "PYTHONDEVMODE", "PYTHONINSPECT")
HOSTILE = {
    **dict.fromkeys((*FOLDERS, "HOME"), "{folder}"),
    **dict.fromkeys(SWITCHES, "1"),
    **dict.fromkeys(("LD_PRELOAD", "LD_AUDIT"), "{folder}/preload.so"),
    "LD_DEBUG": "all",
    "GLIBC_TUNABLES": "glibc.malloc.check=3:glibc.rtld.nns=1",
    "LC_ALL": "de_DE.ISO-8859-1",
    "LC_CTYPE": "C",
    "LANG": "zh_CN.GB18030",
    "PYTHONSTARTUP": "{folder}/socket.py",
    "PYTHONIOENCODING": "no-such-encoding",
    "PYTHONMALLOC": "no-such-allocator",
    "PYTHONPLATLIBDIR": "nowhere",
    "TZ": ":{folder}/socket.py",
}
"""Variables that affect a loader, a libc, a Python or an iptables."""
SHADOWS = ("socket", "signal", "encodings/__init__", "imds_detour/__init__", "iptc/__init__", "sitecustomize", "os")
"""Modules of the app with names of imds-detour's modules."""
LIBRARIES = ("libc.so.6", "libm.so.6", "libz.so.1", "libffi.so.8", "libxtables.so.12", "libnss_files.so.2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with hostile libraries and modules, and with a static and a linked app."""
    made = tmp_path_factory.mktemp("hostile")
    compile_c("preload.c", made / "preload.so", "-shared", "-fPIC")
    for name in LIBRARIES:
        (made / name).write_text("no library")
    for name in SHADOWS:
        (made / f"{name}.py").parent.mkdir(exist_ok=True)
        (made / f"{name}.py").write_text("raise SystemExit('a module of the app was imported')\n")
    compile_c("app.c", made / "app", "-static")
    compile_c("app.c", made / "linked")
    return made


def run(network: Network, folder: Path, environ: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command on the app's host with exactly this environment; no other program gets it."""
    busybox = shutil.which("busybox") or pytest.skip("no busybox: apt-get install busybox-static")
    pairs = [f"{name}={value}" for name, value in environ.items()]
    command = ["sh", "-c", 'cd "$0" && exec "$@"', str(folder), busybox, "env", "-i", *pairs, *words]
    return network.app.run(*command, environ=SETTINGS, check=False)


@pytest.mark.parametrize(
    ("name", "backend"), [*((name, "auto") for name in HOSTILE), ("everything", "legacy"), ("everything", "nft")]
)
def test_environment_reaches_only_the_app(clean: Network, bundle: str, folder: Path, name: str, backend: str) -> None:
    """Each hostile variable, and all together, reach the app unchanged and do not affect imds-detour."""
    chosen = HOSTILE if name == "everything" else {name: HOSTILE[name]}
    environ = {
        **{name: value.format(folder=folder) for name, value in chosen.items()},
        **SETTINGS,
        "MOCK_BACKEND": backend,
    }
    done = run(clean, folder, environ, f"{bundle}/bin/imds-detour", "./app", "word")
    shown = "".join(f"{word}\0" for word in ("./app", "word", *(f"{name}={value}" for name, value in environ.items())))
    assert (done.returncode, done.stdout) == (0, f"{INSTANCE}\n{shown}"), done.stderr
    assert done.stderr.count("\n") == 1


def test_preloaded_library_is_loaded_only_into_the_app(clean: Network, bundle: str, folder: Path) -> None:
    """A library of LD_PRELOAD is loaded only into the app. Control: without the launcher, into the interpreter too."""
    environ = {"LD_PRELOAD": f"{folder}/preload.so", **SETTINGS}
    done = run(clean, folder, environ, f"{bundle}/bin/imds-detour", "./linked")
    assert done.stderr.count("preloaded into") == 1
    assert f"preloaded into {folder}/linked\n" in done.stderr
    without = run(clean, folder, {"LD_PRELOAD": f"{folder}/preload.so"}, *python(bundle), "-c", "pass")
    assert "preloaded into" in without.stderr
