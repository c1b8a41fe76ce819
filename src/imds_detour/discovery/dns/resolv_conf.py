"""/etc/resolv.conf, read for one question only: whether the guard closes the container's own DNS server.

On Google Cloud 169.254.169.254 is the DNS server too. A container has it there itself, or Docker's embedded server asks
it on the container's behalf, from within its network namespace.
"""

from __future__ import annotations

from ipaddress import ip_address

from imds_detour.text import HEX_DIGITS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from imds_detour.endpoint import Address

PATH = "/etc/resolv.conf"
LARGEST = 65_536
"""Characters of it that count. Kubernetes allows a search list of 2,048; a line takes 50 microseconds to read."""
DOCKERS = "# ExtServers: ["
"""The comment in which Docker (libnetwork, since Engine 25) lists whom its own server asks."""
OF_ADDRESSES = HEX_DIGITS | {".", ":"}


def server_among(addresses: Iterable[Address], text: str) -> Address | None:
    """Return the first of these addresses that a resolv.conf's text names as a DNS server."""
    named = {word for line in text.splitlines() for word in _servers(line)}
    return next((address for address in addresses if any(_is(word, address) for word in named)), None)


def _servers(line: str) -> list[str]:
    words = line.split()
    if words[:1] == ["nameserver"]:  # resolv.conf(5)
        return words[1:2]
    if line.startswith(DOCKERS):
        listed = line.removeprefix(DOCKERS).partition("]")[0]
        return "".join(sign if sign in OF_ADDRESSES else " " for sign in listed).split()
    return []


def read() -> str:
    """Return the file's text; nothing where there is none."""
    try:
        with open(PATH, encoding="utf-8", errors="replace") as file:
            return file.read(LARGEST)
    except OSError:
        return ""


def _is(word: str, address: Address) -> bool:
    try:
        return ip_address(word) == address
    except ValueError:
        return False
