"""Detection of the host's network namespace."""

from __future__ import annotations

import pytest

from imds_detour.system.namespaces import INITIAL_NET, INITIAL_PID, NamespaceInfo, is_host_netns, read_namespace_info

CONTAINER, HOSTS = 4026532185, 4026531992


@pytest.mark.parametrize(
    ("signs", "expected"),
    [
        (NamespaceInfo(net=INITIAL_NET, pid=INITIAL_PID, net_of_init=INITIAL_NET, hardware=True, fixed=True), True),
        (NamespaceInfo(net=INITIAL_NET, pid=CONTAINER, net_of_init=INITIAL_NET, hardware=True, fixed=True), True),
        (NamespaceInfo(net=CONTAINER, pid=INITIAL_PID, net_of_init=INITIAL_NET, hardware=False, fixed=True), False),
        (NamespaceInfo(net=CONTAINER, pid=CONTAINER, net_of_init=CONTAINER, hardware=True, fixed=True), False),
        (NamespaceInfo(net=HOSTS, pid=INITIAL_PID, net_of_init=HOSTS, hardware=False, fixed=False), True),
        (NamespaceInfo(net=HOSTS, pid=CONTAINER, net_of_init=HOSTS, hardware=True, fixed=False), True),
        (NamespaceInfo(net=CONTAINER, pid=CONTAINER, net_of_init=CONTAINER, hardware=False, fixed=False), False),
        (NamespaceInfo(net=CONTAINER, pid=INITIAL_PID, net_of_init=HOSTS, hardware=False, fixed=False), False),
        (NamespaceInfo(net=CONTAINER, pid=INITIAL_PID, net_of_init=0, hardware=False, fixed=False), False),
    ],
    ids=[
        "on the host",
        "container on the host's network",
        "a namespace on the host",
        "container with a device of its own",
        "on the host, older kernel",
        "container on the host's network, older kernel",
        "container, older kernel",
        "a namespace on the host, older kernel",
        "process 1 not to be seen, older kernel",
    ],
)
def test_host_network_namespace_is_detected(signs: NamespaceInfo, expected: bool) -> None:
    """The host's namespace is detected by its fixed number, or on older kernels by hardware or process 1."""
    assert is_host_netns(signs) is expected


def test_namespace_info_is_readable() -> None:
    """Network and process namespace of this process have numbers."""
    signs = read_namespace_info()
    assert signs.net > 0
    assert signs.pid > 0
