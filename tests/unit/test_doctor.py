"""What the doctor makes of what it sees, where no namespace can be had that shows it."""

from __future__ import annotations

import pytest

from imds_detour.ctl.commands.doctor import first_failure
from imds_detour.ctl.doctor import process
from imds_detour.ctl.doctor.context import DoctorContext
from imds_detour.ctl.doctor.result import State, fail, ok, warn
from imds_detour.system.namespaces import INITIAL_NET, INITIAL_PID, NamespaceInfo


def case(net: int) -> DoctorContext:
    """Return a case in a network namespace with this number; nothing is looked at for it."""
    made = object.__new__(DoctorContext)
    made.__dict__["namespace"] = NamespaceInfo(net, INITIAL_PID, INITIAL_NET, hardware=False, fixed=True)
    return made


@pytest.mark.parametrize(("net", "state"), [(INITIAL_NET, State.FAIL), (INITIAL_NET - 1, State.OK)])
def test_the_hosts_own_network_namespace_is_refused(net: int, state: State) -> None:
    """With the Compose line that gives the container one of its own."""
    finding = process.network_namespace(case(net))
    assert finding.state is state
    assert ("no `network_mode: host` in Compose" in finding.remedy) is (state is State.FAIL)


def test_the_first_failure_is_the_one_to_change() -> None:
    """Those after it may be but its consequences; a warning before it stops nothing."""
    first = fail("b", "seen", "do this")
    assert first_failure([warn("a", "seen", "perhaps"), first, fail("c", "seen", "and that")]) is first
    assert first_failure([ok("a", "seen"), warn("b", "seen", "perhaps")]) is None
