"""docs/troubleshooting.md quotes the last lines of failing starts: each is played here and compared."""

import os
import re
from collections.abc import Callable

import pytest

from tests.support.faults.capabilities import without
from tests.support.faults.host_namespace import BY_HARDWARE
from tests.support.faults.seccomp import kernel_without
from tests.support.hosts.network import MOCK, Network

with open(os.path.join(os.path.dirname(__file__), "..", "..", "docs", "troubleshooting.md"), encoding="utf-8") as page:
    SECTION = page.read().partition("\n## The last line of a start\n")[2].partition("\n## ")[0]
QUOTED = dict(re.findall(r"^### (.+)\n\n```text\n(.+)\n```$", SECTION, re.MULTILINE))
"""The last line of a start, by its heading."""


def start(*command: str, prefix: tuple[str, ...] = (), **settings: str) -> Callable[[Network], str]:
    """Return a function that starts a command and returns all lines on stderr."""
    settings.setdefault("MOCK_TIMEOUT", "0.5")
    return lambda network: network.detour(*command, prefix=prefix, timeout=30, environment=None, **settings).stderr


def start_beside_another_service(network: Network) -> str:
    """Start while a foreign rule leads the metadata address to another service; return stderr."""
    network.start_real_service(network.mock)
    network.divert(MOCK, "80")
    return network.detour("true").stderr


LINES: dict[str, Callable[[Network], str]] = {
    "MOCK_HOSTNAME is not set": start("true", MOCK_HOSTNAME="unset"),
    "is not valid": start("true", MOCK_BACKEND="iptables"),
    "no command to run": start(),
    "command not found in PATH": start("sleep 3600"),
    "cannot execute": start("/etc/passwd"),
    "no NET_ADMIN capability": start("true", prefix=without("net_admin")),
    "this is the host's own network namespace": start("true", prefix=BY_HARDWARE),
    "there is no such name (NXDOMAIN)": start("true", MOCK_HOSTNAME="mock-meta"),
    "connection refused": start("true", MOCK_HOSTNAME=MOCK, MOCK_PORT="81"),
    "network is unreachable": start("true", MOCK_HOSTNAME="203.0.113.9"),
    "it answers 404": start("true", MOCK_PROBE="/my-path"),
    "another service answers at": start_beside_another_service,
    "the kernel has no legacy iptables here": start("true", prefix=kernel_without("legacy"), MOCK_BACKEND="legacy"),
    "no user": start("true", MOCK_USER="app"),
}


def general(line: str) -> str:
    """Return a line with the mock's and the DNS server's address replaced; those of the page are examples."""
    return re.sub(r"\b(?:172\.18\.0|10\.88\.0)\.\d+", "ADDRESS", line)


@pytest.mark.parametrize("heading", QUOTED)
def test_quoted_last_line_is_what_a_start_prints(ready: Network, heading: str) -> None:
    """A failing start prints the line of the page, which has the heading's words. Control: another one prints none."""
    if heading == "network is unreachable":
        ready.app.ip("route", "del", "default")
    last = LINES[heading](ready).splitlines()[-1]
    assert general(last) == general(QUOTED[heading])
    assert heading in last
    assert not [other for other, line in QUOTED.items() if other != heading and general(line) == general(last)]


def test_each_heading_has_a_line_and_a_scene() -> None:
    """Each heading of that section quotes a line, and each line is played."""
    assert re.findall(r"^### (.+)$", SECTION, re.MULTILINE) == list(QUOTED) == list(LINES)
