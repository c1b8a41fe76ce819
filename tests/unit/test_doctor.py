"""Results of doctor checks that need no network namespace."""

import pytest

from imds_detour.ctl.commands.doctor import first_failure
from imds_detour.ctl.doctor import process
from imds_detour.ctl.doctor.context import DoctorContext
from imds_detour.ctl.doctor.result import State, fail, ok, warn
from imds_detour.system.namespaces import INITIAL_NET, INITIAL_PID, NamespaceInfo


def case(net: int) -> DoctorContext:
    """Return a doctor's context for a network namespace with this number."""
    made = object.__new__(DoctorContext)
    made.__dict__["namespace"] = NamespaceInfo(net, INITIAL_PID, INITIAL_NET, hardware=False, fixed=True)
    return made


@pytest.mark.parametrize(("net", "state"), [(INITIAL_NET, State.FAIL), (INITIAL_NET - 1, State.OK)])
def test_doctor_refuses_the_hosts_network_namespace(net: int, state: State) -> None:
    """In the host's network namespace the check fails, and its remedy is the Compose line for a container network."""
    finding = process.network_namespace(case(net))
    assert finding.state is state
    assert ("no `network_mode: host` in Compose" in finding.remedy) is (state is State.FAIL)


def test_doctor_fixes_the_first_failure() -> None:
    """The remedy is that of the first failure, since later ones may follow from it.

    A warning before it does not count.
    """
    first = fail("b", "seen", "do this")
    assert first_failure([warn("a", "seen", "perhaps"), first, fail("c", "seen", "and that")]) is first
    assert first_failure([ok("a", "seen"), warn("b", "seen", "perhaps")]) is None
