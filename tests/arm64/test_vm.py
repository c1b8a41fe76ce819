"""The arm64 bundle on an arm64 kernel: both firewalls, IPv6, privileges, signals, the sidecar."""

import os
import re
import shutil

import pytest

from tests.arm64 import vm
from tests.arm64.cases import CASES, Case
from tests.arm64.image import INITRAMFS

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def machine() -> tuple[dict[int, vm.Seen], str]:
    """Return the results of all checks and the console, of one run of the machine."""
    if not shutil.which(vm.QEMU):
        pytest.skip(f"{vm.QEMU} is not installed; `make test-arm64` installs it, or names its package")
    if not os.path.exists(INITRAMFS):
        pytest.skip("no arm64 kernel and bundle; `make test-arm64` makes them")
    results, console = vm.run()
    assert "@@ failed" not in console, console[:2000]
    return results, console


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_arm64(machine: tuple[dict[int, vm.Seen], str], case: Case) -> None:
    """Each check of cases.py, in the order of the run, prints what it must, and exits with its status."""
    results, console = machine
    seen = results.get(CASES.index(case))
    assert seen, f"the machine ended before this check; its console ends with\n{console[-2000:]}"
    printed = f"{case.script}\nexited with {seen.status} and printed\n{seen.out}and on stderr\n{seen.err}"
    assert seen.status == case.status, printed
    for pattern in case.says:
        found = [re.search(pattern, text, re.MULTILINE) for text in (seen.out, seen.err)]
        assert any(found), f"no {pattern!r}: {printed}"
    unwanted = re.search(case.never, seen.out + seen.err)
    assert not unwanted, f"{unwanted} must not be there: {printed}"
