"""The addresses that a host's firewalls redirect and guard, read from the system's commands."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imds_detour.ctl.lab.hosts import Host

LISTED = """
for i in iptables ip6tables; do
    for t in nat filter; do $i-legacy-save -t $t | grep "^[:-].*IMDS_DETOUR" | sed "s/^/$i /"; done
done
nft list ruleset | grep -A 9 'table ip6* imds_detour' | grep -e chain -e dnat -e reject -e drop
true
"""
"""A shell script that lists imds-detour's rules; legacy rules follow the command's name, which tells the IP version."""
ANYWHERE = "anywhere"
ADDRESS = re.compile(r"(?: -d |\bdaddr )([0-9a-f.:]+)")
JUMP = re.compile("-A OUTPUT .*-j IMDS_DETOUR_GUARD")
REFUSES = re.compile("-A IMDS_DETOUR_GUARD .*-j (REJECT|DROP)")


def all_rules(host: Host, more: str = "true") -> str:
    """Return the rules of both firewalls and IP versions on a host, without counters, and what a command prints."""
    saved = "for i in iptables ip6tables; do for t in nat filter; do $i-legacy-save -t $t; done; done"
    text = host.run("sh", "-c", f"{saved}; nft list ruleset; {more}").stdout
    return re.sub(r"packets \d+ bytes \d+|\[\d+:\d+\]|^#.*", "", text, flags=re.MULTILINE)


def redirected(listed: str) -> set[str]:
    """Return the redirected addresses."""
    return {_address(line) for line in listed.splitlines() if re.search("-j DNAT|dnat to", line)}


def guarded(listed: str) -> set[str]:
    """Return the guarded addresses: in legacy iptables those with a jump to a chain that refuses."""
    lines = listed.splitlines()
    addresses = {_address(line) for line in lines if re.search("daddr .*(reject|drop)", line)}
    for version in ("iptables ", "ip6tables "):
        rules = [line for line in lines if line.startswith(version)]
        if any(map(REFUSES.search, rules)):
            addresses |= {_address(line) for line in rules if JUMP.search(line)}
    return addresses


def unguarded(listed: str) -> set[str]:
    """Return the addresses with a redirect and no guard."""
    return redirected(listed) - guarded(listed)


def _address(line: str) -> str:
    match = ADDRESS.search(line)
    return match[1] if match else ANYWHERE
