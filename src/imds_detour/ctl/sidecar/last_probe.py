"""The sidecar's last probe, over an abstract Unix socket, for `imds-detourctl status`.

The name of such a socket (unix(7)) belongs to the network namespace, as the redirect does. It needs no writable file
system and no shared volume, and is free again when the sidecar ends. A client receives one JSON object,
``{"verified": true, "text": "IMDSv2 i-1234567890abcdef0", "age": 2.1}``, and the connection is closed.

Every user can bind the name: only an answer from root or from this user counts, and it is not trusted either.
"""

import json
import os
import socket
import struct
from dataclasses import asdict, dataclass

from imds_detour.deadline import Deadline

ADDRESS = "\0imds-detour"
TIMEOUT = 1.0
"""Seconds for the sidecar to answer."""
MAX_TEXT, MAX_ANSWER = 4096, 65536
"""Characters of a text, and bytes of an answer: JSON needs up to 12 bytes for a character."""
MAX_AGE = 1e9
"""Seconds. It excludes NaN and Infinity too, which json.loads() accepts."""


@dataclass(frozen=True, slots=True)
class LastProbe:
    """The last probe through the metadata address."""

    verified: bool  # whether the mock answered
    text: str  # the mock's answer, or why it failed
    age: float  # seconds since then

    def encode(self) -> bytes:
        """Return the bytes that the sidecar sends."""
        return json.dumps({**asdict(self), "text": self.text[:MAX_TEXT]}).encode() + b"\n"


def connect(sidecar: socket.socket, timeout: float) -> bool:
    """Connect to the sidecar of this network namespace; return whether it belongs to root or to this user.

    Raises OSError when no process answers.
    """
    sidecar.settimeout(timeout)
    sidecar.connect(ADDRESS)
    _, user, _ = struct.unpack("=3i", sidecar.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return user in (0, os.geteuid())


def ask() -> LastProbe | None:
    """Return the last probe of the sidecar in this network namespace; None without a sidecar or a valid answer."""
    deadline, data = Deadline(TIMEOUT), b""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sidecar:
            if not connect(sidecar, TIMEOUT):
                return None
            while more := sidecar.recv(MAX_ANSWER):
                data += more
                if not deadline.remaining() or len(data) > MAX_ANSWER:
                    return None
                sidecar.settimeout(deadline.remaining() or TIMEOUT)
        facts = json.loads(data)
        verified, text, age = facts["verified"], facts["text"], facts["age"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    if not (isinstance(verified, bool) and isinstance(text, str) and isinstance(age, int | float)):
        return None
    return LastProbe(verified, text[:MAX_TEXT], float(age)) if 0 <= age <= MAX_AGE else None
