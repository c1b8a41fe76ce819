"""Failing nftables transactions, as on a kernel that lacks a part of nf_tables."""

import re
import subprocess

from tests.support.faults.injection import Injection, calls_made, strace
from tests.support.hosts.network import MOCK, Network

BATCH = re.compile(r"sendto\(\d+, \[\[")
"""How strace shows several netlink messages in one datagram, which only a transaction has."""
LOG = "/run/sendto.log"
CLEAN = "nft list tables | grep imds_detour | while read table; do nft delete $table; done"


def places(network: Network) -> list[int]:
    """Return the numbers of a start's sendto() calls that write rules: first the guard's, then the redirect's."""
    network.success("true", prefix=strace(log=LOG, calls=["sendto"]), MOCK_HOSTNAME=MOCK, MOCK_BACKEND="nft")
    calls = calls_made(network.app.run("cat", LOG).stdout)
    network.app.run("sh", "-c", CLEAN)
    return [call.number for call in calls if BATCH.match(call.line)]


def refused(network: Network, when: str, *command: str) -> subprocess.CompletedProcess[str]:
    """Start an app with nftables while these calls fail as on a kernel that lacks the feature."""
    tracer = strace(Injection("sendto", "error=ENOENT", when))
    return network.detour(*command, prefix=tracer, MOCK_HOSTNAME=MOCK, MOCK_BACKEND="nft")
