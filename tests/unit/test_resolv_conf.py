"""The DNS server of a container, as read from its resolv.conf."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imds_detour.discovery.dns.resolv_conf import server_among

METADATA = ip_address("169.254.169.254")
V6 = ip_address("fd00:ec2::254")
DOCKER = "nameserver 127.0.0.11\noptions ndots:0\n# Based on host file: '/etc/resolv.conf' (internal resolver)\n"


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("nameserver 169.254.169.254\n", METADATA),
        ("search c.project.internal\nnameserver 169.254.169.254\noptions ndots:0\n", METADATA),
        ("nameserver 10.0.0.2\n  nameserver\tFD00:EC2:0::254\n", V6),
        (f"{DOCKER}# ExtServers: [host(169.254.169.254)]\n", METADATA),
        (f"{DOCKER}# ExtServers: [10.0.0.2 169.254.169.254]\n", METADATA),
        (f"{DOCKER}# ExtServers: [host(10.0.0.2)]\n", None),
        (f"{DOCKER}# not 169.254.169.254\n", None),
        ("# nameserver 169.254.169.254\n", None),
        ("nameserver 169.254.169.25\n", None),
        ("", None),
    ],
)
def test_server_is_read_from_a_line_or_dockers_comment(text: str, server: object) -> None:
    """A metadata address is read from a nameserver line, or from Docker's comment with its upstream servers."""
    assert server_among([METADATA, V6], text) == server


@given(st.text(max_size=200))
def test_resolv_conf_accepts_any_text(text: str) -> None:
    """Any text gives a listed address or None."""
    assert server_among([METADATA], f"{text}\nnameserver {text}\n# ExtServers: [{text}]") in (None, METADATA)
