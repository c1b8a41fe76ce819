"""Ask the DNS servers in /etc/resolv.conf with dnspython, which can say what went wrong, and with whom."""

from __future__ import annotations

import sys
from contextlib import suppress
from functools import partial
from io import StringIO
from ipaddress import ip_address

from imds_detour.discovery.dns.resolv_conf import LARGEST, PATH
from imds_detour.errors import NotYetError
from imds_detour.value import Value

# dnspython does without OpenSSL: neither DNS over TLS nor signed messages are for us, and it would take 5 MB of a
# sidecar's 26. None makes an import fail at once (importlib: "None in sys.modules"); afterwards all is as it was.
OPENSSL = ("ssl", "_hashlib")
for _name in OPENSSL:
    sys.modules.setdefault(_name, None)  # type: ignore[arg-type]  # see above

import dns.exception  # noqa: E402  (see above)
import dns.inet  # noqa: E402
import dns.rdtypes.IN.A  # noqa: E402  (it would import them with the first answer, when nobody waits any more: 4 ms)
import dns.rdtypes.IN.AAAA  # noqa: E402
import dns.resolver  # noqa: E402

for _name in OPENSSL:
    if sys.modules[_name] is None:
        del sys.modules[_name]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from imds_detour.deadline import Deadline
    from imds_detour.endpoint import Address

TIMEOUT = 0.4
"""Seconds for one server's reply, then the next is asked. A slower one is left to the system resolver."""
MIN_TIMEOUT = 0.05
"""Seconds that the first server gets though the deadline be nearer: with less, any server would seem silent."""

DAWDLING = 0.1
"""Seconds that dnspython sleeps after a silence, before it looks whether its time is up."""


class Answer(Value):
    """What a server says.

    Attributes:
        addresses: IPv4 and IPv6, in its order.
        server: which one.
        ttl: seconds for which it holds.

    """

    addresses: tuple[Address, ...]
    server: str
    ttl: float


def ask(name: str, deadline: Deadline, trace: Callable[[str], None]) -> Answer:
    """Ask each server in turn until one is definite, and return what it says.

    ``trace`` is told each query and what came of it.

    As in libc, a definite "no" ends the round; silence and failures lead on to the next server.

    Raises:
        NotYetError: with the last thing seen, and the server that said it.

    """
    resolver, servers = _configured()
    failure: NotYetError | None = None
    for server in servers:
        if failure and deadline.remaining() < MIN_TIMEOUT:
            break  # what the one before said is worth more than this one's silence in no time
        _aim(resolver, server, deadline)
        try:
            found = _both(resolver, name, partial(_tell, trace, server))
            if found.addresses:
                return found
            raise NotYetError("lookup", f"{server} knows the name and no address for it (empty answer)")
        except dns.resolver.NXDOMAIN:
            raise NotYetError("lookup", f"{server} says there is no such name (NXDOMAIN)") from None
        except dns.exception.DNSException as error:
            failure = NotYetError("lookup", f"{server} {_complaint(error)}")
        except OSError as error:
            failure = NotYetError("lookup", f"{server} cannot be asked: {error.strerror or error}")
    raise failure or NotYetError("lookup", f"{PATH} names no DNS server")


def complaints(name: str, deadline: Deadline) -> dict[str, str]:
    """Ask each server for a name's IPv4 address, and return what is wrong with it; nothing where it answers, be it no.

    Raises:
        NotYetError: when the servers are not known.

    """
    resolver, servers = _configured()
    found = dict.fromkeys(servers, "")
    for server in servers:
        _aim(resolver, server, deadline)
        try:
            resolver.resolve(name, "A", search=True, raise_on_no_answer=False)
        except dns.resolver.NXDOMAIN:
            continue  # it has answered
        except dns.exception.DNSException as error:
            found[server] = _complaint(error)
        except OSError as error:
            found[server] = f"cannot be asked: {error.strerror or error}"
    return found


