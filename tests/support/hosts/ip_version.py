"""The two IP versions as test parameters: their addresses and their commands."""

from dataclasses import dataclass

import pytest

from tests.support.hosts.network import APP, APP6, METADATA, MOCK, MOCK6


@dataclass(frozen=True, slots=True)
class IpVersion:
    """The addresses and commands of one IP version.

    Attributes:
        other: a second address of the mock's host, for a second mock.
        length: the prefix length of both hosts.
        nft: nft's name for packets of this version.

    """

    version: int
    metadata: str
    mock: str
    other: str
    app: str
    length: int
    nft: str
    iptables: str

    def at(self, address: str, port: int | str) -> str:
        """Return an address with a port."""
        return f"[{address}]:{port}" if self.version == 6 else f"{address}:{port}"


V4 = IpVersion(4, METADATA, MOCK, "10.88.0.4", APP, 24, "ip", "iptables-legacy")
V6 = IpVersion(6, "fd00:ec2::254", MOCK6, "fd88::4", APP6, 64, "ip6", "ip6tables-legacy")
IP_VERSIONS = [pytest.param(V4, id="IPv4"), pytest.param(V6, id="IPv6")]
