"""Netlink messages: how the kernel's routing and firewall tables are spoken to without any program or library."""

from __future__ import annotations

import os
import struct
from contextlib import closing

from imds_detour.lean import socket
from imds_detour.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# linux/netlink.h
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0x1, 0x4, 0x300
NLM_F_EXCL, NLM_F_CREATE, NLM_F_APPEND = 0x200, 0x400, 0x800
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLA_F_NESTED, NLA_TYPE_MASK = 0x8000, 0x3FFF
HEADER = struct.Struct("=IHHII")
LARGEST = 65_536
"""Bytes of one read; the kernel's dumps come in pieces of at most 32 KiB (NLMSG_GOODSIZE and the reader's buffer)."""
TIMEOUT = 10.0
"""Seconds for the kernel to answer; an nftables commit takes 16-35 ms."""


class Message(Value):
    """One message.

    Attributes:
        kind: nlmsg_type.
        flags: NLM_F_*, NLM_F_REQUEST understood.
        body: what follows the header.

    """

    kind: int
    flags: int
    body: bytes


def attribute(kind: int, value: bytes) -> bytes:
    """Return an attribute, padded to 4 bytes."""
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def nested(kind: int, *attributes: bytes) -> bytes:
    """Return an attribute that holds attributes."""
    return attribute(kind | NLA_F_NESTED, b"".join(attributes))


def attributes(data: bytes) -> dict[int, bytes]:
    """Return attributes by kind; where a kind comes twice, the last."""
    return dict(each_attribute(data))


def each_attribute(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield each attribute's kind and value, in order."""
    at = 0
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        if length < 4:
            return
        yield kind & NLA_TYPE_MASK, data[at + 4 : at + length]
        at += (length + 3) & ~3


def talk(protocol: int, messages: Iterable[Message]) -> list[bytes]:
    """Send messages in one datagram, and return what comes back until all that ask for it are acknowledged.

    Raises:
        OSError: the first error that the kernel answers, with its errno.
        TimeoutError: without one, when it does not answer for TIMEOUT.

    """
    parts, waiting = [], set()
    for sequence, message in enumerate(messages, start=1):
        flags = message.flags | NLM_F_REQUEST
        parts.append(HEADER.pack(HEADER.size + len(message.body), message.kind, flags, sequence, 0) + message.body)
        parts.append(bytes(-len(message.body) % 4))
        if flags & (NLM_F_ACK | NLM_F_DUMP):
            waiting.add(sequence)
    bodies: list[bytes] = []
    failure = 0
    with closing(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)) as kernel:
        kernel.settimeout(TIMEOUT)
        kernel.sendto(b"".join(parts), (0, 0))
        while waiting:
            for kind, sequence, body in _split(kernel.recv(LARGEST)):
                if kind in (NLMSG_ERROR, NLMSG_DONE):
                    # struct nlmsgerr, and the end of a dump, begin with a negative errno or 0
                    number = -int(struct.unpack_from("=i", body)[0]) if len(body) >= 4 else 0
                    failure = failure or number
                    if number and sequence not in waiting:
                        waiting.clear()  # the whole datagram is refused: no message of it gets an answer of its own
                    waiting.discard(sequence)
                else:
                    bodies.append(body)
    if failure:
        raise OSError(failure, os.strerror(failure))
    return bodies


def _split(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    at = 0
    while at + HEADER.size <= len(data):
        length, kind, _, sequence, _ = HEADER.unpack_from(data, at)
        yield kind, sequence, data[at + HEADER.size : at + length]
        at += (length + 3) & ~3
