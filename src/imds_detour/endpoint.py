"""An address and a TCP port, as rules match and probes connect."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from imds_detour.value import Value

Address = IPv4Address | IPv6Address


class Endpoint(Value):
    """An address and a TCP port."""

    address: Address  # IPv4 or IPv6
    port: int  # 1 to 65535

    @property
    def host(self) -> str:
        """The address in URLs and Host headers: IPv6 in brackets."""
        return f"[{self.address}]" if self.address.version == 6 else str(self.address)

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"
