"""Build the bundle: python3 -m bundle FOLDER (scripts/bundle prepares its inputs)."""

from __future__ import annotations

import datetime as dt
import gzip
import os
import shlex
import shutil
import sys
import tarfile
import tomllib
import warnings

from bundle import documents, modules, native
from bundle.contents import EXTRAS, LICENCES
from bundle.packages import Package, debian_owners, linked_sources, python_distribution, python_owners
from bundle.programs import BundleError, run

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
EPOCH = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
"""The date of all files, in seconds since 1970 (reproducible-builds.org/specs/source-date-epoch)."""
FLAGS = {"CFLAGS": "-g0 -O2", "LDFLAGS": "-Wl,--build-id=none -s -Wl,-Map={}"}
"""Flags for python-iptables' wrapper, so that it has no data of this machine; the linker writes its map to a file."""
LINK_MAP = "wrapper.map"
PIP = ("--quiet", "--disable-pip-version-check", "--no-cache-dir", "--use-pep517", "--no-binary=python-iptables")
"""A wheel from pip's cache or from a folder of wheels may be built by another Python, with its flags and its paths."""
BUILD_SYSTEM = ("setuptools", "wheel")
"""What pip builds python-iptables with."""


class Bundle:
    """The folder of the bundle, and for each file its package and the packages of what is linked into it."""

    def __init__(self, root: str) -> None:
        """Create an empty folder."""
        shutil.rmtree(root, ignore_errors=True)
        self.root = root
        self.owners: dict[str, Package] = {}
        self.static: dict[str, set[Package]] = {}
        self.programs: set[str] = set()

    def path(self, place: str, owner: Package) -> str:
        """Return the path of a file to add, and create its folder."""
        self.owners[place] = owner
        path = os.path.join(self.root, place)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return path

    def copy(self, origin: str, place: str, owner: Package) -> None:
        """Add an unchanged file."""
        shutil.copyfile(origin, self.path(place, owner))

    def write(self, place: str, text: str, owner: Package) -> None:
        """Add a file with this text."""
        with open(self.path(place, owner), "w") as file:
            file.write(text)


def main() -> int:
    """Build the bundle of the command line."""
    target = os.path.abspath(sys.argv[1])
    warnings.simplefilter("ignore", SyntaxWarning)  # of python-iptables, by Python 3.12 and later
    archive = f"{target}.tar.gz"
    try:
        build(target)
        pack(target, archive)
        size = int(run("du", "-sb", target).split()[0])
    except (BundleError, OSError) as error:
        sys.stderr.write(f"bundle: {error}\n")
        return 1
    files = sum(len(names) for _, _, names in os.walk(target))
    sys.stderr.write(
        f"bundle: {os.path.relpath(target)}: {files} files, {size / 1e6:.1f} MB;"
        f" {os.path.relpath(archive)}: {os.path.getsize(archive) / 1e6:.2f} MB\n"
    )
    return 0


def build(target: str) -> None:
    """Build the bundle into a folder, and replace the previous bundle at the end."""
    dependencies = install_dependencies(f"{target}.dependencies")
    with open(os.path.join(HERE, "src/imds_detour/__init__.py")) as file:
        version = file.read().split('__version__ = "')[1].split('"')[0]
    own = Package(
        "imds-detour",
        version,
        LICENCES["imds-detour"],
        f"pkg:pypi/imds-detour@{version}",
        f"imds-detour {version}",
        (os.path.join(HERE, "LICENSE"),),
    )
    bundle = Bundle(f"{target}.new")
    take_modules(bundle, dependencies, own)
    take_machine_code(bundle, dependencies, own)
    packages = sorted({*bundle.owners.values(), *(part for parts in bundle.static.values() for part in parts)})
    take_licences(bundle, packages, own)
    bundle.write("NOTICE", documents.notice(packages, version), own)
    moment = dt.datetime.fromtimestamp(EPOCH, dt.UTC).isoformat().replace("+00:00", "Z")
    bundle.write(
        documents.SBOM, documents.bill_of_materials(bundle.owners, bundle.static, bundle.root, own, moment), own
    )
    normalize(bundle)
    shutil.rmtree(target, ignore_errors=True)
    os.rename(bundle.root, target)


