"""getaddrinfo in threads: a stop signal cannot interrupt libc, and a silent server holds it for ten seconds."""

from __future__ import annotations

import time
from ipaddress import ip_address

from imds_detour import lean
from imds_detour.lean import socket
from imds_detour.system import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from imds_detour.endpoint import Address

PAUSE = 1.0
"""Seconds between two look-ups, also while the first still hangs: /etc/hosts may have the name by then. It grows with
the number of hanging look-ups, which are threads: four after ten seconds."""
USUAL_WAIT = 0.2
"""Seconds that a start waits for a processor in all, on a machine with other work."""
WAIT_FACTOR = 4.0
"""Each second of waiting beyond that extends the timeout by so many: the server may wait for a processor too. Otherwise
many starts at once would each load dnspython, which takes more of the processor than they are waiting for."""


class SystemResolver:
    """Look-ups of one name by libc, repeated while there is no answer. Their threads end with the process."""

    def __init__(self, name: str) -> None:
        self._name = name.encode("ascii")  # as bytes, so that Python's IDNA codec does not change it
        self._addresses: tuple[Address, ...] = ()
        self._running: list[lean.Lock] = []  # each lock is held until its look-up has ended
        self._started = 0.0

    def start(self) -> None:
        """Start a look-up in a thread. Fork before that."""
        self._started = time.monotonic()
        lock = lean.held_lock()
        self._running.append(lock)
        try:
            lean.start_thread(self._look_up if files.is_libc_safe() else lean.Lock.release, lock)
        except RuntimeError:
            lock.release()  # no thread (a limit on processes): the DNS servers are asked directly

    def answer(self, timeout: float) -> tuple[Address, ...]:
        """Return the addresses; nothing when the latest look-up failed or takes over ``timeout`` seconds."""
        latest = self._running[-1]
        self._running = [lock for lock in self._running[:-1] if lock.locked()] + [latest]
        hanging = sum(lock.locked() for lock in self._running)
        if not self._addresses and time.monotonic() >= self._started + PAUSE * max(1, hanging):
            self.start()
        latest = self._running[-1]
        if not self._addresses and latest.acquire(timeout=timeout):
            latest.release()
        return self._addresses

    def extra_timeout(self) -> float:
        """Return the seconds by which a busy machine may delay an answer."""
        return WAIT_FACTOR * max(0.0, _seconds_without_processor() - USUAL_WAIT)

    def _look_up(self, lock: lean.Lock) -> None:
        try:
            infos = socket.getaddrinfo(self._name, None, type=socket.SOCK_STREAM)
            self._addresses = tuple(ip_address(str(info[4][0]).partition("%")[0]) for info in infos)
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
