"""The DNS servers in a container's resolv.conf."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imds_detour.discovery.dns.resolv_conf import find_server

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
def test_server_is_in_a_line_or_in_dockers_comment(text: str, server: object) -> None:
    """A nameserver line counts, and so does the comment with the servers that Docker's embedded server asks."""
    assert find_server([METADATA, V6], text) == server


@given(st.text(max_size=200))
def test_any_text_has_an_answer(text: str) -> None:
    """Random text in resolv.conf raises no exception, and gives no other address."""
    assert find_server([METADATA], f"{text}\nnameserver {text}\n# ExtServers: [{text}]") in (None, METADATA)
