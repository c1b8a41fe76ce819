"""The mock of a redirect changes under load: every connection gets the old or the new one."""

import json
import re

from tests.support.hosts.cloud import LONG, REDIRECTED, SERVERS_PORT, Cloud
from tests.support.judges.rules_listing import all_rules

SWAPS = 1_000 if LONG else 30
CONNECTS = 10_000 if LONG else 500


def test_swapping_the_mock_loses_and_leaks_no_connection(cloud: Cloud, backend: str) -> None:
    """While the mock changes, A or B answers every connection, and no packet of any kind reaches the real service."""
    before = cloud.seen()
    swapper = cloud.writer(backend, SWAPS, *cloud.mocks)
    client = cloud.client(CONNECTS)
    flood = cloud.flood()
    swapper.tell("go")
    assert client.says() == swapper.says() == "enough"
    outcomes = flood.ask("20")
    answers, swaps = json.loads(client.end()), int(swapper.end())
    print(f"{backend}: {swaps} swaps under {sum(answers.values())} connects, {answers}")  # noqa: T201  (figures, for -rP)
    assert set(answers) == {"A", "B"}, answers
    assert (outcomes, cloud.seen()) == (REDIRECTED, before)


NAIVE = {
    "legacy": (
        "{iptables} -t nat -F OUTPUT",
        "{iptables} -t nat -A OUTPUT -d {metadata} -p tcp --dport 80 -j DNAT --to-destination {to}",
    ),
    "nft": (
        "nft flush chain {nft} naive out",
        "nft add rule {nft} naive out {nft} daddr {metadata} tcp dport 80 dnat to {to}",
    ),
}
"""Two commands that swap the mock: delete the old rule, and add the new one."""


def test_swapping_by_two_commands_leaks_connections(cloud: Cloud, backend: str) -> None:
    """Control: between two commands the real service answers, and the capture and the counters see that."""
    ip = cloud.ip
    targets = [ip.at(mock.rpartition(",")[0], SERVERS_PORT) for mock in cloud.mocks]
    names = {"iptables": ip.iptables, "nft": ip.nft, "metadata": ip.metadata}
    once = "\n".join(step.format(**names, to=to) for to in targets for step in NAIVE[backend])
    chain = f"add chain {ip.nft} naive out {{ type nat hook output priority -100; }}"
    cloud.app.run("nft", f"add table {ip.nft} naive; {chain}")
    # A rule that matches nothing: without any rule the kernel stops connection tracking, and open connections hang.
    unused = "192.0.2.1" if ip.version == 4 else "2001:db8::1"
    target = ("-j", "DNAT", "--to-destination", unused)
    cloud.app.run(ip.iptables, "-t", "nat", "-A", "PREROUTING", "-d", unused, *target)
    cloud.app.run("sh", "-euc", once)
    before = cloud.seen()
    swapper = cloud.app.popen("sh", "-euc", f"until [ -e /run/enough ]; do\n{once}\ndone")
    client = cloud.client(200)
    assert client.says() == "enough"
    cloud.app.run("touch", "/run/enough")
    assert swapper.wait() == 0
    answers, seen = json.loads(client.end()), cloud.seen()
    assert answers.get("R"), answers
    assert seen.captured["tcp"] > before.captured["tcp"]
    assert seen.counted["tcp"] > before.counted["tcp"]


def test_applying_twice_leaves_the_same_rules(cloud: Cloud, backend: str) -> None:
    """The dumps after two installs of a mock are identical, also with another mock in between."""
    first, second = cloud.mocks
    dumps = []
    for mocks in ((first,), (first,), (second,), (first,), ()):
        cloud.writer(backend, 0, *mocks).end()
        dumps.append(all_rules(cloud.app))
    assert dumps[0] == dumps[1] == dumps[3]
    assert re.search(r"dnat", dumps[0], re.IGNORECASE)
    assert dumps[2] != dumps[0]
    assert not re.search(r"dnat", dumps[4], re.IGNORECASE)
    assert re.search(r"reject", dumps[4], re.IGNORECASE)
