"""Look a mock's name up.

A start asks libc first: it knows /etc/hosts, search domains, and everything else that the app will see. When libc has
no answer in time, dnspython asks the configured servers, and can tell "no such name" from "no reply". libc's look-up
continues meanwhile, in a thread: a stop signal cannot interrupt it, and a silent server holds it for ten seconds.
"""

from __future__ import annotations

import time
from ipaddress import ip_address

from imds_detour import lean
from imds_detour.config.mock_address import why_no_mock
from imds_detour.errors import DetourError, NoAddressError
from imds_detour.lean import socket
from imds_detour.system import files
from imds_detour.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from imds_detour.deadline import Deadline
    from imds_detour.endpoint import Address

SYSTEM_TIMEOUT = 0.25
"""Seconds for libc's first answer, before the servers are asked directly. Resolvers abroad take up to 0.1 s."""
LATER_TIMEOUT = 0.02
"""The same from the second attempt on: enough for /etc/hosts and a server nearby."""
PAUSE, WAITED_SHARE = 1.0, 0.4
"""Seconds between two look-ups by libc, also while the first still hangs: /etc/hosts may have the name by then. It
grows with the number of hanging look-ups, which are threads: four after ten seconds. It is at least this share of what
has been waited, because the servers are asked directly too."""
REPEATS = 2
"""How often libc asks for a name without addresses if the server offers no recursion (resolv.conf(5), attempts)."""
USUAL_WAIT = 0.2
"""Seconds that a start waits for a processor in all, on a machine with other work."""
WAIT_FACTOR = 4.0
"""Each second of waiting beyond that extends the timeout by so many: the server may wait for a processor too. Otherwise
many starts at once would each load dnspython, which takes more of the processor than they are waiting for."""


class Resolution(Value):
    """The addresses of a mock's name."""

    name: str  # as the user wrote it
    addresses: tuple[Address, ...]  # at least one, in the order in which to try them, which is the same on every start
    source: str  # ``literal``, ``system resolver``, ``DNS server`` and its address, or ``file`` and its path
    ttl: float | None = None  # seconds for which it is valid; None where the source does not say


class Lookup:
    """Attempts to look one host up for a start, which races libc against the DNS servers."""

    def __init__(self, host: str | Address) -> None:
        self._host = host
        self._attempts = 0  # since the last answer
        self._first = time.monotonic()
        self._started = float("-inf")  # libc's latest look-up
        self._running: list[lean.Lock] = []  # each is held until its look-up by libc has ended; the latest comes last
        self._addresses: list[Address] = []  # libc's answer
        self._refusal = ""  # the DNS servers' latest reason why there is no address
        self._libc_questions = 1  # for libc to learn the same

    def start(self) -> None:
        """Let libc look the name up in a thread; nothing to do for an address. Fork before that."""
        if isinstance(self._host, str):
            self._started = time.monotonic()
            lock = lean.held_lock()
            self._running.append(lock)
            try:
                lean.start_thread(_look_up_by_libc, self._host, self._addresses, lock)
            except RuntimeError:
                lock.release()  # no thread (a limit on processes): the DNS servers are asked directly

    def attempt(self, deadline: Deadline, trace: Callable[[str], None] = lambda _line: None) -> Resolution:
        """Ask libc, then the DNS servers, once; NotYetError without an answer, DetourError if no mock can be there."""
        if not isinstance(self._host, str):
            return Resolution(str(self._host), (self._host,), "literal")
        extra = WAIT_FACTOR * max(0.0, _seconds_without_processor() - USUAL_WAIT)
        timeout = LATER_TIMEOUT if self._attempts else SYSTEM_TIMEOUT + extra
        self._attempts += 1
        answered, addresses = self._ask_libc(deadline.within(timeout))
        if addresses:
            resolution = resolution_of(self._host, addresses, "system resolver")
        else:
            trace(f"the system resolver has no address for {self._host} yet")
            if answered and self._refusal:
                refused = NoAddressError("lookup", self._refusal)  # libc has asked the same servers
                refused.questions = self._libc_questions
                raise refused
            try:
                resolution = ask_servers(self._host, deadline, trace)
            except NoAddressError as error:
                self._refusal = error.reason
                nonexistent = error.questions == 1  # then libc asks once; of an empty name, both types were asked
                self._libc_questions = 1 if nonexistent else REPEATS * error.questions
                raise
        # The next attempt starts another look-up; one that still hangs writes to the old list.
        self._attempts, self._started, self._addresses = 0, float("-inf"), []
        return resolution

    def _ask_libc(self, timeout: float) -> tuple[bool, list[Address]]:
        """Return whether libc's look-up ended within this attempt's ``timeout`` seconds, and the addresses so far."""
        self._running = [lock for lock in self._running if lock.locked()]
        now = time.monotonic()
        pause = max(PAUSE * max(1, len(self._running)), WAITED_SHARE * (now - self._first))
        if not self._addresses and now >= self._started + pause:
            self.start()
        answered = bool(not self._addresses and self._running and self._running[-1].acquire(timeout=timeout))
        if answered:
            self._running.pop().release()
        return answered, self._addresses


def _look_up_by_libc(name: str, addresses: list[Address], lock: lean.Lock) -> None:
    try:
        if files.is_libc_safe():
            # As bytes, so that Python's IDNA codec does not change the name.
            infos = socket.getaddrinfo(name.encode("ascii"), None, type=socket.SOCK_STREAM)
            addresses[:] = [ip_address(str(info[4][0]).partition("%")[0]) for info in infos]
    except (OSError, ValueError):
        pass  # nameservers.py finds out what went wrong
    finally:
        lock.release()


def _seconds_without_processor() -> float:
    """Return the seconds that the main thread was ready to run and did not (proc(5), schedstat)."""
    try:
        with open("/proc/self/schedstat", "rb") as file:
            return int(file.read().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):  # a kernel without CONFIG_SCHED_INFO
        return 0.0


def ask_servers(name: str, deadline: Deadline, trace: Callable[[str], None]) -> Resolution:
    """Ask the DNS servers once; ``trace`` is that of nameservers.ask(), and errors are those of Lookup.attempt()."""
    from imds_detour.discovery.dns import nameservers  # noqa: PLC0415  (dnspython is costly to import)

    answer = nameservers.ask(name, deadline, trace)
    return resolution_of(name, answer.addresses, f"DNS server {answer.server}", answer.ttl)


def resolution_of(name: str, addresses: Iterable[Address], source: str, ttl: float | None = None) -> Resolution:
    """Return those of a name's addresses at which a mock can be; DetourError if there is none."""
    # Sorted, because servers rotate their answers; IPv4 before IPv6.
    by_version = sorted(set(addresses), key=lambda address: (address.version, int(address)))
    fit = tuple(address for address in by_version if not why_no_mock(address))
    if not fit:
        reason = f"{name} resolves to {by_version[0]}, and no mock can be there: {why_no_mock(by_version[0])}"
        remedy = "look at who answers for that name, and at /etc/hosts"
        raise DetourError("lookup", f"{reason} (said the {source})", remedy)
    return Resolution(name, fit, source, ttl)
