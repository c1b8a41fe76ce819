"""Installing and removing any redirects leaves none of their rules, and foreign rules unchanged."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from ipaddress import ip_address

import pytest
from hypothesis import example, given, settings

from imds_detour.endpoint import Endpoint
from imds_detour.firewall.render import redirect_rules
from imds_detour.firewall.rules import LEGACY, NFT, Redirect, guard_rules
from tests.netns.test_rules import DOCKER, ZOO
from tests.support import SUPPORT
from tests.support.hosts.cloud import BACKENDS, LONG, Program
from tests.support.hosts.network import Network
from tests.support.marks import first_quick
from tests.unit.test_properties import REDIRECTS

FOREIGN = """
ip6tables-legacy -A OUTPUT -d 2001:db8::1 -p tcp -m tcp --dport 80 -c 3 300 -j DROP
ip6tables-legacy -t nat -A OUTPUT -d 2001:db8::2 -p tcp -m tcp --dport 80 -j DNAT --to-destination [2001:db8::3]:81
iptables-legacy -t raw -A OUTPUT -d 10.9.9.3 -c 2 200 -j DROP
iptables-legacy -t mangle -A OUTPUT -d 10.9.9.3 -j MARK --set-mark 7
iptables-legacy -A OUTPUT -d 10.9.9.2 -c 5 500 -j DROP
nft add table inet foreign
nft 'add chain inet foreign output { type filter hook output priority 0; policy accept; }'
nft add rule inet foreign output ip daddr 10.9.9.1 tcp dport 80 counter packets 7 bytes 700 drop comment imds-detour
nft add set ip foreign_ip addresses '{ type ipv4_addr; flags interval; elements = { 10.9.8.0/24 }; }'
"""


@pytest.fixture(scope="module")
def shared() -> Iterator[Network]:
    """Yield a network whose app's host has foreign rules of all kinds."""
    with Network() as made:
        script = "nft add table ip foreign_ip" + FOREIGN
        made.app.run("sh", "-euc", script + ZOO + DOCKER.format(iptables="iptables-legacy"))
        yield made


def state(network: Network) -> list[str]:
    """Return all rules with counters and handles, without the counters of chain policies and the date."""
    saved = [network.app.run(f"{command}-legacy-save", "-c").stdout for command in ("iptables", "ip6tables")]
    listed = network.app.run("nft", "--handle", "list", "ruleset").stdout
    lines = [re.sub(r"^(:.*) \[\d+:\d+\]$", r"\1", line) for text in (*saved, listed) for line in text.splitlines()]
    return [line for line in lines if not line.startswith("# ")]


@pytest.fixture(scope="module", params=first_quick(BACKENDS))
def applier(shared: Network, request: pytest.FixtureRequest) -> Iterator[tuple[str, Program]]:
    """Yield a backend and the program that applies redirects with it."""
    command = (sys.executable, f"{SUPPORT}/clients/apply_rules.py", request.param)
    with shared.app.popen(*command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        program = Program(process)
        assert program.ask("[]") == []  # creates the tables that the next state includes
        program.ask()
        yield request.param, program
        program.end()


AWS_REDIRECTS = [
    Redirect(Endpoint(ip_address(to), 80), Endpoint(ip_address(mock), 1338))
    for to, mock in (("169.254.169.254", "10.88.0.3"), ("fd00:ec2::254", "fd00::3"))
]


@settings(max_examples=150 if LONG else 15)
@given(drawn=REDIRECTS)
@example(drawn=AWS_REDIRECTS)
def test_install_and_remove_restore_rules(shared: Network, applier: tuple[str, Program], drawn: list[Redirect]) -> None:
    """Installing and removing redirects leaves all foreign rules, counters, handles, chains and tables unchanged."""
    backend, program = applier
    layout = LEGACY if backend == "legacy" else NFT
    redirects = list(
        {redirect.endpoint: redirect for redirect in drawn}.values()
    )  # one mock for each endpoint, as in a start
    before = state(shared)
    assert any("[5:500]" in line for line in before)
    assert any("packets 7 bytes 700" in line for line in before)
    request = [
        (str(redirect.endpoint.address), redirect.endpoint.port, str(redirect.mock.address), redirect.mock.port)
        for redirect in redirects
    ]
    installed = program.ask(json.dumps(request))
    planned = (
        *redirect_rules(redirects, layout),
        *guard_rules({redirect.endpoint.address: None for redirect in redirects}, layout),
    )
    assert sorted(installed) == sorted(rule.spec for rule in planned)
    if redirects:
        assert state(shared) != before  # control: the state includes the installed rules
    assert (program.ask(), state(shared)) == ("removed", before)
