"""Recognise the host's network namespace by its signs."""

import pytest

from imds_detour.system.namespaces import INITIAL_NET, INITIAL_PID, NamespaceInfo, is_host_netns, read_namespace_info

CONTAINER, HOSTS = 4026532185, 4026531992


@pytest.mark.parametrize(
    ("info", "expected"),
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
        "container with its own hardware device",
        "on the host, older kernel",
        "container on the host's network, older kernel",
        "container, older kernel",
        "a namespace on the host, older kernel",
        "process 1 is hidden, older kernel",
    ],
)
def test_hosts_namespace_is_recognised(info: NamespaceInfo, expected: bool) -> None:
    """A fixed number identifies the host's namespace; on older kernels, hardware or process 1's namespace does."""
    assert is_host_netns(info) is expected


def test_namespace_info_has_both_numbers() -> None:
    """The network and the PID namespace of this process have inode numbers."""
    info = read_namespace_info()
    assert info.net > 0
    assert info.pid > 0
