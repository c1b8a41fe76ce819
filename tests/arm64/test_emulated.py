"""An emulated image: the arm64 bundle on x86-64, by QEMU's user mode, which the kernel starts for arm64 programs.

QEMU's user mode passes neither the socket options of iptables nor netfilter's netlink, so there is no redirect.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from imds_detour.advice.access import BUILD_FOR_MACHINE
from imds_detour.advice.failure import MORE
from tests.arm64.image import BUNDLE
from tests.support.hosts.network import CTL, INSTANCE

QEMU = "qemu-aarch64"
REGISTER = (
    r":arm64:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
    r":\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:{}:F"
)
"""Let the kernel start this program for arm64 programs (admin-guide/binfmt-misc.rst), as Docker Desktop does."""
INSIDE = """
ip link set lo up
mount -t binfmt_misc binfmt_misc /run || exit 77
printf %s "$1" >/run/register
"$2" mock --listen 127.0.0.1:1338 >"$3" 2>&1 &
trap "kill $!" EXIT
until [ -s "$3" ]; do sleep 0.05; done
shift 3
"$@"
"""
"""A user namespace has its own list of such programs since Linux 6.7; an older kernel refuses the mount."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.uname().machine == "aarch64", reason="arm64 programs are not emulated on arm64"),
]


def emulated(folder: Path, program: str, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a program of the arm64 bundle in namespaces where arm64 programs are emulated, with a mock on loopback."""
    qemu = shutil.which(QEMU) or pytest.skip(f"{QEMU} is not installed; `make test-arm64` installs it")
    if not os.path.exists(BUNDLE):
        pytest.skip("no arm64 bundle; `make test-arm64` builds it")
    namespaces = ("unshare", "--user", "--map-root-user", "--net", "--mount")
    command = (*namespaces, "sh", "-c", INSIDE, "sh", REGISTER.format(qemu), CTL, str(folder / "mock"), program, *words)
    environ = {"PATH": os.environ["PATH"], "MOCK_HOSTNAME": "127.0.0.1:1338", **settings}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode == 77:
        pytest.skip(f"this kernel has no emulation by namespace: {done.stderr.strip()}")
    return done


@pytest.mark.parametrize("backend", ["auto", "legacy", "nft"])
def test_failed_start_of_an_emulated_image_names_the_cure(tmp_path: Path, backend: str) -> None:
    """The app does not start, and the line says that the image is emulated and what to do, not to load modules."""
    done = emulated(tmp_path, f"{BUNDLE}/bin/imds-detour", "echo", "started", MOCK_BACKEND=backend)
    assert (done.returncode, done.stdout) == (125, ""), done.stderr
    assert done.stderr.endswith(f"; {BUILD_FOR_MACHINE}; {MORE}\n")
    assert re.search("emulated .*for this machine's architecture", done.stderr)
    assert (done.stderr.count("\n"), "modprobe" in done.stderr) == (1, False)


def test_doctor_of_an_emulated_image_names_the_cure(tmp_path: Path) -> None:
    """The one thing to fix is the emulation."""
    done = emulated(tmp_path, f"{BUNDLE}/bin/imds-detourctl", "doctor")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (1, f"Fix (nftables): {BUILD_FOR_MACHINE}"), done.stderr


def test_backend_env_works_in_an_emulated_image(tmp_path: Path) -> None:
    """Variables need no firewall."""
    done = emulated(tmp_path, f"{BUNDLE}/bin/imds-detour", "echo", "started", MOCK_BACKEND="env")
    assert (done.returncode, done.stdout) == (0, "started\n"), done.stderr
    assert f"verified IMDSv2 {INSTANCE}" in done.stderr


def test_the_same_start_without_emulation_succeeds(tmp_path: Path) -> None:
    """Negative control: in the same namespaces this machine's own programs start, and no line names an emulator."""
    done = emulated(tmp_path, f"{os.path.dirname(CTL)}/imds-detour", "echo", "started", PYTHONDONTWRITEBYTECODE="1")
    assert (done.returncode, done.stdout, "emulat" in done.stderr) == (0, "started\n", False), done.stderr
