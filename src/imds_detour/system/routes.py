"""Make the metadata address routable where it is not, through a route that cannot leave the machine.

connect() picks a route and a source address before any firewall hook sees the packet. Without a route it fails at once
(networks without a gateway); with the wrong source the translated packet leaves by a network where the mock is not.
A /32 route over the loopback device with the right source cures both, and lets nothing out when no redirect stands.
"""

from __future__ import annotations

import errno
import os
import struct
from contextlib import closing
from ipaddress import IPv4Address, ip_address

from imds_detour.errors import DetourError, words
from imds_detour.lean import socket
from imds_detour.system.netlink import (
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_EXCL,
    Message,
    attribute,
    attributes,
    talk,
)
from imds_detour.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from imds_detour.endpoint import Address

# linux/rtnetlink.h
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RT_TABLE_MAIN, RT_SCOPE_LINK, RTN_UNICAST = 254, 253, 1
RTA_DST, RTA_OIF, RTA_PREFSRC = 1, 4, 7
RTMSG_SIZE, RTM_PROTOCOL = 12, 5  # struct rtmsg, and where rtm_protocol is in it

PROTOCOL = 169
"""Who installed the route (rtm_protocol); free in iproute2's rt_protos. It marks ours, and only those are removed."""


class Route(Value):
    """A route to one address over the loopback device.

    Attributes:
        to: the metadata address.
        source: the source address that its connections take.

    """

    to: Address
    source: Address


def source_toward(address: Address) -> Address | None:
    """Return the source address that a connection to ``address`` would take, or None without a route. Sends nothing."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with closing(socket.socket(family, socket.SOCK_DGRAM)) as probe:
        try:
            probe.connect((str(address), 9))  # any port: connecting a datagram socket is a look into the routing table
        except OSError:
            return None
        return ip_address(probe.getsockname()[0])


def needed(metadata: Address, mock: Address) -> Route | None:
    """Return the route that connections to ``metadata`` need in order to reach ``mock``, or None.

    Raises:
        DetourError: when there is no route to the mock either.

    """
    source = source_toward(mock)
    if source is None:
        raise DetourError("route", f"no route to the mock at {mock}", "put the app and the mock on a common network")
    present = source_toward(metadata)
    if present is None or (present != source and not mock.is_loopback):
        return Route(metadata, source)
    return None


def add(route: Route) -> Route | None:
    """Install a route, and return one of ours to the same address that has given way, if any.

    Raises:
        DetourError: when the kernel refuses, or a route of somebody else's is in the place.

    """
    before: Route | None = None
    number = _change(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, route)
    if number == errno.EEXIST:
        before = next((each for each in ours() if each.to == route.to), None)
        remove(route)
        number = _change(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, route)
    if number:
        put_back(route, before)
        raise DetourError(
            "route",
            f"cannot add a route to {route.to} with source {route.source}: {os.strerror(number).lower()}",
            f"`ip route show {route.to}` lists what is in the place: remove it" if number == errno.EEXIST else "",
        )
    return before


def remove(route: Route) -> None:
    """Remove our route to an address; none there is fine."""
    _change(RTM_DELROUTE, 0, route)


def put_back(route: Route, before: Route | None) -> None:
    """Undo what add() has done: the route goes, and what had given way to it comes back where the kernel lets it."""
    remove(route)
    if before is not None:
        _change(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, before)


def ours() -> tuple[Route, ...]:
    """Return the routes in this network namespace that we have added.

    Raises:
        DetourError: when the kernel does not list them.

    """
    found = []
    for family in (socket.AF_INET, socket.AF_INET6):
        question = Message(RTM_GETROUTE, NLM_F_DUMP, bytes([family]) + bytes(RTMSG_SIZE - 1))
        try:
            listed = talk(socket.NETLINK_ROUTE, [question])
        except OSError as error:
            raise DetourError("route", f"cannot list the routes: {words(error)}") from None
        for body in listed:
            told = attributes(body[RTMSG_SIZE:])
            if body[0] == family and body[RTM_PROTOCOL] == PROTOCOL and {RTA_DST, RTA_PREFSRC} <= told.keys():
                found.append(Route(ip_address(told[RTA_DST]), ip_address(told[RTA_PREFSRC])))
    return tuple(found)


def _change(kind: int, flags: int, route: Route) -> int:
    """Send one request over rtnetlink and return the errno of its acknowledgement, 0 for success."""
    family = socket.AF_INET if isinstance(route.to, IPv4Address) else socket.AF_INET6
    body = struct.pack(
        "=8BI", family, route.to.max_prefixlen, 0, 0, RT_TABLE_MAIN, PROTOCOL, RT_SCOPE_LINK, RTN_UNICAST, 0
    )
    body += attribute(RTA_DST, route.to.packed)
    if kind == RTM_NEWROUTE:  # one to delete may have the source of an earlier start
        body += attribute(RTA_PREFSRC, route.source.packed)
    try:
        body += attribute(RTA_OIF, struct.pack("=I", socket.if_nametoindex("lo")))
        talk(socket.NETLINK_ROUTE, [Message(kind, NLM_F_ACK | flags, body)])
    except OSError as error:
        return error.errno or errno.EIO
    return 0
