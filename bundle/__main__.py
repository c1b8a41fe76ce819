"""Build the bundle: python3 -m bundle FOLDER [ARCHITECTURE] (scripts/bundle prepares its inputs)."""

from __future__ import annotations

import datetime as dt
import gzip
import os
import shutil
import sys
import tarfile
import warnings

from bundle import dependencies, documents, modules, native
from bundle.contents import LICENCES
from bundle.packages import Package, debian_owners, linked_sources, python_distribution, python_owners
from bundle.programs import BundleError, run
from bundle.target import Target, prepare

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
EPOCH = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
"""The date of all files, in seconds since 1970 (reproducible-builds.org/specs/source-date-epoch)."""


class Bundle:
    """The folder of the bundle, and for each file its package and the packages of what is linked into it."""

    def __init__(self, root: str, target: Target) -> None:
        """Create an empty folder."""
        shutil.rmtree(root, ignore_errors=True)
        self.root = root
        self.target = target
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
    folder, *architecture = sys.argv[1:]
    warnings.simplefilter("ignore", SyntaxWarning)  # of python-iptables, by Python 3.12 and later
    folder = os.path.abspath(folder)
    archive = f"{folder}.tar.gz"
    try:
        target = prepare("".join(architecture), f"{folder}.debian")
        build(folder, target)
        pack(folder, archive)
        size = int(run("du", "-sb", folder).split()[0])
    except (BundleError, OSError) as error:
        sys.stderr.write(f"bundle: {error}\n")
        return 1
    files = sum(len(names) for _, _, names in os.walk(folder))
    sys.stderr.write(
        f"bundle: {os.path.relpath(folder)}: for {target.machine}, {files} files, {size / 1e6:.1f} MB;"
        f" {os.path.relpath(archive)}: {os.path.getsize(archive) / 1e6:.2f} MB\n"
    )
    return 0


def build(folder: str, target: Target) -> None:
    """Build the bundle into a folder, and replace the previous bundle at the end."""
    installed = dependencies.install(f"{folder}.dependencies")
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
    bundle = Bundle(f"{folder}.new", target)
    take_modules(bundle, installed, own)
    compile_programs(bundle, f"{folder}.dependencies", own)
    copy_machine_code(bundle)
    packages = sorted({*bundle.owners.values(), *(part for parts in bundle.static.values() for part in parts)})
    take_licences(bundle, packages, own)
    bundle.write("NOTICE", documents.notice(packages, version, target), own)
    moment = dt.datetime.fromtimestamp(EPOCH, dt.UTC).isoformat().replace("+00:00", "Z")
    bundle.write(
        documents.SBOM, documents.bill_of_materials(bundle.owners, bundle.static, bundle.root, own, moment), own
    )
    normalize(bundle)
    shutil.rmtree(folder, ignore_errors=True)
    os.rename(bundle.root, folder)


def take_modules(bundle: Bundle, installed: str, own: Package) -> None:
    """Compile the Python modules into one folder, lib/python3.x, which makes imports fast."""
    selected = modules.find(bundle.target, installed)
    distributions = python_owners(installed)
    standard = (module.origin for module in selected if module.folder not in (*modules.OWN, installed))
    debian = debian_owners(bundle.target, standard)
    for module in selected:
        if module.folder in modules.OWN:
            owner = own
        elif module.folder == installed:
            owner = python_distribution(distributions[module.origin.removeprefix(f"{installed}/")], installed)
        else:
            owner = debian[module.origin]
        place = f"lib/{modules.python_name()}/{module.place}"
        modules.write(module, bundle.path(place, owner))
    # Python expects a folder for its extension modules.
    os.makedirs(os.path.join(bundle.root, "lib", modules.python_name(), "lib-dynload"))


def compile_programs(bundle: Bundle, folder: str, own: Package) -> None:
    """Compile the launchers, and the wrapper of python-iptables with its source in the folder of dependencies."""
    target, link_map = bundle.target, f"{folder}/link.map"
    installed = f"{folder}/lib/{modules.python_name()}/site-packages"
    wrapper = f"lib/{modules.python_name()}/libxtwrapper{target.extension_suffix}"
    path = bundle.path(wrapper, python_distribution("python-iptables", installed))
    native.compile_wrapper(target, dependencies.wrapper_source(folder), path, link_map)
    bundle.static[wrapper] = linked_sources(target, native.linked_statically(target, link_map))
    for program in ("bin/imds-detour", "bin/imds-detourctl"):
        native.compile_launcher(target, bundle.path(program, own), link_map)
        bundle.static[program] = linked_sources(target, native.linked_statically(target, link_map))
        bundle.programs.add(program)


def copy_machine_code(bundle: Bundle) -> None:
    """Copy interpreter and iptables extensions, and the libraries of these and of the extension modules."""
    target, extensions, python = bundle.target, native.extensions(bundle.target), native.interpreter(bundle.target)
    shared = (os.path.join(bundle.root, place) for place in bundle.owners if place.endswith(".so"))
    libraries = native.libraries(target, [python, *extensions.values(), *shared])
    owners = debian_owners(target, [python, *extensions.values(), *libraries.values()])
    for name, path in libraries.items():
        bundle.copy(path, f"lib/{name}", owners[path])
    for name, path in extensions.items():
        real = os.path.basename(os.path.realpath(path))
        if name != real and real in extensions:
            os.symlink(real, bundle.path(f"xtables/{name}", owners[path]))
        else:
            bundle.copy(path, f"xtables/{name}", owners[path])
    interpreter = f"libexec/{os.path.basename(python)}"
    bundle.copy(python, interpreter, owners[python])
    bundle.programs |= {interpreter, f"lib/{native.loader(target)}"}


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
