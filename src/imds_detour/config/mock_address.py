"""The address of a mock: ``name``, ``name:port``, ``IPv4[:port]``, ``IPv6`` or ``[IPv6][:port]``."""

from __future__ import annotations

from ipaddress import AddressValueError, IPv4Address, IPv6Address

from imds_detour.config.presets import METADATA_ADDRESSES
from imds_detour.text import DIGITS, HEX_DIGITS, is_made_of, quoted
from imds_detour.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from imds_detour.endpoint import Address

LABEL = DIGITS | frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_-")
DEFAULT_PORT = 80
LINK_LOCAL = (
    "if the mock itself has it, on a link-local network, put the mock on another network too, or start the app without"
    " imds-detour"
)
IPV4_MAPPED = "it is an IPv4-mapped IPv6 address; use the IPv4 address"
"""::ffff:0:0/96 (RFC 4291 section 2.5.5.2): the kernel sends these connections over IPv4, past the rules for IPv6."""


class BadValueError(ValueError):
    """A value is not valid. The text is empty where the allowed values explain it."""


class MockAddress(Value):
    """A mock's host and port, equal if these are."""

    host: str | Address  # a name or an address
    port: int  # a TCP port
    default_port: bool = False  # whether no setting gives the port
    setting: str = "MOCK_HOSTNAME"  # the setting that gives the host

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MockAddress) and (self.host, self.port) == (other.host, other.port)

    def __hash__(self) -> int:
        return hash((self.host, self.port))


def parse_port(text: str) -> int:
    """Return a TCP port; BadValueError if it is not 1 to 65535."""
    # int() would also take "+80", " 80", "8_0" and other scripts' digits.
    if not is_made_of(DIGITS, text, 5) or not 1 <= int(text) <= 65535:
        raise BadValueError
    return int(text)


def parse_mock_address(text: str, port: int | None, setting: str = "MOCK_HOSTNAME") -> MockAddress:
    """Return the address of a mock; BadValueError if it is not valid, or an address that no mock can have.

    ``port`` is for a text without one; None for the default port.
    """
    host, port_of_host = parse_host_port(text)
    if not isinstance(host, str) and (reason := why_no_mock(host)):
        raise BadValueError(reason)
    port = port_of_host or port
    return MockAddress(host, port or DEFAULT_PORT, port is None, setting)


def parse_host_port(text: str) -> tuple[str | Address, int | None]:
    """Return the host and the port in a text, None without a port; BadValueError if either is not valid."""
    inside, bracket, rest = text.removeprefix("[").partition("]")
    if text.startswith("[") and bracket and rest[:1] in ("", ":"):
        host: str | Address = _ipv6(inside)
    elif text.count(":") > 1:
        host, rest = _ipv6(text), ""
    else:
        name, colon, port = text.partition(":")
        host, rest = _name(name), colon + port
    try:
        return host, parse_port(rest[1:]) if rest else None
    except BadValueError:
        raise BadValueError(f"the port {quoted(rest[1:])} is not 1 to 65535") from None


def why_no_mock(address: Address) -> str:
    """Return why no mock can be at this address, or an empty string."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    if mapped is not None:
        return why_no_mock(mapped) or IPV4_MAPPED
    reasons = (
        (address in METADATA_ADDRESSES, f"it is a metadata address, so the redirect would be a loop; {LINK_LOCAL}"),
        (address.is_unspecified, "it is the unspecified address"),
        (address.is_multicast, "it is a multicast address"),
        (address == IPv4Address("255.255.255.255"), "it is the broadcast address"),
        # RFC 1122 section 3.2.1.3 ("this network") and RFC 1112 section 4 (class E)
        (address.version == 4 and (address.is_reserved or address.packed[0] == 0), "no host can have it"),
    )
    return next((reason for applies, reason in reasons if applies), "")


def _ipv6(text: str) -> IPv6Address:
    try:
        address = IPv6Address(text)
    except AddressValueError:
        raise BadValueError("it is neither one host, perhaps with :port, nor an IPv6 address") from None
    if address.scope_id:
        raise BadValueError("an IPv6 zone (%) is valid on one machine only")
    return address


def _name(text: str) -> str | IPv4Address:
    # A last label of digits (or 0x...) is an IPv4 address or a mistake, never a name: libc reads "127.1" and
    # "0x7f000001" as numbers, DNS does not. The URL standard ("ends in a number") has the same rule.
    labels = text.removesuffix(".").split(".")
    last = labels[-1]
    if is_made_of(DIGITS, last, len(text)) or (last[:2].lower() == "0x" and HEX_DIGITS.issuperset(last[2:])):
        try:
            return IPv4Address(text)
        except AddressValueError as error:
            raise BadValueError(str(error)) from None
    # RFC 1123 labels, and the underscore of Compose service names.
    valid = (is_made_of(LABEL, label, 63) and not label.startswith("-") and not label.endswith("-") for label in labels)
    if len(text) > 253 or not all(valid):  # 253: RFC 1035 section 3.1, as text
        raise BadValueError
    return text
