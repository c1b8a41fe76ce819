"""Where a connection of this process leads, by the kernel's connection tracking."""

from __future__ import annotations

import struct
from ipaddress import ip_address

from imds_detour.endpoint import Endpoint
from imds_detour.system import netlink

NETLINK_NETFILTER = 12  # linux/netlink.h
CT_GET = 0x101  # linux/netfilter/nfnetlink.h, nfnetlink_conntrack.h: NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET
IPPROTO_TCP = 6
# linux/netfilter/nfnetlink_conntrack.h
CTA_TUPLE_ORIG, CTA_TUPLE_REPLY = 1, 2
CTA_TUPLE_IP, CTA_TUPLE_PROTO = 1, 2
CTA_IP_SOURCE, CTA_IP_DESTINATION = {4: 1, 6: 3}, {4: 2, 6: 4}  # by IP version
CTA_PROTO_NUM, CTA_PROTO_SRC_PORT, CTA_PROTO_DST_PORT = 1, 2, 3


def leads_to(client: Endpoint, server: Endpoint) -> Endpoint | None:
    """Return the endpoint that answers a TCP connection after translation; None if the kernel does not say.

    It needs NET_ADMIN, and connection tracking by netlink, which a kernel may lack (nf_conntrack_netlink).
    """
    version = server.address.version
    addresses = (
        netlink.attribute(CTA_IP_SOURCE[version], client.address.packed),
        netlink.attribute(CTA_IP_DESTINATION[version], server.address.packed),
    )
    ports = (
        netlink.attribute(CTA_PROTO_NUM, bytes([IPPROTO_TCP])),
        netlink.attribute(CTA_PROTO_SRC_PORT, struct.pack(">H", client.port)),
        netlink.attribute(CTA_PROTO_DST_PORT, struct.pack(">H", server.port)),
    )
    original = netlink.nested(
        CTA_TUPLE_ORIG, netlink.nested(CTA_TUPLE_IP, *addresses), netlink.nested(CTA_TUPLE_PROTO, *ports)
    )
    body = struct.pack("=BBH", netlink.NFPROTO[version], 0, 0) + original  # struct nfgenmsg
    try:
        with netlink.open_netlink(NETLINK_NETFILTER) as kernel:
            (answer,) = kernel.talk([netlink.Message(CT_GET, netlink.NLM_F_ACK, body)])
            reply = netlink.attributes(netlink.attributes(answer[4:])[CTA_TUPLE_REPLY])
            address = netlink.attributes(reply[CTA_TUPLE_IP])[CTA_IP_SOURCE[version]]
            (port,) = struct.unpack(">H", netlink.attributes(reply[CTA_TUPLE_PROTO])[CTA_PROTO_SRC_PORT])
    except (OSError, ValueError, KeyError, struct.error):
        return None
    return Endpoint(ip_address(address), port)