def install_dependencies(folder: str) -> str:
    """Install the dependencies of pyproject.toml in a virtual environment, and return the folder of the modules."""
    with open(os.path.join(HERE, "pyproject.toml"), "rb") as file:
        project = tomllib.load(file)["project"]
    optional = project.get("optional-dependencies", {})
    wanted = [*project["dependencies"], *(line for extra in EXTRAS for line in optional[extra])]
    stamp, contents = os.path.join(folder, "installed"), "\n".join((sys.version, *wanted, *PIP, str(FLAGS)))
    place = os.path.join(folder, "lib", modules.python_name(), "site-packages")
    try:
        with open(stamp) as file:
            if file.read() == contents:
                return place
    except FileNotFoundError:
        pass
    shutil.rmtree(folder, ignore_errors=True)
    run(sys.executable, "-m", "venv", folder)
    flags = {name: value.format(shlex.quote(f"{place}/{LINK_MAP}")) for name, value in FLAGS.items()}
    pip, packages = (f"{folder}/bin/python", "-m", "pip"), f"{folder}/packages"
    run(*pip, "download", *PIP, f"--dest={packages}", *wanted, *BUILD_SYSTEM)
    offline = ("--no-index", f"--find-links={packages}")
    run(*pip, "install", *PIP, "--no-compile", *offline, *wanted, environ={**os.environ, **flags})
    with open(stamp, "w") as file:
        file.write(contents)
    return place


def take_modules(bundle: Bundle, dependencies: str, own: Package) -> None:
    """Compile the Python modules into one folder, lib/python3.x, which makes imports fast."""
    selected = modules.find(dependencies)
    distributions = python_owners(dependencies)
    debian = debian_owners(module.origin for module in selected if module.folder not in (*modules.OWN, dependencies))
    for module in selected:
        if module.folder in modules.OWN:
            owner = own
        elif module.folder == dependencies:
            owner = python_distribution(distributions[module.origin.removeprefix(f"{dependencies}/")], dependencies)
        else:
            owner = debian[module.origin]
        place = f"lib/{modules.python_name()}/{module.place}"
        modules.write(module, bundle.path(place, owner))
    # Python expects a folder for its extension modules.
    os.makedirs(os.path.join(bundle.root, "lib", modules.python_name(), "lib-dynload"))


def take_machine_code(bundle: Bundle, dependencies: str, own: Package) -> None:
    """Copy interpreter, libraries and iptables extensions, and compile the launchers."""
    wrapper = next(name for name in os.listdir(dependencies) if name.startswith("libxtwrapper"))
    wrapper_place = f"lib/{modules.python_name()}/{wrapper}"
    bundle.copy(f"{dependencies}/{wrapper}", wrapper_place, python_distribution("python-iptables", dependencies))
    bundle.static[wrapper_place] = linked_sources(native.linked_statically(f"{dependencies}/{LINK_MAP}"))
    extensions = native.extensions()
    linked = [
        native.interpreter(),
        *extensions.values(),
        *(os.path.join(bundle.root, place) for place in bundle.owners if place.endswith(".so")),
    ]
    libraries = native.libraries(linked)
    owners = debian_owners([native.interpreter(), *extensions.values(), *libraries.values()])
    for name, path in libraries.items():
        bundle.copy(path, f"lib/{name}", owners[path])
    for name, path in extensions.items():
        real = os.path.basename(os.path.realpath(path))
        if name != real and real in extensions:
            os.symlink(real, bundle.path(f"xtables/{name}", owners[path]))
        else:
            bundle.copy(path, f"xtables/{name}", owners[path])
    interpreter = f"libexec/{os.path.basename(native.interpreter())}"
    bundle.copy(native.interpreter(), interpreter, owners[native.interpreter()])
    for program in ("bin/imds-detour", "bin/imds-detourctl"):
        link_map = f"{dependencies}/launcher.map"
        native.compile_launcher(bundle.path(program, own), link_map)
        bundle.static[program] = linked_sources(native.linked_statically(link_map))
        bundle.programs.add(program)
    bundle.programs |= {interpreter, f"lib/{native.loader()}"}


def take_licences(bundle: Bundle, packages: list[Package], own: Package) -> None:
    """Copy the licence files; one with the text of another is a link to it."""
    first: dict[bytes, str] = {}
    for place, origin in documents.licence_texts(packages).items():
        with open(origin, "rb") as file:
            text = file.read()
        if text in first:
            os.symlink(os.path.relpath(first[text], os.path.dirname(place)), bundle.path(place, own))
        else:
            bundle.copy(origin, place, own)
            first[text] = place


def normalize(bundle: Bundle) -> None:
    """Set mode and date of each file, so that the archive is reproducible."""
    for folder, _, names in os.walk(bundle.root, topdown=False):
        for path in (*(os.path.join(folder, name) for name in names), folder):
            program = path == folder or os.path.relpath(path, bundle.root) in bundle.programs
            if not os.path.islink(path):
                os.chmod(path, 0o755 if program else 0o644)  # an image is for every user
            os.utime(path, (EPOCH, EPOCH), follow_symlinks=False)


def pack(root: str, archive: str) -> None:
    """Write the folder as a .tar.gz like an image layer: sorted, owned by root, dated."""

    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        return entry

    with (
        open(archive, "wb") as raw,
        gzip.GzipFile("", "wb", compresslevel=9, fileobj=raw, mtime=EPOCH) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar,
    ):
        tar.add(root, os.path.basename(root), filter=plain)  # sorts by itself


if __name__ == "__main__":
    sys.exit(main())
