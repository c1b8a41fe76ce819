"""Ask the DNS servers in /etc/resolv.conf with dnspython, which tells what failed and which server."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from io import StringIO
from ipaddress import ip_address
from types import SimpleNamespace

from imds_detour.discovery.dns.resolv_conf import MAX_SIZE, PATH
from imds_detour.errors import NoAddressError, NotYetError
from imds_detour.system import files
from imds_detour.value import Value

# dnspython needs OpenSSL only for DNS over TLS and signed messages, and it is large (bench/NOTES.md). None makes an
# import fail at once (importlib: "None in sys.modules"). Afterwards sys.modules is as it was.
OPENSSL = ("ssl", "_hashlib")
for _name in OPENSSL:
    sys.modules.setdefault(_name, None)  # type: ignore[arg-type]  # see above

import dns.exception  # noqa: E402  (see above)
import dns.inet  # noqa: E402
import dns.query  # noqa: E402
import dns.rdtypes.IN.A  # noqa: E402  (otherwise imported with the first answer, which delays it)
import dns.rdtypes.IN.AAAA  # noqa: E402
import dns.resolver  # noqa: E402

for _name in OPENSSL:
    if sys.modules[_name] is None:
        del sys.modules[_name]

# dnspython waits by the wall clock, which may be set meanwhile.
_clock = SimpleNamespace(time=time.monotonic, sleep=time.sleep)
vars(dns.query)["time"] = vars(dns.resolver)["time"] = _clock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from imds_detour.deadline import Deadline
    from imds_detour.endpoint import Address

TIMEOUT = 0.4
"""Seconds for one server's reply, then the next is asked. libc waits longer for a slow one."""
MIN_TIMEOUT = 0.05
"""Seconds for the first server even if the deadline is nearer: with less, every server seems silent."""
SILENCE_PAUSE = 0.1
"""Seconds that dnspython sleeps after a timeout, before it checks its lifetime."""


class Answer(Value):
    """A server's answer."""

    addresses: tuple[Address, ...]  # IPv4 and IPv6, in its order
    server: str  # its address
    ttl: float  # seconds for which it is valid


def ask(name: str, deadline: Deadline, trace: Callable[[str], None]) -> Answer:
    """Ask each server in turn until one gives a definite answer, and return it.

    As in libc, a definite "no" ends the round; after silence or a failure, the next server is asked. ``trace`` receives
    each query and its outcome. Raises NotYetError with the last failure, and its server.
    """
    resolver, servers = configured()
    failure: NotYetError | None = None
    queries = 0

    def counted(line: str) -> None:
        nonlocal queries
        queries += 1
        trace(line)

    for server in servers:
        if failure and deadline.remaining() < MIN_TIMEOUT:
            break  # the failure so far says more than a server without time to answer
        try:
            return ask_server(resolver, server, name, deadline, counted)
        except NotYetError as error:
            failure = error
            failure.questions = queries
            if isinstance(error, NoAddressError):
                break
    raise failure or NotYetError("lookup", f"{PATH} names no DNS server")


def ask_server(
    resolver: dns.resolver.Resolver, server: str, name: str, deadline: Deadline, trace: Callable[[str], None]
) -> Answer:
    """Ask one server for a name's addresses. Raises NoAddressError when it has none, NotYetError when it is no help."""
    resolver.nameservers = [server]
    resolver.timeout = max(deadline.within(TIMEOUT), MIN_TIMEOUT)
    resolver.lifetime = resolver.timeout + SILENCE_PAUSE
    try:
        answer = _both(resolver, name, trace)
    except dns.resolver.NXDOMAIN:
        raise NoAddressError("lookup", f"{server} says there is no such name (NXDOMAIN)") from None
    except (dns.exception.DNSException, OSError) as error:
        raise NotYetError("lookup", f"{server} {_failure(error)}") from None
    if not answer.addresses:
        raise NoAddressError("lookup", f"{server} knows the name, but no address for it (empty answer)")
    return answer


def configured() -> tuple[dns.resolver.Resolver, list[str]]:
    """Return a resolver with the search list, and the servers. The file is read each time: it may have changed."""
    try:
        return read(files.read(PATH, MAX_SIZE).decode("utf-8", "replace").splitlines())
    except OSError as error:
        raise NotYetError("lookup", f"{PATH} cannot be read: {error.strerror or error}") from None
    except dns.exception.DNSException as error:  # without a search list, it is the host's own domain
        raise NotYetError("lookup", f"no DNS server can be asked, the host's name is no DNS name: {error}") from None


def read(lines: Iterable[str]) -> tuple[dns.resolver.Resolver, list[str]]:
    """Return a resolver with the search list in these lines, and the servers; as in libc, invalid lines are skipped."""
    resolver = dns.resolver.Resolver(configure=False)
    servers: list[str] = []
    for line in lines:
        resolver.nameservers = []
        with suppress(dns.exception.DNSException, ValueError):
            resolver.read_resolv_conf(StringIO(line))
        servers += [server for server in map(str, resolver.nameservers) if dns.inet.is_address(server)]
    return resolver, servers


def _both(resolver: dns.resolver.Resolver, name: str, trace: Callable[[str], None]) -> Answer:
    """Return the IPv4 and IPv6 addresses. Some servers never answer for IPv6; the IPv4 addresses are used then."""
    ipv4 = _query(resolver, name, "A", trace)
    try:
        ipv6 = _query(resolver, name, "AAAA", trace)
    except (dns.exception.DNSException, OSError):
        if not ipv4.addresses:
            raise
        return ipv4
    ttls = [answer.ttl for answer in (ipv4, ipv6) if answer.addresses]
    return Answer(ipv4.addresses + ipv6.addresses, ipv4.server, min(ttls, default=0.0))


def _query(resolver: dns.resolver.Resolver, name: str, kind: str, trace: Callable[[str], None]) -> Answer:
    server = str(resolver.nameservers[0])
    try:
        answer = resolver.resolve(name, kind, search=True, raise_on_no_answer=False)
    except dns.exception.DNSException as error:
        outcome = "NXDOMAIN" if isinstance(error, dns.resolver.NXDOMAIN) else _failure(error)
        trace(f"DNS {server}: {kind} {name}: {outcome}")
        raise
    addresses = tuple(ip_address(record.address) for record in answer.rrset or ())
    trace(f"DNS {server}: {kind} {answer.qname}: {', '.join(map(str, addresses)) or 'no address'}")
    # In a chain of aliases, the smallest TTL counts.
    return Answer(addresses, server, float(answer.chaining_result.minimum_ttl))


def _failure(error: dns.exception.DNSException | OSError) -> str:
    """Return a server's failure. dnspython has (server, over TCP, port, failure, response) for each one."""
    errors = (getattr(error, "kwargs", None) or {}).get("errors")
    if not errors and not isinstance(error, dns.exception.Timeout | OSError):
        return f"is no help: {error}"
    _, tcp, _, failure, _ = errors[-1] if errors else (None, False, 53, error, None)
    if isinstance(failure, str):
        return f"answers {failure}"  # the name of an rcode
    how = " over TCP" if tcp else ""
    if isinstance(failure, dns.exception.Timeout):  # replies that do not fit are ignored: they may be forged
        return f"sends no proper reply{how}"
    if isinstance(failure, OSError):
        return f"cannot be asked{how}: {failure.strerror or failure}"
    if isinstance(failure, EOFError):
        return f"closes the connection{how} without a reply"
    return f"sends no valid reply{how}: {type(failure).__name__}"
