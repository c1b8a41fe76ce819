"""The units of examples/quadlet, by Podman's own generator."""

import os
import shlex
import subprocess

import pytest

from tests.docker.engine import HOME
from tests.podman.engine import ROOT

PLACES = ("/usr/libexec/podman/quadlet", f"{HOME}/debian13/usr/libexec/podman/quadlet")
"""The machine's, from Podman 4.4 on, or Debian 13's (5.4), which `make engine` unpacks."""


@pytest.fixture(scope="module")
def units() -> dict[str, list[str]]:
    """Return the lines of each unit that the generator makes."""
    found = [place for place in PLACES if os.access(place, os.X_OK)]
    if not found:
        pytest.skip("no quadlet on this machine: sudo make engine brings Debian 13's")
    environ = {"QUADLET_UNIT_DIRS": f"{ROOT}/examples/quadlet", "PATH": os.environ["PATH"]}
    done = subprocess.run([found[0], "-dryrun"], env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    parts = done.stdout.split("---")
    return {name: text.splitlines() for name, text in zip(parts[1::2], parts[2::2], strict=True)}


def options(unit: list[str]) -> list[str]:
    """Return the words of a unit's `podman run`."""
    (line,) = (line for line in unit if line.startswith("ExecStart="))
    return shlex.split(line.removeprefix("ExecStart="))


def test_app_joins_the_sidecar_and_restarts_with_it(units: dict[str, list[str]]) -> None:
    """The app runs in the sidecar's network without NET_RAW, starts after it, and is bound to it."""
    app = units["app.service"]
    words = options(app)
    assert words[words.index("--network") + 1] == "container:side"
    assert words[words.index("--cap-drop") + 1] == "net_raw"
    assert {"BindsTo=side.service", "After=side.service"} <= set(app)


def test_sidecar_is_started_when_it_is_healthy(units: dict[str, list[str]]) -> None:
    """The sidecar's start ends with its first healthy check, without a shell; NET_ADMIN is its only capability."""
    words = options(units["side.service"])
    assert '["/opt/imds-detour/bin/imds-detourctl", "check"]' in words
    assert {"--sdnotify=healthy", "--read-only", "--security-opt=no-new-privileges"} <= set(words)
    assert words[words.index("--cap-drop") + 1 : words.index("--read-only")] == ["all", "--cap-add", "net_admin"]
    assert "Requires=mock.service" in units["side.service"]