def _aim(resolver: dns.resolver.Resolver, server: str, deadline: Deadline) -> None:
    """Let it ask one server, so that each failure has a name to it."""
    resolver.nameservers = [server]
    resolver.timeout = max(deadline.within(TIMEOUT), MIN_TIMEOUT)
    resolver.lifetime = resolver.timeout + DAWDLING


def _configured() -> tuple[dns.resolver.Resolver, list[str]]:
    """Return a resolver with the search list, and the servers. The file is read anew: it may have changed."""
    try:
        with open(PATH, encoding="utf-8", errors="replace") as file:
            return read(file.read(LARGEST).splitlines())
    except OSError as error:
        raise NotYetError("lookup", f"{PATH} cannot be read: {error.strerror or error}") from None
    except dns.exception.DNSException as error:  # without a search list, the host's own domain is it
        raise NotYetError("lookup", f"no DNS server can be asked, the host's name is no DNS name: {error}") from None


def read(lines: Iterable[str]) -> tuple[dns.resolver.Resolver, list[str]]:
    """Return a resolver with the search list in these lines of a resolv.conf(5), and the servers, both as they come.

    As in libc, a line that makes no sense counts for nothing; dnspython would give up on all of it.

    Raises:
        dns.exception.DNSException: when the host's own name, which the search list begins with, is no DNS name.

    """
    resolver = dns.resolver.Resolver(configure=False)
    servers: list[str] = []
    for line in lines:
        resolver.nameservers = []
        with suppress(dns.exception.DNSException, ValueError):
            resolver.read_resolv_conf(StringIO(line))
        servers += [server for server in map(str, resolver.nameservers) if dns.inet.is_address(server)]
    return resolver, servers


def _tell(trace: Callable[[str], None], server: str, kind: str, name: str, said: str) -> None:
    trace(f"DNS {server}: {kind} {name}: {said}")


def _both(resolver: dns.resolver.Resolver, name: str, tell: Callable[[str, str, str], None]) -> Answer:
    """Return the IPv4 and IPv6 addresses; some servers never answer for IPv6, and that does not take IPv4 away."""
    found = _query(resolver, name, "A", tell)
    try:
        more = _query(resolver, name, "AAAA", tell)
    except (dns.exception.DNSException, OSError):
        if not found.addresses:
            raise
        return found
    ttls = [answer.ttl for answer in (found, more) if answer.addresses]
    return Answer(found.addresses + more.addresses, found.server, min(ttls, default=0.0))


def _query(resolver: dns.resolver.Resolver, name: str, kind: str, tell: Callable[[str, str, str], None]) -> Answer:
    try:
        answer = resolver.resolve(name, kind, search=True, raise_on_no_answer=False)
    except dns.resolver.NXDOMAIN:
        tell(kind, name, "NXDOMAIN")
        raise
    except dns.exception.DNSException as error:
        tell(kind, name, _complaint(error))
        raise
    found = tuple(ip_address(record.address) for record in answer.rrset or ())
    tell(kind, str(answer.qname), ", ".join(map(str, found)) or "no address")
    # The least TTL of a chain of aliases is the one that counts.
    return Answer(found, str(resolver.nameservers[0]), float(answer.chaining_result.minimum_ttl))


def _complaint(error: dns.exception.DNSException) -> str:
    """Say what a server did wrong. dnspython keeps (server, over TCP, port, what, response) for each thing it saw."""
    seen = (error.kwargs or {}).get("errors")
    if not seen and not isinstance(error, dns.exception.Timeout):
        return f"is no help: {error}"
    _, tcp, _, what, _ = seen[-1] if seen else (None, False, 53, error, None)
    if isinstance(what, str):
        return f"answers {what}"  # the name of an rcode
    how = " over TCP" if tcp else ""
    if isinstance(what, dns.exception.Timeout):  # replies that do not fit are passed over: they may be forged
        return f"sends no proper reply{how}"
    if isinstance(what, OSError):
        return f"cannot be asked{how}: {what.strerror or what}"
    if isinstance(what, EOFError):
        return f"closes the connection{how} without a reply"
    return f"sends what is no proper reply{how}: {type(what).__name__}"
