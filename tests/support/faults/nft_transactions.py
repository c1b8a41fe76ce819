"""System calls that write to nftables, to be made to fail: a kernel that has nf_tables, and lacks a part of it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests.support.faults.injection import Injection, calls_made, strace
from tests.support.hosts.network import DETOUR, MOCK

if TYPE_CHECKING:
    import subprocess

    from tests.support.hosts.network import Network

BATCH = re.compile(r"sendto\(\d+, \[\[")
"""How strace shows several netlink messages in one datagram; of ours, none but a transaction has them."""
LOG = "/run/sendto.log"
CLEAN = "nft list tables | grep imds_detour | while read table; do nft delete $table; done"


def places(network: Network) -> list[int]:
    """Return which of a start's calls of sendto() write rules: the guard's first, then the redirect's."""
    environ = network.settings(None, MOCK_HOSTNAME=MOCK, MOCK_BACKEND="nft")
    network.app.run(*strace(log=LOG, calls=["sendto"]), DETOUR, "true", environ=environ)
    calls = calls_made(network.app.run("cat", LOG).stdout)
    network.app.run("sh", "-c", CLEAN)
    return [call.number for call in calls if BATCH.match(call.line)]


def refused(network: Network, when: str, *command: str) -> subprocess.CompletedProcess[str]:
    """Start an app with nftables, while the kernel answers these calls as one that lacks what they ask for."""
    environ = network.settings(None, MOCK_HOSTNAME=MOCK, MOCK_BACKEND="nft")
    tracer = strace(Injection("sendto", "error=ENOENT", when))
    return network.app.run(*tracer, DETOUR, *command, environ=environ, check=False)
