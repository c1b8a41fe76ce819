"""The summary of installed rules: complete, incomplete, and with foreign rules."""

from ipaddress import ip_address

import pytest

from imds_detour.ctl.installed import summarize
from imds_detour.endpoint import Endpoint
from imds_detour.firewall import render, rules
from imds_detour.firewall.rules import LEGACY, NFT, Dnat, Installed, Layout, Redirect

AWS, ECS = ip_address("169.254.169.254"), ip_address("169.254.170.2")
TO_AWS = Redirect(Endpoint(AWS, 80), Endpoint(ip_address("10.0.0.3"), 1338))
TO_ECS = Redirect(Endpoint(ECS, 80), Endpoint(ip_address("10.0.0.4"), 80))
LAYOUTS = pytest.mark.parametrize("layout", [LEGACY, NFT], ids=["legacy", "nft"])


def installed(layout: Layout, *, reject: bool = True) -> list[Installed]:
    """Return all rules of a start for two services, each with one packet."""
    wanted = (*rules.guard_rules([AWS, ECS], layout, reject=reject), *render.redirect_rules([TO_AWS, TO_ECS], layout))
    return [Installed(rule, 1) for rule in wanted]


@LAYOUTS
@pytest.mark.parametrize("reject", [True, False], ids=["reject", "drop"])
def test_complete_rules_have_no_faults(layout: Layout, reject: bool) -> None:
    """A start's rules give both redirects and guards with counts, and no faults. A firewall without rules has none."""
    summary = summarize("x", layout, tuple(installed(layout, reject=reject)))
    assert [(used.redirect, used.connections) for used in summary.redirects] == [(TO_AWS, 1), (TO_ECS, 1)]
    assert [(guarded.address, guarded.drops) for guarded in summary.guarded] == [(AWS, not reject), (ECS, not reject)]
    assert {guarded.refused for guarded in summary.guarded} == {2}  # one came from a process, one from a bridge
    assert summary.faults == ()
    empty = summarize("x", layout, ())
    assert (empty.rules, empty.redirects, empty.guarded, empty.faults) == ((), (), (), ())


@LAYOUTS
def test_redirect_for_bridges_is_counted_once(layout: Layout) -> None:
    """A redirect that also serves bridges is one redirect, with the connections of all its rules."""
    wanted = rules.nat_rules({TO_AWS: ""}, layout, forwarded=True)
    summary = summarize("x", layout, tuple(Installed(rule, 3) for rule in wanted))
    entries = sum(isinstance(rule.action, Dnat) for rule in wanted)
    assert [(used.redirect, used.connections) for used in summary.redirects] == [(TO_AWS, 3 * entries)]
    assert entries == (2 if layout is NFT else 1)  # the control


@LAYOUTS
def test_missing_or_foreign_rule_is_reported(layout: Layout) -> None:
    """Without any one rule there is a fault or a loss; a foreign rule in a chain is a fault and hides no redirect."""
    whole = installed(layout)
    for position, removed in enumerate(whole):
        summary = summarize("x", layout, tuple(whole[:position] + whole[position + 1 :]))
        reported = len(summary.redirects) + len(summary.guarded)
        assert summary.faults or reported < 4, removed
    summary = summarize("x", layout, (*whole, Installed(None, 7)))
    assert (summary.faults, len(summary.redirects)) == (("foreign: 1 rules in imds-detour's chains",), 2)
