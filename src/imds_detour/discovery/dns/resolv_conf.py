"""/etc/resolv.conf: find a DNS server that the guard would close.

On Google Cloud, 169.254.169.254 is the DNS server too. The container asks it, or Docker's embedded server does so from
inside the container's network namespace.
"""

from __future__ import annotations

from contextlib import suppress
from ipaddress import ip_address

from imds_detour.system.files import read as read_file
from imds_detour.text import HEX_DIGITS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from imds_detour.endpoint import Address

PATH = "/etc/resolv.conf"
MAX_SIZE = 65_536
"""Bytes to read. Kubernetes allows a search list of 2,048."""
EXTERNAL_SERVERS = "# ExtServers: ["
"""Docker's comment (libnetwork, since Engine 25) with the servers that its embedded server asks."""
ADDRESS_CHARACTERS = HEX_DIGITS | {".", ":"}


def find_server(addresses: Iterable[Address], text: str) -> Address | None:
    """Return the first of these addresses that is a DNS server in the text of a resolv.conf."""
    servers = set()
    for line in text.splitlines():
        keyword, *words = line.split() or [""]
        if line.startswith(EXTERNAL_SERVERS):
            entries = line.removeprefix(EXTERNAL_SERVERS).partition("]")[0]
            words = "".join(sign if sign in ADDRESS_CHARACTERS else " " for sign in entries).split()
        elif keyword == "nameserver":  # resolv.conf(5)
            words = words[:1]
        else:
            continue
        for word in words:
            with suppress(ValueError):
                servers.add(ip_address(word))
    return next((address for address in addresses if address in servers), None)


def read() -> str:
    """Return the file's text; an empty string if it cannot be read."""
    try:
        return read_file(PATH, MAX_SIZE).decode("utf-8", "replace")
    except OSError:
        return ""
