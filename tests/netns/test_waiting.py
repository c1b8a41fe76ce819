"""How much a start asks while it waits for 30 seconds: at most 180 questions to the DNS server, and to the mock."""

import re
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.hosts.network import MOCK, NAME, Network

COUNTERS = (
    "add table inet count; add chain inet count input { type filter hook input priority -300; };"
    " add rule inet count input udp dport 53 counter; add rule inet count input tcp flags syn / syn,ack counter"
)
MOST = 180
"""Questions to one server in 30 s. Before, it was up to 1,376."""
WAITS = {
    "no such name": (("NXDOMAIN",), ()),
    "a name without an address": (("empty",), ()),
    "nothing listens": ((), ()),
    "503": ((), ("GET=503", "PUT=503")),
    "503 and tokens": ((), ("GET=503", "PUT=body:token")),
    "no HTTP": ((), ("GET=garbage",)),
}


def asked(dns: tuple[str, ...], http: tuple[str, ...], seconds: str = "30") -> tuple[int, int, str]:
    """Wait so long, and return the questions to the DNS server and to the mock, and what the start wrote."""
    with Network() as network:
        network.start_dns(*(dns or (f"{NAME}={MOCK}",)))
        if http:
            network.start_faulty(*http)
        network.mock.run("nft", COUNTERS)
        done = network.detour("true", MOCK_TIMEOUT=seconds, MOCK_HOSTNAME=NAME, MOCK_LOG="debug", timeout=60)
        assert done.returncode == 125
        counts = re.findall(r"counter packets (\d+)", network.mock.run("nft", "list", "table", "inet", "count").stdout)
        return int(counts[0]), int(counts[1]), done.stderr


def test_wait_of_3_seconds_asks_little() -> None:
    """A wait of 3 s asks at most 140 questions: about 50 in its first second. Without the pauses, it would be 1,000."""
    dns, http, _ = asked(*WAITS["503"], seconds="3")
    assert (dns <= 10, 40 <= http <= 140) == (True, True), (dns, http)


@pytest.mark.slow
def test_wait_of_30_seconds_asks_at_most_180_questions() -> None:
    """Each kind of wait asks at most 180 questions, and 10 at least; MOCK_LOG=debug tells it in 40 lines."""
    began = time.monotonic()
    with ThreadPoolExecutor(len(WAITS)) as executor:
        results = dict(zip(WAITS, executor.map(lambda wait: asked(*wait), WAITS.values()), strict=True))
    assert {name: (dns, http) for name, (dns, http, _) in results.items() if max(dns, http) > MOST} == {}
    assert {name: (dns, http) for name, (dns, http, _) in results.items() if max(dns, http) < 10} == {}
    assert {name: lines for name, (_, _, text) in results.items() if (lines := text.count("\n")) > 40} == {}
    assert time.monotonic() - began < 60
