"""The lines of the documents' figures: which rows of bench/results.json they show."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the table.

    Attributes:
        name: its key in phrases.py.
        group: its group of rows.
        other: the subject in the column of others; ``PEERS`` for the quickest peer.
        mark: the suffix of imds-detour's subjects.
        times: the key of the text for the ratio to the script, if that counts.

    """

    name: str
    group: str
    other: str = ""
    mark: str = ""
    times: str = ""


DETOURS = ("pip install", "bundle")
SAME, START, PEERS = "start to exec, same work", "start to exec, verified", "*"
PROCESSOR, LATER = "processor time of a start, same work", "later, relative to the wait"
LINES = (
    Line("same", SAME, "script", times="of it"),
    Line("nft", SAME, "script", ", nft", times="of it"),
    Line("same, IPv6", f"{SAME}, with IPv6", "script", times="of it"),
    Line("same, nft, IPv6", f"{SAME}, with IPv6", "script", ", nft", times="of it"),
    Line("processor time", PROCESSOR, "script", times="of it"),
    Line("processor time, nft", PROCESSOR, "script", ", nft", times="of it"),
    # For information: the original script. Its ratio has no target.
    Line("start", START, "script", times="of it"),
    Line("nft", START, "script", ", nft", times="of it"),
    # Its ratio is to runs of the script with IPv6, which have no row.
    Line("ipv6", START, mark=", with IPv6", times="of the script"),
    Line("name", "reaction, DNS late", PEERS),
    Line("later, DNS", f"reaction, DNS {LATER}"),
    Line("answer", "reaction, HTTP late", PEERS),
    Line("later, HTTP", f"reaction, HTTP {LATER}"),
    Line("stop", "stop while the resolver hangs", "script"),
    Line("memory", "sidecar: memory"),
    Line("idle", "sidecar: processor while idle"),
    Line("moved", "sidecar: DNS changed to verified"),
)
PATHS = (
    ("kept", "keep-alive", ""),
    ("each", "a connection per request", ""),
    ("kept, Docker", "keep-alive", ", Docker network"),
    ("each, Docker", "a connection per request", ", Docker network"),
)
"""Keys in phrases.py, with the marks of the data path's groups."""
CLIENTS = {"sdk": "SDK-like client", "wrk": "wrk"}
TARGET = 0.95
"""The target share of the direct throughput."""
