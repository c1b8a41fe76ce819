"""The target is swapped under load: every connection gets one of the two mocks, and the rules are what they were."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from tests.support.hosts.family import FAMILIES
from tests.support.hosts.stage import BACKENDS, LONG, REDIRECTED, SERVERS_PORT, Stage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.hosts.stage import Program

SWAPS = 1_000 if LONG else 30
CONNECTS = 10_000 if LONG else 500


@pytest.fixture(params=FAMILIES)
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    """Give the fake real service R, and the mocks A and B."""
    with Stage(request.param) as made:
        yield made


def writer(stage: Stage, backend: str, enough: int, *mocks: str) -> Program:
    """Start a writer of our rules, and return when they stand for the first time."""
    started = stage.program(stage.app, "clients/writer.py", backend, str(enough), f"{stage.family.metadata},80", *mocks)
    assert started.says() == "ready"
    return started


def connector(stage: Stage, enough: int) -> Program:
    """Start a client that connects to the metadata address all the time, and return after its first connection."""
    started = stage.program(stage.app, "clients/connector.py", stage.family.metadata, "80", str(enough))
    assert started.says() == "started"
    return started


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_connection_is_lost_or_escapes_while_the_target_is_swapped(stage: Stage, backend: str) -> None:
    """Connections in a row, and every other way beside them: A or B answers each, and the real service sees nothing."""
    before = stage.seen()
    swapper = writer(stage, backend, SWAPS, *stage.mocks)
    client = connector(stage, CONNECTS)
    hammer = stage.program(stage.app, "clients/hammer.py", stage.family.metadata)
    swapper.tell("go")
    assert client.says() == swapper.says() == "enough"
    outcomes = hammer.ask("20")
    answers, swaps = json.loads(client.end()), int(swapper.end())
    print(f"{backend}: {swaps} swaps under {sum(answers.values())} connects, {answers}")  # noqa: T201  (figures, for -rP)
    assert set(answers) == {"A", "B"}, answers
    assert outcomes == REDIRECTED
    assert stage.seen() == before


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
"""How one would swap a target by commands: take the old rule out, put the new one in."""


@pytest.mark.parametrize("backend", BACKENDS)
def test_swapping_by_two_commands_does_lose_connections(stage: Stage, backend: str) -> None:
    """The control: between the two the real service answers, and both witnesses see it."""
    family = stage.family
    targets = [family.at(mock.rpartition(",")[0], SERVERS_PORT) for mock in stage.mocks]
    words = {"iptables": family.iptables, "nft": family.nft, "metadata": family.metadata}
    once = "\n".join(step.format(**words, to=to) for to in targets for step in NAIVE[backend])
    chain = f"add chain {family.nft} naive out {{ type nat hook output priority -100; }}"
    stage.app.run("nft", f"add table {family.nft} naive; {chain}")
    # A rule for nobody: without any, the kernel ends connection tracking, and connections hang that are open just then.
    unused = "192.0.2.1" if family.version == 4 else "2001:db8::1"
    target = ("-j", "DNAT", "--to-destination", unused)
    stage.app.run(family.iptables, "-t", "nat", "-A", "PREROUTING", "-d", unused, *target)
    stage.app.run("sh", "-euc", once)
    before = stage.seen()
    swapper = stage.app.popen("sh", "-euc", f"until [ -e /run/enough ]; do\n{once}\ndone")
    client = connector(stage, 200)
    assert client.says() == "enough"
    stage.app.run("touch", "/run/enough")
    assert swapper.wait() == 0
    answers, seen = json.loads(client.end()), stage.seen()
    assert answers.get("R"), answers
    assert seen.captured["tcp"] > before.captured["tcp"]
    assert seen.counted["tcp"] > before.counted["tcp"]


def dump(stage: Stage) -> str:
    """Return every rule of the app's host, of both kinds and both versions, without counters."""
    commands = (["iptables-legacy-save"], ["ip6tables-legacy-save"], ["nft", "list", "ruleset"])
    text = "".join(stage.app.run(*command).stdout for command in commands)
    return re.sub(r"packets \d+ bytes \d+|\[\d+:\d+\]|^#.*", "", text, flags=re.MULTILINE)


@pytest.mark.parametrize("backend", BACKENDS)
def test_applied_twice_is_applied_once(stage: Stage, backend: str) -> None:
    """Apply, dump, apply, dump: identical, also when another target stood there in between."""
    first, second = stage.mocks
    dumps = []
    for mocks in ((first,), (first,), (second,), (first,), ()):
        writer(stage, backend, 0, *mocks).end()
        dumps.append(dump(stage))
    assert dumps[0] == dumps[1] == dumps[3]
    assert re.search(r"dnat", dumps[0], re.IGNORECASE)
    assert dumps[2] != dumps[0]
    assert not re.search(r"dnat", dumps[4], re.IGNORECASE)
    assert re.search(r"reject", dumps[4], re.IGNORECASE)
