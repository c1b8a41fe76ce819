"""Routes over the loopback device that make a metadata address routable.

connect() chooses a route and a source address before a firewall hook sees the packet. Without a route (in a network
without a gateway) it fails at once. With the wrong source, the redirected packet leaves by a network without the mock.
A /32 route over loopback with the right source solves both. Without a redirect, its packets cannot leave the machine.
"""

from __future__ import annotations

import errno
import os
import struct
from contextlib import closing
from ipaddress import IPv4Address, ip_address

from imds_detour.errors import DetourError, error_text
from imds_detour.lean import socket
from imds_detour.system import netlink
from imds_detour.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from imds_detour.endpoint import Address

# linux/rtnetlink.h
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RT_TABLE_MAIN, RT_SCOPE_LINK, RTN_UNICAST = 254, 253, 1
RTA_DST, RTA_OIF, RTA_PREFSRC = 1, 4, 7
RTMSG_SIZE, RTM_TABLE, RTM_PROTOCOL = 12, 4, 5  # struct rtmsg, and the positions of rtm_table and rtm_protocol in it

PROTOCOL = 169
"""rtm_protocol, the program that installed a route; unused in iproute2's rt_protos. Only such routes are removed."""
NEW = netlink.NLM_F_CREATE | netlink.NLM_F_EXCL


class Route(Value):
    """A route to one address over the loopback device."""

    to: Address  # the metadata address
    source: Address  # source address of its connections


def source_toward(address: Address) -> Address | None:
    """Return the source address of connections to an address, or None without a route. Nothing is sent."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with closing(socket.socket(family, socket.SOCK_DGRAM)) as datagram:
        try:
            datagram.connect((str(address), 9))  # any port: the kernel only looks the route up
        except OSError:
            return None
        return ip_address(datagram.getsockname()[0])


def required_route(metadata: Address, mock: Address) -> Route | None:
    """Return the route that connections to ``metadata`` need to reach ``mock``, or None; DetourError if none can."""
    source = source_toward(mock)
    if source is None:
        from imds_detour.advice.access import NO_ROUTE  # noqa: PLC0415  (only a start that fails needs it)

        raise DetourError("route", f"no route to the mock at {mock}", NO_ROUTE)
    present = source_toward(metadata)
    if present is None or (present != source and not mock.is_loopback):
        return Route(metadata, source)
    return None


def routes_loopback() -> bool:
    """Return whether packets from other devices may go to 127.0.0.0/8 (route_localnet in ip-sysctl.rst)."""
    try:
        with open("/proc/sys/net/ipv4/conf/all/route_localnet") as setting:
            return setting.read().strip() == "1"
    except OSError:
        return False


def add(route: Route) -> Route | None:
    """Install a route, and return imds-detour's own one that it replaces; DetourError if there is a foreign one."""
    replaced: Route | None = None
    number = _change(RTM_NEWROUTE, NEW, route)
    if number == errno.EEXIST:
        replaced = next((other for other in installed_routes() if other.to == route.to), None)
        if replaced is not None:
            remove(replaced)
            number = _change(RTM_NEWROUTE, NEW, route)
    if number:
        remedy = f"`ip route show {route.to}` lists the other route: remove it" if number == errno.EEXIST else ""
        error = _refused(f"cannot add a route to {route.to} with source {route.source}", number, remedy)
        if replaced is not None and (second := _change(RTM_NEWROUTE, NEW, replaced)):
            error.reason += f"; the earlier route is lost: {os.strerror(second).lower()}"
        raise error
    return replaced


def remove(route: Route) -> None:
    """Remove imds-detour's route to an address, if there is one; DetourError if it remains."""
    number = _change(RTM_DELROUTE, 0, route)
    if number not in (0, errno.ESRCH):
        remedy = "add NET_ADMIN; `ip route show proto 169` lists the routes that remain"
        raise _refused(f"cannot remove the route to {route.to}", number, remedy)


def undo_add(route: Route, replaced: Route | None) -> None:
    """Remove a route, and install the one that it replaced; DetourError if the kernel refuses."""
    remove(route)
    if replaced is not None and (number := _change(RTM_NEWROUTE, NEW, replaced)):
        raise _refused(f"cannot restore the route to {replaced.to}", number, "")


def installed_routes() -> tuple[Route, ...]:
    """Return imds-detour's routes in this network namespace; DetourError if the kernel does not list them."""
    routes = []
    for family in (socket.AF_INET, socket.AF_INET6):
        request = netlink.Message(RTM_GETROUTE, netlink.NLM_F_DUMP, bytes([family]) + bytes(RTMSG_SIZE - 1))
        try:
            with netlink.open_netlink(socket.NETLINK_ROUTE) as kernel:
                bodies = kernel.talk([request])
        except OSError as error:
            raise DetourError("route", f"cannot list the routes: {error_text(error)}") from None
        for body in bodies:
            parts = netlink.attributes(body[RTMSG_SIZE:])
            marked = (body[0], body[RTM_TABLE], body[RTM_PROTOCOL]) == (family, RT_TABLE_MAIN, PROTOCOL)
            if marked and {RTA_DST, RTA_PREFSRC} <= parts.keys():
                routes.append(Route(ip_address(parts[RTA_DST]), ip_address(parts[RTA_PREFSRC])))
    return tuple(routes)


def _refused(what: str, number: int, remedy: str) -> DetourError:
    return DetourError("route", f"{what}: {os.strerror(number).lower()}", remedy)


def _change(kind: int, flags: int, route: Route) -> int:
    """Send a request over rtnetlink, and return the errno of its acknowledgement, 0 for success."""
    family = socket.AF_INET if isinstance(route.to, IPv4Address) else socket.AF_INET6
    body = struct.pack(
        "=8BI", family, route.to.max_prefixlen, 0, 0, RT_TABLE_MAIN, PROTOCOL, RT_SCOPE_LINK, RTN_UNICAST, 0
    )
    body += netlink.attribute(RTA_DST, route.to.packed)
    if kind == RTM_NEWROUTE:  # not for a removal: the route of an earlier start may have another source
        body += netlink.attribute(RTA_PREFSRC, route.source.packed)
    try:
        body += netlink.attribute(RTA_OIF, struct.pack("=I", socket.if_nametoindex("lo")))
        with netlink.open_netlink(socket.NETLINK_ROUTE) as kernel:
            kernel.talk([netlink.Message(kind, netlink.NLM_F_ACK | flags, body)])
    except OSError as error:
        return error.errno or errno.EIO
    return 0
