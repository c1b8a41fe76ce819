"""The sidecar's last probe, over an abstract Unix socket, for `imds-detourctl status`.

The name of such a socket (unix(7)) belongs to the network namespace, as the redirect does. It needs no writable file
system and no shared volume, and is free again when the sidecar ends. A client receives one JSON object,
``{"verified": true, "text": "IMDSv2 i-1234567890abcdef0", "time": 1764100000.0}``, and the connection is closed.
"""

from __future__ import annotations

import json
import socket
import time
from dataclasses import asdict, dataclass

ADDRESS = "\0imds-detour"
TIMEOUT = 1.0
"""Seconds for the sidecar to answer."""
MAX_ANSWER = 4096
"""Bytes of an answer."""


@dataclass(frozen=True, slots=True)
class LastProbe:
    """The last probe through the metadata address."""

    verified: bool  # whether the mock answered
    text: str  # the mock's answer, or why it failed
    time: float  # seconds since the epoch

    @property
    def age(self) -> float:
        """Seconds since then."""
        return max(0.0, time.time() - self.time)

    def encode(self) -> bytes:
        """Return the bytes that the sidecar sends."""
        return json.dumps(asdict(self)).encode() + b"\n"


def ask() -> LastProbe | None:
    """Return the last probe of the sidecar in this network namespace; None without a sidecar or a valid answer."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sidecar:
            sidecar.settimeout(TIMEOUT)
            sidecar.connect(ADDRESS)
            data = b""
            while len(data) <= MAX_ANSWER and (more := sidecar.recv(MAX_ANSWER)):
                data += more
        facts = json.loads(data)
        return LastProbe(bool(facts["verified"]), str(facts["text"]), float(facts["time"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
