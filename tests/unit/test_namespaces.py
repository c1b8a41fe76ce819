"""Recognise the host's network namespace by its signs."""

import pytest

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
