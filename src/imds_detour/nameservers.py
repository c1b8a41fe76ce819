"""Ask the DNS servers in /etc/resolv.conf with dnspython, which can say what went wrong, and with whom."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

import dns.exception
import dns.resolver

from imds_detour.errors import NotYetError

if TYPE_CHECKING:
    from imds_detour.endpoints import Address
    from imds_detour.waiting import Deadline

PATIENCE = 0.5
"""Seconds for one server's reply, then the next is asked. A slower one is left to the system resolver."""


def ask(name: str, deadline: Deadline) -> tuple[tuple[Address, ...], str]:
    """Ask each server in turn until one is definite, and return the addresses and the server that gave them.

    As in libc, a definite "no" ends the round; silence and failures lead on to the next server. IPv6 addresses are
    asked for where there is no IPv4 one.

    Raises:
        NotYetError: with the last thing seen, and the server that said it.

    """
    try:
        resolver = dns.resolver.Resolver()  # reads the file anew: it may have changed
    except dns.resolver.NoResolverConfiguration:
        resolver = None
    if resolver is None or not resolver.nameservers:
        raise NotYetError("lookup", "/etc/resolv.conf names no DNS server")
    failure: NotYetError | None = None
    for server in list(resolver.nameservers):
        resolver.nameservers = [server]  # one at a time, so that each failure has a name to it
        resolver.timeout = resolver.lifetime = max(deadline.within(PATIENCE), 0.001)
        try:
            if found := _query(resolver, name, "A") or _query(resolver, name, "AAAA"):
                return found, str(server)
            raise NotYetError("lookup", f"{server} knows the name and no address for it (empty answer)")
        except dns.resolver.NXDOMAIN:
            raise NotYetError("lookup", f"{server} says there is no such name (NXDOMAIN)") from None
        except dns.exception.DNSException as error:
            failure = NotYetError("lookup", f"{server} {_complaint(error, resolver.timeout)}")
        except OSError as error:
            failure = NotYetError("lookup", f"{server} cannot be asked: {error.strerror or error}")
    assert failure is not None  # noqa: S101  (there is a server, and each turn returns, raises or sets it)
    raise failure


def _query(resolver: dns.resolver.Resolver, name: str, kind: str) -> tuple[Address, ...]:
    answer = resolver.resolve(name, kind, search=True, raise_on_no_answer=False)
    return tuple(ip_address(record.address) for record in answer.rrset or ())


def _complaint(error: dns.exception.DNSException, patience: float) -> str:
    """Say what a server did wrong. dnspython keeps (server, over TCP, port, what, response) for each thing it saw."""
    seen = (error.kwargs or {}).get("errors") or [(None, False, 53, error, None)]
    _, tcp, _, what, _ = seen[-1]
    if isinstance(what, str):
        return f"answers {what}"  # the name of an rcode
    how = " over TCP" if tcp else ""
    if isinstance(what, dns.exception.Timeout):
        return f"does not reply{how} within {patience:.1f} s"
    if isinstance(what, OSError):
        return f"cannot be asked{how}: {what.strerror or what}"
    return f"sends what is no proper reply{how}: {type(what).__name__}"
