"""Build and exchange netlink messages with the kernel."""

from __future__ import annotations

import os
import struct
from contextlib import closing, contextmanager
from functools import lru_cache

from imds_detour.lean import socket
from imds_detour.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

# linux/netlink.h
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0x1, 0x4, 0x300
NLM_F_EXCL, NLM_F_CREATE, NLM_F_APPEND = 0x200, 0x400, 0x800
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLA_F_NESTED, NLA_TYPE_MASK = 0x8000, 0x3FFF
NFPROTO = {4: 2, 6: 10}  # linux/netfilter.h: NFPROTO_IPV4 and NFPROTO_IPV6, by IP version
HEADER, ATTRIBUTE = struct.Struct("=IHHII"), struct.Struct("=HH")
MAX_READ = 65_536
"""Bytes per read. The kernel sends dumps in pieces of at most 32 KiB (NLMSG_GOODSIZE and the reader's buffer)."""
SO_SNDBUFFORCE = 32
"""asm-generic/socket.h; needs NET_ADMIN."""
TIMEOUT = 10.0
"""Seconds for an answer. An nftables commit may wait for an RCU grace period."""


class Message(Value):
    """A netlink message."""

    kind: int  # nlmsg_type
    flags: int  # NLM_F_*; NLM_F_REQUEST is added
    body: bytes  # bytes after the header


def attribute(kind: int, value: bytes) -> bytes:
    """Return an attribute, padded to 4 bytes."""
    return ATTRIBUTE.pack(4 + len(value), kind) + value + bytes(-len(value) % 4)


def string(value: str) -> bytes:
    """Return the value of an attribute that is a string."""
    return value.encode() + b"\0"


def text(value: bytes) -> str:
    """Return the string in the value of an attribute."""
    return value.rstrip(b"\0").decode(errors="replace")


def nested(kind: int, *attributes: bytes) -> bytes:
    """Return an attribute that holds attributes."""
    return attribute(kind | NLA_F_NESTED, b"".join(attributes))


@lru_cache(1000)  # a start reads the same chains several times, and its rules have parts in common
def attributes(data: bytes) -> Mapping[int, bytes]:
    """Return attributes by kind; a later one replaces an earlier one of its kind."""
    return dict(iterate_attributes(data))


def iterate_attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield kind and value of the attributes, in order."""
    offset, last = 0, len(data) - 4
    while offset <= last:
        length, kind = ATTRIBUTE.unpack_from(data, offset)
        if length < 4:
            return
        yield kind & NLA_TYPE_MASK, data[offset + 4 : offset + length]
        offset += (length + 3) & ~3


class Kernel:
    """A connection from open_netlink()."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._sequence = 0

    def talk(self, messages: Iterable[Message]) -> list[bytes]:
        """Send messages in one datagram, await all acknowledgements, and return the bodies of the other answers.

        Late answers to an earlier failed call have older sequence numbers and are ignored.
        Raises OSError for the kernel's first error, with its errno, and TimeoutError after TIMEOUT, without an errno.
        """
        parts, waiting, first = [], set(), self._sequence + 1
        for message in messages:
            self._sequence += 1
            flags = message.flags | NLM_F_REQUEST
            size = HEADER.size + len(message.body)
            parts += [HEADER.pack(size, message.kind, flags, self._sequence, 0), message.body, bytes(-size % 4)]
            if flags & (NLM_F_ACK | NLM_F_DUMP):
                waiting.add(self._sequence)
        bodies: list[bytes] = []
        failure = 0
        data = b"".join(parts)
        if len(data) > MAX_READ:  # a thousand redirects are more than the kernel takes by default
            self._connection.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 2 * len(data))
        self._connection.sendto(data, (0, 0))
        while waiting:
            for kind, sequence, body in _split(self._connection.recv(MAX_READ)):
                if sequence < first:
                    continue
                if kind in (NLMSG_ERROR, NLMSG_DONE):
                    # struct nlmsgerr, and the end of a dump, begin with a negative errno or 0
                    number = -int(struct.unpack_from("=i", body)[0]) if len(body) >= 4 else 0
                    failure = failure or number
                    if number and sequence not in waiting:
                        waiting.clear()  # the whole datagram is refused: its messages get no answers
                    waiting.discard(sequence)
                else:
                    bodies.append(body)
        if failure:
            raise OSError(failure, os.strerror(failure))
        return bodies


@contextmanager
def open_netlink(protocol: int) -> Iterator[Kernel]:
    """Connect to a netlink protocol (linux/netlink.h); OSError if the kernel has none or is out of descriptors."""
    with closing(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)) as connection:
        connection.settimeout(TIMEOUT)
        yield Kernel(connection)


def _split(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    offset = 0
    while offset + HEADER.size <= len(data):
        length, kind, _, sequence, _ = HEADER.unpack_from(data, offset)
        yield kind, sequence, data[offset + HEADER.size : offset + length]
        offset += (length + 3) & ~3
