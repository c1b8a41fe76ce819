"""Apply redirects and their guard: ``python apply_rules.py BACKEND``.

Each line of input is a list of redirects in JSON: address, port, mock's address, mock's port. The answer is a line with
the installed rules or the error. The next line of input removes all rules.
"""

import json
import sys
from ipaddress import ip_address

from imds_detour.endpoint import Endpoint
from imds_detour.errors import DetourError
from imds_detour.firewall import render, rules
from imds_detour.firewall.change import Replace
from imds_detour.firewall.rules import Redirect
from imds_detour.firewall.select import FirewallSelector


def say(said: object) -> None:
    """Print a line."""
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Apply and remove rules until the input ends."""
    firewall, _ = FirewallSelector(sys.argv[1], (4, 6)).choose()
    for line in sys.stdin:
        drawn = [
            Redirect(Endpoint(ip_address(to), port), Endpoint(ip_address(mock), its))
            for to, port, mock, its in json.loads(line)
        ]
        addresses = dict.fromkeys(redirect.endpoint.address for redirect in drawn)
        try:
            firewall.apply(Replace("filter", rules.guard_rules(addresses, firewall.layout)), 10)
            firewall.apply(Replace("nat", render.redirect_rules(drawn, firewall.layout)), 10)
            say([installed.rule.spec for installed in firewall.installed() if installed.rule])
        except DetourError as error:
            say(str(error))
        sys.stdin.readline()
        for table in ("nat", "filter"):
            firewall.apply(Replace(table), 10)
        say("removed")
    firewall.close()


main()
