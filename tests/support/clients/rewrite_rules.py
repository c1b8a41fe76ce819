"""Install imds-detour's rules repeatedly: ``python rewrite_rules.py BACKEND ENOUGH ENDPOINT MOCK...``.

ENDPOINT and each MOCK are ``ADDRESS,PORT``. It installs guard and redirect (without a MOCK no redirect) with the
backend's class and prints ``ready``. After a line of input it installs them repeatedly, to each mock in turn, and
prints ``enough`` after ENOUGH installations. When its input ends it prints the count.
"""

import select
import sys
from ipaddress import ip_address

from imds_detour.endpoint import Endpoint
from imds_detour.firewall import render, rules
from imds_detour.firewall.change import AddGuard, Replace
from imds_detour.firewall.select import FirewallSelector

TIMEOUT = 60.0
"""Seconds to wait for the other writers."""


def endpoint(text: str) -> Endpoint:
    """Parse an address and a port."""
    address, _, port = text.rpartition(",")
    return Endpoint(ip_address(address), int(port))


def main() -> None:
    """Install until the input ends."""
    enough, metadata = int(sys.argv[2]), endpoint(sys.argv[3])
    firewall, _ = FirewallSelector(sys.argv[1], (metadata.address.version,)).choose()
    mocks = [endpoint(text) for text in sys.argv[4:]]
    count = 0

    def install() -> None:
        wanted = [rules.Redirect(metadata, mocks[count % len(mocks)])] if mocks else []
        firewall.apply(AddGuard((metadata.address,)), TIMEOUT)
        firewall.apply(Replace("nat", render.redirect_rules(wanted, firewall.layout)), TIMEOUT)

    install()
    print("ready", flush=True)  # noqa: T201  (a program)
    sys.stdin.readline()
    while count < enough or not select.select([sys.stdin], [], [], 0)[0]:
        count += 1
        install()
        if count == enough:
            print("enough", flush=True)  # noqa: T201  (as above)
    print(count, flush=True)  # noqa: T201  (as above)
    firewall.close()


if __name__ == "__main__":
    main()
