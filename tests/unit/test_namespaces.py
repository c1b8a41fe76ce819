"""The host's network namespace is recognised, and doctor refuses it; and which failure doctor fixes first."""

import pytest

from imds_detour.ctl.commands.doctor import first_failure
from imds_detour.ctl.doctor import process
from imds_detour.ctl.doctor.context import DoctorContext
from imds_detour.ctl.doctor.result import State, fail, ok, warn
from imds_detour.system.namespaces import INITIAL_NET, INITIAL_PID, NamespaceInfo, is_host_netns, read_namespace_info

CONTAINER, HOSTS = 4026532185, 4026531992


CASES = {
    "host": (NamespaceInfo(INITIAL_NET, INITIAL_PID, INITIAL_NET, hardware=True, fixed=True), True),
    "container on host network": (NamespaceInfo(INITIAL_NET, CONTAINER, INITIAL_NET, hardware=True, fixed=True), True),
    "namespace": (NamespaceInfo(CONTAINER, INITIAL_PID, INITIAL_NET, hardware=False, fixed=True), False),
    "container with a device": (NamespaceInfo(CONTAINER, CONTAINER, CONTAINER, hardware=True, fixed=True), False),
    "host, older kernel": (NamespaceInfo(HOSTS, INITIAL_PID, HOSTS, hardware=False, fixed=False), True),
    "container on host network, older kernel": (
        NamespaceInfo(HOSTS, CONTAINER, HOSTS, hardware=True, fixed=False),
        True,
    ),
    "container, older kernel": (NamespaceInfo(CONTAINER, CONTAINER, CONTAINER, hardware=False, fixed=False), False),
    "namespace, older kernel": (NamespaceInfo(CONTAINER, INITIAL_PID, HOSTS, hardware=False, fixed=False), False),
    "hidden process 1, older kernel": (NamespaceInfo(CONTAINER, INITIAL_PID, 0, hardware=False, fixed=False), False),
}


@pytest.mark.parametrize(("info", "expected"), CASES.values(), ids=CASES)
def test_hosts_namespace_is_recognised(info: NamespaceInfo, expected: bool) -> None:
    """A fixed number identifies the host's namespace; on older kernels, hardware or process 1's namespace does."""
    assert is_host_netns(info) is expected


def test_namespace_info_has_both_numbers() -> None:
    """The network and the PID namespace of this process have inode numbers."""
    info = read_namespace_info()
    assert info.net > 0
    assert info.pid > 0


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
    """The remedy is that of the first failure, since later ones may follow from it; a warning does not count."""
    first = fail("seen", "do this")
    assert first_failure([warn("seen", "perhaps"), first, fail("seen", "and that")]) is first
    assert first_failure([ok("seen"), warn("seen", "perhaps")]) is None
