"""getaddrinfo in threads: a stop signal cannot interrupt libc, and a silent server holds it for ten seconds."""

from __future__ import annotations

import _socket as socket  # without the enums and selectors of socket, which take 3 ms to load
import _thread
import time
from ipaddress import ip_address

from imds_detour import lean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from imds_detour.endpoint import Address

PAUSE = 1.0
"""Seconds from one look-up to the next, also while the first still hangs: /etc/hosts may have the name by then. The
more of them hang, the longer: they are threads, four after ten seconds."""
ORDINARY = 0.2
"""Seconds for which a start waits for a processor, all in all, where the machine has something else to do as well."""
BUSY = 4.0
"""For each second beyond that, so many more for an answer: whoever answers may have to wait for a processor as well.
By the clock alone, 200 starts at once would each ask the servers too, which takes dnspython, 100 ms of a processor that
there is not."""


class SystemResolver:
    """Asks again while it has no answer. Its threads die with the process: exec and exit do not wait for them."""

    def __init__(self, name: str) -> None:
        """Ask for the addresses of ``name`` at once."""
        self._name = name.encode("ascii")  # as bytes, so that Python's IDNA codec has no say
        self._found: tuple[Address, ...] = ()
        self._under_way: list[_thread.LockType] = []  # each is held until its look-up has come back, however it went
        self._latest = self._begin()

    def answer(self, timeout: float) -> tuple[Address, ...]:
        """Return the addresses, or nothing when the latest look-up failed or takes over ``timeout`` seconds."""
        self._under_way = [back for back in self._under_way if back.locked()]
        if not self._found and time.monotonic() >= self._begun + PAUSE * max(1, len(self._under_way)):
            self._latest = self._begin()
        if not self._found and self._latest.acquire(timeout=timeout):
            self._latest.release()
        return self._found

    def worth_waiting(self) -> float:
        """Return the seconds that an answer may take longer for want of a processor."""
        return BUSY * max(0.0, _waited_for_processor() - ORDINARY)

    def _begin(self) -> _thread.LockType:
        self._begun = time.monotonic()
        back = _thread.allocate_lock()
        back.acquire()
        self._under_way.append(back)
        try:
            lean.start(self._look_up, back)
        except RuntimeError:
            back.release()  # no thread to be had (a limit on processes): the servers alone will do
        return back

    def _look_up(self, back: _thread.LockType) -> None:
        try:
            infos = socket.getaddrinfo(self._name, None, type=socket.SOCK_STREAM)
            self._found = tuple(ip_address(str(info[4][0]).partition("%")[0]) for info in infos)
        except (OSError, ValueError):
            pass  # what exactly went wrong, nameservers.py finds out
        finally:
            back.release()


def _waited_for_processor() -> float:
    """Return the seconds that our main thread was ready to run and did not (proc(5), schedstat); 0 if nobody says."""
    try:
        with open("/proc/self/schedstat", "rb") as file:
            return int(file.read().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):  # a kernel without CONFIG_SCHED_INFO
        return 0.0
