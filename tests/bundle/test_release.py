"""The bundle as a file of a release."""

import json
import os
from pathlib import Path

import pytest
from release import files, names

pytestmark = pytest.mark.slow


def test_built_bundle_is_published_with_its_components(bundle: str, tmp_path: Path) -> None:
    """The built archive is for this machine's architecture; its bill of materials (CycloneDX) lists its libraries."""
    architecture = files.MACHINES[os.uname().machine]
    files.publish_bundle(f"{bundle}.tar.gz", architecture, str(tmp_path))
    files.write_sums(str(tmp_path))
    assert sorted(os.listdir(tmp_path)) == sorted(
        [names.archive(architecture), names.bill_of_materials(architecture), names.SUMS]
    )
    document = json.loads((tmp_path / names.bill_of_materials(architecture)).read_text())
    assert document["bomFormat"] == "CycloneDX"
    assert document["metadata"]["component"]["version"] == names.version()
    assert {"imds-detour", "dnspython", "python-iptables", "tenacity"} <= {
        part["name"] for part in document["components"]
    }
