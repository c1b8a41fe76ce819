"""Where clouds answer for their metadata: presets as data, each address with its source."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address

Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    """An address and a TCP port.

    Attributes:
        address: IPv4 or IPv6.
        port: 1 to 65535.

    """

    address: Address
    port: int

    @property
    def host(self) -> str:
        """The address as URLs and Host headers have it: IPv6 in brackets."""
        return f"[{self.address}]" if self.address.version == 6 else str(self.address)

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Preset:
    """One kind of metadata service.

    Attributes:
        name: as MOCK_ENDPOINTS spells it.
        endpoints: where SDKs look for it.
        path: what the probe asks for; its body is stable, and differs from one machine to the next.

    """

    name: str
    endpoints: tuple[Endpoint, ...]
    path: str


AWS = Preset(
    # EC2 user guide, "Access instance metadata"
    name="aws",
    endpoints=(Endpoint(IPv4Address("169.254.169.254"), 80), Endpoint(IPv6Address("fd00:ec2::254"), 80)),
    path="/latest/meta-data/instance-id",
)

PRESETS = {preset.name: preset for preset in (AWS,)}

METADATA_ADDRESSES = frozenset(
    ip_address(text)
    for text in (
        "169.254.169.254",  # AWS, GCP, Azure and most others
        "fd00:ec2::254",  # AWS over IPv6
        "169.254.170.2",  # Amazon ECS task credentials
        "169.254.170.23",  # Amazon EKS pod identity
        "fd00:ec2::23",  # the same over IPv6
        "100.100.100.200",  # Alibaba Cloud
        "169.254.42.42",  # Scaleway
        "fd00:42::42",  # the same over IPv6
        "fd00:c1::a9fe:a9fe",  # Oracle Cloud over IPv6
        "fd00:a9fe:a9fe::1",  # Akamai over IPv6
    )
)
"""Addresses at which a real service answers on somebody's machine: a mock cannot be there."""


THIS_NETWORK = IPv4Network("0.0.0.0/8")


def unfit_for_mock(address: Address) -> str:
    """Say why no mock can be at this address, or return an empty string when one can."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    if mapped is not None:
        return unfit_for_mock(mapped) or "it is an IPv4 address in IPv6 clothes; give the IPv4 address"
    reasons = (
        (address in METADATA_ADDRESSES, "it is a metadata address itself, so the redirect would lead back to it"),
        (address.is_unspecified, "it is the unspecified address"),
        (address.is_multicast, "it is a multicast address"),
        (address == IPv4Address("255.255.255.255"), "it is the broadcast address"),
        # RFC 1122 section 3.2.1.3 ("this network") and RFC 1112 section 4 (class E)
        (address.version == 4 and (address.is_reserved or address in THIS_NETWORK), "no host can have it"),
    )
    return next((reason for applies, reason in reasons if applies), "")
