"""scripts/engine: an engine for tests, which does not change the machine."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker.engine import HOME, ROOT, Engine

SCRIPT = f"{ROOT}/scripts/engine"
COMMANDS = (
    ("iptables-legacy-save",),
    ("ip6tables-legacy-save",),
    ("nft", "--stateless", "list", "ruleset"),
    ("ip", "-brief", "link"),
    ("ip", "address"),
    ("ip", "route", "show", "table", "all"),
    ("ip", "-6", "route", "show", "table", "all"),
    ("ip", "rule"),
    ("sysctl", "--all", "--pattern", r"^net\.|^kernel\.keys"),
)
COUNTERS = re.compile(
    r"^(#.*|net\.netfilter\.nf_conntrack_count.*|.*random.*|net\.ipv4\.tcp_fastopen_key.*)$|\[\d+:\d+\]| *valid_lft.*"
    r"| expires \d+sec| hoplimit \d+",
    re.MULTILINE,
)


def machine() -> list[str]:
    """Return the machine's firewall, interfaces, routes and sysctls, without counters."""
    shown = [subprocess.run(command, capture_output=True, text=True, check=False).stdout for command in COMMANDS]
    assert all(shown[3:]), "the machine can be looked at"
    return [COUNTERS.sub("", text) for text in shown]


def leftovers(home: str) -> list[str]:
    """Return the processes, mounts and control groups of an engine."""
    processes = subprocess.run(["ps", "-ewwo", "args"], capture_output=True, text=True, check=True).stdout.splitlines()
    with open("/proc/self/mounts") as file:
        mounts = file.read().splitlines()
    key = subprocess.run(["cksum"], input=home, capture_output=True, text=True, check=True).stdout.split()[0]
    groups = [folder for folder, _, _ in os.walk("/sys/fs/cgroup") if folder.endswith(f"imds-detour-engine-{key}")]
    return [line for line in (*processes, *mounts) if home in line] + groups


@pytest.fixture
def home(engine: Engine, tmp_path: Path) -> Iterator[str]:
    """Yield the folder of a second engine with the first one's programs, and stop it at the end."""
    del engine  # start a second engine only where a first one is wanted
    if os.getuid():
        pytest.skip("only root can start an engine")
    os.symlink(f"{HOME}/debian13", tmp_path / "debian13")
    yield str(tmp_path)
    subprocess.run([SCRIPT, "stop"], env={**os.environ, "ENGINE_HOME": str(tmp_path)}, check=True)


def test_engine_does_not_change_the_machine(home: str) -> None:
    """The machine's firewall, interfaces, routes and sysctls are the same while the engine runs and after it."""
    environ = {**os.environ, "ENGINE_HOME": home}
    before = machine()
    subprocess.run([SCRIPT, "start"], env=environ, check=True, timeout=120)
    engine = Engine(f"unix://{home}/docker.sock")
    engine.run("network", "create", "--internal", "--subnet", "169.254.169.0/24", "metadata")
    assert machine() == before
    assert leftovers(home)
    subprocess.run([SCRIPT, "start"], env=environ, check=True, timeout=60)
    assert engine.says("network", "ls", "--quiet", "--filter", "name=metadata"), "a second start changes nothing"
    subprocess.run([SCRIPT, "stop"], env=environ, check=True, timeout=60)
    assert (machine(), leftovers(home)) == (before, [])


def test_comparison_detects_a_change() -> None:
    """Negative control: a rule, an interface and a sysctl in another namespace each make a difference."""
    script = (
        "from tests.docker.test_engine import machine; import subprocess, sys\n"
        "before = machine()\n"
        "for change in (['iptables-legacy', '-t', 'nat', '-N', 'X'], ['nft', 'add', 'table', 'ip', 'x'],"
        " ['ip', 'link', 'add', 'br0', 'type', 'bridge'], ['sysctl', '-q', 'net.ipv4.ip_forward=1']):\n"
        "    subprocess.run(change, check=True)\n"
        "    after = machine()\n"
        "    assert after != before, change\n"
        "    before = after\n"
    )
    python = f"{ROOT}/.venv/bin/python"
    command = [python, "-m", "imds_detour.ctl.lab.sandbox", python, "-c", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
