"""Whatever is redirected: taken out again, nothing is left of it, and other people's rules are as they were."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings

from imds_detour.endpoint import Endpoint
from imds_detour.firewall.rules import LEGACY, NFT, Redirect, guard_rules, redirect_rules
from tests.netns.test_rules import DOCKER, ZOO
from tests.support import SUPPORT
from tests.support.hosts.cloud import BACKENDS, LONG, Program
from tests.support.hosts.network import Network
from tests.support.marks import first_quick
from tests.unit.test_properties import REDIRECTS

if TYPE_CHECKING:
    from collections.abc import Iterator

OTHERS = """
ip6tables-legacy -A OUTPUT -d 2001:db8::1 -p tcp -m tcp --dport 80 -c 3 300 -j DROP
ip6tables-legacy -t nat -A OUTPUT -d 2001:db8::2 -p tcp -m tcp --dport 80 -j DNAT --to-destination [2001:db8::3]:81
iptables-legacy -t mangle -A OUTPUT -d 10.9.9.3 -j MARK --set-mark 7
iptables-legacy -A OUTPUT -d 10.9.9.2 -c 5 500 -j DROP
nft add table inet somebodys
nft 'add chain inet somebodys output { type filter hook output priority 0; policy accept; }'
nft add rule inet somebodys output ip daddr 10.9.9.1 tcp dport 80 counter packets 7 bytes 700 drop comment imds-detour
nft add set ip somebodys_too addresses '{ type ipv4_addr; flags interval; elements = { 10.9.8.0/24 }; }'
"""


@pytest.fixture(scope="module")
def shared() -> Iterator[Network]:
    """Give a network whose app's host has other people's rules of all kinds."""
    with Network() as made:
        script = "nft add table ip somebodys_too" + OTHERS
        made.app.run("sh", "-euc", script + ZOO + DOCKER.format(iptables="iptables-legacy"))
        yield made


def state(network: Network) -> list[str]:
    """Return all that there is, counters and handles included; but for those that count every packet, and the date."""
    saved = [network.app.run(f"{command}-legacy-save", "-c").stdout for command in ("iptables", "ip6tables")]
    listed = network.app.run("nft", "--handle", "list", "ruleset").stdout
    lines = [re.sub(r"^(:.*) \[\d+:\d+\]$", r"\1", line) for text in (*saved, listed) for line in text.splitlines()]
    return [line for line in lines if not line.startswith("# ")]


@pytest.fixture(scope="module", params=first_quick(BACKENDS))
def applier(shared: Network, request: pytest.FixtureRequest) -> Iterator[tuple[str, Program]]:
    """Give the program that applies what it is told, and its backend."""
    command = (sys.executable, f"{SUPPORT}/clients/apply_rules.py", request.param)
    with shared.app.popen(*command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        program = Program(process)
        assert program.ask("[]") == []  # from here on there are the tables that it looks at
        program.ask()
        yield request.param, program
        program.end()


AS_USUAL = [
    Redirect(Endpoint(ip_address(to), 80), Endpoint(ip_address(mock), 1338))
    for to, mock in (("169.254.169.254", "10.88.0.3"), ("fd00:ec2::254", "fd00::3"))
]


@settings(max_examples=150 if LONG else 15)
@given(drawn=REDIRECTS)
@example(drawn=AS_USUAL)
def test_applied_and_removed_is_as_before(shared: Network, applier: tuple[str, Program], drawn: list[Redirect]) -> None:
    """Rules, their order, their counters and handles, chains and tables: of others' nothing, of ours all is gone."""
    backend, program = applier
    layout = LEGACY if backend == "legacy" else NFT
    wanted = list({redirect.endpoint: redirect for redirect in drawn}.values())  # one mock for each, as everywhere
    before = state(shared)
    assert any("[5:500]" in line for line in before)
    assert any("packets 7 bytes 700" in line for line in before)
    told = [(str(one.endpoint.address), one.endpoint.port, str(one.mock.address), one.mock.port) for one in wanted]
    holds = program.ask(json.dumps(told))
    planned = (*redirect_rules(wanted, layout), *guard_rules({one.endpoint.address: None for one in wanted}, layout))
    assert sorted(holds) == sorted(rule.spec for rule in planned)
    if wanted:
        assert state(shared) != before  # the control: what stands is seen
    assert program.ask() == "removed"
    assert state(shared) == before
