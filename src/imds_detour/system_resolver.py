"""getaddrinfo in a thread: a stop signal cannot interrupt libc, and a silent server holds it for ten seconds."""

from __future__ import annotations

import _thread
import signal
import socket
import time
from ipaddress import ip_address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imds_detour.endpoints import Address

PAUSE = 1.0
"""Seconds before asking again after a failure; what the system resolver alone knows (/etc/hosts) changes seldom."""


class SystemResolver:
    """Asks again and again until it has an answer. It dies with the process: exec and exit do not wait for it."""

    def __init__(self, name: str) -> None:
        """Ask for the addresses of ``name`` from now on."""
        self._name = name.encode("ascii")  # as bytes, so that Python's IDNA codec has no say
        self._found: tuple[Address, ...] = ()
        self._first = _thread.allocate_lock()  # held until the first look-up has come back, however it went
        self._first.acquire()
        # Stop signals are for the main thread, which can act on them: block them all while the thread is born.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            _thread.start_new_thread(self._run, ())
        except RuntimeError:
            self._first.release()  # no thread to be had (a limit on processes): the servers alone will do
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def answer(self, patience: float) -> tuple[Address, ...]:
        """Return the addresses, or nothing when the first look-up failed or takes over ``patience`` seconds."""
        if not self._found and self._first.acquire(timeout=patience):
            self._first.release()
        return self._found

    def _run(self) -> None:
        first = True
        while True:
            try:
                infos = socket.getaddrinfo(self._name, None, type=socket.SOCK_STREAM)
                self._found = tuple(ip_address(str(info[4][0]).partition("%")[0]) for info in infos)
            except (OSError, ValueError):
                pass  # what exactly went wrong, nameservers.py finds out
            if first:
                self._first.release()
                first = False
            if self._found:
                return
            time.sleep(PAUSE)
