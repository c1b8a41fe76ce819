"""The addresses that a host's firewalls redirect and guard, read from the system's commands."""

import re

from imds_detour.ctl.lab.hosts import Host

LISTED = """
for i in iptables ip6tables; do
    for t in nat filter; do $i-legacy-save -t $t | grep "^[:-].*IMDS_DETOUR" | sed "s/^/$i /"; done
done
for f in ip ip6; do
    nft list table $f imds_detour 2>/dev/null |
        awk -v f=$f '/^table/ { print f, "table" } /chain/ { chain = $2 } /counter/ { print f, chain, $0 }'
done
true
"""
"""A shell script that lists imds-detour's rules. Legacy rules follow the command's name, which tells the IP version.
nftables' rules follow their family and chain."""
ANYWHERE = "anywhere"
ADDRESS = re.compile(r"(?: -d |\bdaddr )([0-9a-f.:]+)")
JUMP = re.compile("-A OUTPUT .*-j IMDS_DETOUR_GUARD|guard_output .*jump guard")
REFUSES = re.compile("-A IMDS_DETOUR_GUARD .*-j (REJECT|DROP)|guard .*(reject|drop)")
GUARD = re.compile("IMDS_DETOUR_GUARD|^ip6? (table|guard)")


def all_rules(host: Host, more: str = "true") -> str:
    """Return the rules of both firewalls and IP versions on a host, without counters, and what a command prints."""
    saved = "for i in iptables ip6tables; do for t in nat filter; do $i-legacy-save -t $t; done; done"
    text = host.run("sh", "-c", f"{saved}; nft list ruleset; {more}").stdout
    return re.sub(r"packets \d+ bytes \d+|\[\d+:\d+\]|^#.*", "", text, flags=re.MULTILINE)


def redirected(listed: str) -> set[str]:
    """Return the redirected addresses."""
    return {_address(line) for line in listed.splitlines() if re.search("-j DNAT|dnat to", line)}


def guarded(listed: str) -> set[str]:
    """Return the guarded addresses: those with a jump from the hook of processes to a chain that refuses."""
    addresses = set()
    for tables in ("iptables ", "ip6tables ", "ip ", "ip6 "):
        rules = [line for line in listed.splitlines() if line.startswith(tables)]
        if any(map(REFUSES.search, rules)):
            addresses |= {_address(line) for line in rules if JUMP.search(line)}
    return addresses


def besides_guard(listed: str) -> str:
    """Return the lines that are not of the guard, which stays after a failed start."""
    return "\n".join(line for line in listed.splitlines() if not GUARD.search(line))


def unguarded(listed: str) -> set[str]:
    """Return the addresses with a redirect and no guard."""
    return redirected(listed) - guarded(listed)


def _address(line: str) -> str:
    match = ADDRESS.search(line)
    return match[1] if match else ANYWHERE
