"""The bundle's documents for people and scanners: NOTICE, licence texts, and a bill of materials."""

from __future__ import annotations

import hashlib
import json
import os
import re
import uuid
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bundle.packages import Package
    from bundle.target import Target

SBOM = "imds-detour.cdx.json"
"""A CycloneDX 1.5 file, which scanners recognise by its ending."""
LINKED_INTO = "imds-detour:linked-statically-into"
"""A property of a component without files: the path of a file that holds a part of it."""
COMMON = "/usr/share/common-licenses"
"""The folder of the texts to which Debian's copyright files refer."""
NOTICE = """\
imds-detour {version}, relocatable bundle for Linux on {machine}

imds-detour itself is under the MIT licence. This folder also holds third-party programs, of which only some
files are included, and Python modules compiled to bytecode without their source. They keep their own licences, whose
texts are in share/licences. {sbom} lists the files of each.

The source is available where the binary came from: `apt-get source PACKAGE=VERSION` for Debian packages (old versions:
snapshot.debian.org), `pip download --no-binary :all: NAME==VERSION` for the others.

{table}
"""


def notice(packages: list[Package], version: str, target: Target) -> str:
    """Return the text of NOTICE."""
    width = max(len(f"{package.name} {package.version}") for package in packages)
    licence_width = max(len(package.licence) for package in packages)
    rows = [
        f"{f'{package.name} {package.version}':{width}}  {package.licence:{licence_width}}  {package.source}"
        for package in packages
    ]
    return NOTICE.format(version=version, machine=target.machine, sbom=SBOM, table="\n".join(rows))


def licence_texts(packages: list[Package]) -> dict[str, str]:
    """Return the licence files by their place in the bundle."""
    texts = {
        f"share/licences/{package.name}/{os.path.basename(text)}": text
        for package in packages
        for text in package.texts
    }
    common = {name for package in packages for name in _common(package.licence)}
    return {**texts, **{f"share/licences/{name}": f"{COMMON}/{name}" for name in sorted(common)}}


def _common(licence: str) -> list[str]:
    """Return the common texts to which Debian's copyright files refer: GPL-2 for GPL-2.0-or-later."""
    return [name.removesuffix(".0") for name in re.findall(r"L?GPL-\d\.\d", licence)]


def bill_of_materials(
    files: Mapping[str, Package], static: Mapping[str, set[Package]], root: str, own: Package, moment: str
) -> str:
    """Return the bill of materials: packages with their files, and source packages with the files that hold a part.

    Args:
        files: the package of each file of the bundle, by path relative to ``root``.
        static: the source packages of which a part is linked into a file, by its path.
        root: the folder of the bundle.
        own: the package of this project.
        moment: the time of the build in ISO 8601.

    """
    components = [
        {
            "type": "application" if package == own else "library",
            "bom-ref": package.url,
            "name": package.name,
            "version": package.version,
            "purl": package.url,
            "licenses": [{"expression": package.licence}],
            "components": [
                {
                    "type": "file",
                    "name": name,
                    "hashes": [{"alg": "SHA-256", "content": _sha256(os.path.join(root, name))}],
                }
                for name, owner in sorted(files.items())
                if owner == package
            ],
            "properties": [
                {"name": LINKED_INTO, "value": name} for name, parts in sorted(static.items()) if package in parts
            ],
        }
        for package in sorted({*files.values(), *(part for parts in static.values() for part in parts)})
    ]
    serial = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(components))  # of the contents, so that it can be repeated
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {
            "timestamp": moment,
            "component": {"type": "application", "name": "imds-detour-bundle", "version": own.version},
        },
        "components": components,
    }
    return json.dumps(document, indent=1) + "\n"


def _sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()
