"""A packet capture by tcpdump: the number of packets to an address, by protocol."""

import re
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from imds_detour.ctl.lab.hosts import Host

TCPDUMP = (
    *("tcpdump", "--immediate-mode", "-l", "-n", "-q", "-t"),  # a line for each packet, at once
    *("--snapshot-length=128", "--buffer-size=8192"),  # small frames: the ring has room for many thousands
    *("-Z", "root"),  # a user namespace may have no other user
)
KINDS = {"tcp": "tcp", "UDP": "udp", "ICMP": "icmp", "ICMP6": "icmp"}
"""tcpdump's names of protocols; all others count as ``other``."""
PACKET = re.compile(r"IP6? \S+ > \S+: (\w+)|(?P<arp>ARP), ")
STATISTICS = re.compile(r"(\d+) packets? captured, (\d+) packets? received by filter, (\d+) packets? dropped by kernel")


class Capture:
    """A running tcpdump."""

    def __init__(self, tcpdump: subprocess.Popen[str], lines: IO[str]) -> None:
        self._tcpdump = tcpdump
        self._lines = lines
        self._rest = ""
        self._seen = Counter(dict.fromkeys(("tcp", "udp", "icmp", "other", "arp"), 0))

    def counts(self) -> tuple[dict[str, int], int]:
        """Return the packets by protocol, ``arp`` for questions for the address, and the number of dropped ones."""
        while True:
            captured, received, dropped = self._statistics()
            if captured >= received - dropped:  # the kernel has no more for it
                break
        while self._seen.total() < captured:  # it counts a packet just before it writes the line
            *lines, self._rest = (self._rest + self._lines.read()).split("\n")
            for line in lines:
                packet = PACKET.match(line)
                assert packet, line
                self._seen["arp" if packet["arp"] else KINDS.get(packet[1], "other")] += 1
        return dict(self._seen), dropped

    def _statistics(self) -> tuple[int, int, int]:
        """Return its counters, which it writes at SIGUSR1 (tcpdump(8))."""
        self._tcpdump.send_signal(signal.SIGUSR1)
        assert self._tcpdump.stderr is not None
        while not (match := STATISTICS.search(line := self._tcpdump.stderr.readline())):
            assert line == "\n", line  # it may end a line first
        captured, received, dropped = map(int, match.groups())
        return captured, received, dropped


@contextmanager
def open_capture(host: Host, device: str, address: str) -> Iterator[Capture]:
    """Capture the packets to an address at a host's device, and yield once the capture listens."""
    # A file, not a pipe: a pipe that is full would stop tcpdump while the kernel drops packets.
    with tempfile.TemporaryFile("w+") as written, open(f"/proc/self/fd/{written.fileno()}") as lines:
        command = (*TCPDUMP, "-i", device, "dst", "host", address)
        with host.popen(*command, stdout=written, stderr=subprocess.PIPE) as tcpdump:
            assert tcpdump.stderr is not None
            said = ""
            while "listening on" not in said:
                said = tcpdump.stderr.readline()
                assert said, "tcpdump did not start"
            try:
                yield Capture(tcpdump, lines)
            finally:
                tcpdump.kill()
