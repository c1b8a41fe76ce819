"""What the sidecar saw last: it answers on an abstract Unix socket, for whoever is in the same network namespace.

Such a socket (unix(7)) has a name and no file: it belongs to the network namespace, as the redirect does, needs no
writable file system and no shared volume, and is gone when the sidecar is. Whoever connects is told one JSON object,
``{"verified": true, "text": "IMDSv2 i-1234567890abcdef0", "time": 1764100000.0}``, and the connection is closed.
"""

from __future__ import annotations

import json
import socket
import time
from dataclasses import asdict, dataclass

ADDRESS = "\0imds-detour"
TIMEOUT = 1.0
"""Seconds for the sidecar to answer: it is a process of this machine that has the answer at hand."""
LARGEST = 4096
"""Bytes of an answer."""


@dataclass(frozen=True, slots=True)
class LastProbe:
    """The last probe through the metadata address.

    Attributes:
        verified: whether the mock answered.
        text: who answered, or why it failed.
        time: when, in seconds since the epoch.

    """

    verified: bool
    text: str
    time: float

    @property
    def age(self) -> float:
        """Seconds since then."""
        return max(0.0, time.time() - self.time)

    def encode(self) -> bytes:
        """Return it as the sidecar sends it."""
        return json.dumps(asdict(self)).encode() + b"\n"


def ask() -> LastProbe | None:
    """Return what the sidecar in this network namespace saw last; None without a sidecar, or with one that is dumb."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sidecar:
            sidecar.settimeout(TIMEOUT)
            sidecar.connect(ADDRESS)
            data = b""
            while len(data) <= LARGEST and (more := sidecar.recv(LARGEST)):
                data += more
        facts = json.loads(data)
        return LastProbe(bool(facts["verified"]), str(facts["text"]), float(facts["time"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
