"""A helper process that uses python-iptables, so that the library cannot end or disturb the process of imds-detour.

libxtables may call exit(). Reading rules redirects file descriptor 1 for a while. A process can build rules for one IP
version only. The helper loads the library while its parent continues.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

from imds_detour.deadline import FOREVER
from imds_detour.errors import DetourError, error_text
from imds_detour.lean import pickle, signal, socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, NoReturn

TIMEOUT = 60.0
"""Seconds for a call. The first call waits until the library has loaded, which takes long when many containers start at
once."""
MAX_DESCRIPTORS = 256
"""More than an imds-detour has open."""
GRACE = 0.15
"""Seconds for a call after the deadline: for an undo, and for the report of a lock that the helper did not get."""
MAX_MESSAGE = 131_072
"""Bytes. A message of this size fits in the default socket buffer (net.core.wmem_default)."""
ENDED = "look for what ended it (memory limit? a library's complaint?) and start again"
NO_ANSWER = "is the machine short of processor time? MOCK_TIMEOUT is how long to wait, MOCK_BACKEND=nft needs no helper"
NO_PROCESS = "raise the limit (`pids_limit`, `ulimits`, memory), or MOCK_BACKEND=nft, which needs no helper"


class HelperLostError(DetourError):
    """The helper has ended or does not answer. Start another one."""


class Helper:
    """A process that runs functions on request."""

    def __init__(self, pid: int, connection: socket.socket, output: int) -> None:
        self._pid = pid
        self._connection = connection
        self._output = output  # its stderr, of which the last line is quoted when it has ended early
        self._lost: HelperLostError | None = None
        self._due = 0  # answers

    def call(self, function: str, *arguments: object, remaining: float = FOREVER) -> Any:  # noqa: ANN401  (the function's own type)
        """Return a function's result, or raise its DetourError; HelperLostError from the helper's end on.

        ``remaining`` is the seconds before the deadline of the caller.
        """
        self.ask([(function, arguments)], remaining)
        return self.answer(remaining)

    def ask(self, calls: Sequence[tuple[str, tuple[object, ...]]], remaining: float) -> None:
        """Let the helper run functions while the caller goes on; after one that raises an error, the others do not run.

        Each answer() is that of the next one. Answers to earlier calls that were not taken are dropped.
        """
        while self._due:
            with suppress(DetourError):
                self.answer(remaining)
        if self._lost is not None:
            raise self._lost
        timeout = min(TIMEOUT, remaining) + GRACE
        try:
            self._connection.settimeout(timeout)
            self._connection.sendall(pickle.dumps(calls))
            self._due = len(calls)
        except OSError as error:
            raise self._lost_by(error, timeout) from None

    def answer(self, remaining: float) -> Any:  # noqa: ANN401  (the function's own type)
        """Return the result of a function that the helper was asked to run, or raise its error, like call()."""
        if self._lost is not None:
            raise self._lost
        timeout = min(TIMEOUT, remaining) + GRACE
        try:
            self._connection.settimeout(timeout)
            answer = self._connection.recv(MAX_MESSAGE)
        except OSError as error:
            raise self._lost_by(error, timeout) from None
        if not answer:
            raise self._lose(f"ended early{self._last_line()}", ENDED)
        # Safe to unpickle: only the helper, a fork of this process, has the other end.
        result, refusal = pickle.loads(answer)
        self._due = 0 if refusal else self._due - 1
        if refusal is not None:
            raise DetourError(*refusal)
        return result

    def close(self) -> None:
        """End the helper and reap it. A helper that hangs is killed."""
        ends = True
        try:
            self._connection.settimeout(GRACE)
            self._connection.shutdown(socket.SHUT_WR)  # not close(): a helper that was forked later has a copy
            while self._connection.recv(MAX_MESSAGE):
                pass  # until the helper closes its end
        except OSError:  # it hangs or has ended; waitpid() below blocks until it ends
            ends = self._kill()
        # The rules are installed, so nothing here may fail the start. close(2) frees a descriptor even when it fails.
        with suppress(OSError):
            self._connection.close()
        if ends:
            # If SIGCHLD is ignored by inheritance, the kernel has reaped it. Seccomp may forbid waitpid(2).
            with suppress(OSError):
                os.waitpid(self._pid, 0)
        with suppress(OSError):
            os.close(self._output)

    def _kill(self) -> bool:
        """Kill the helper, and return whether it ends. If seccomp forbids kill(2), it ends when its input does."""
        try:
            os.kill(self._pid, signal.SIGKILL)
        except OSError as error:
            return isinstance(error, ProcessLookupError)  # the kernel has reaped it
        return True

    def _lost_by(self, error: OSError, timeout: float) -> HelperLostError:
        if isinstance(error, TimeoutError):
            return self._lose(f"did not answer within {timeout:.3g} s", NO_ANSWER)
        if isinstance(error, BrokenPipeError | ConnectionResetError):
            return self._lose(f"ended early{self._last_line()}", ENDED)
        return self._lose(f"cannot be asked: {error.strerror or error}", ENDED)

    def _lose(self, reason: str, remedy: str) -> HelperLostError:
        self._kill()  # a late answer would be taken for that of the next call
        self._due = 0
        self._lost = HelperLostError("firewall", f"the firewall helper {reason}", remedy)  # for all later calls too
        return self._lost

    def _last_line(self) -> str:
        try:
            last = os.pread(self._output, 4096, 0).decode(errors="replace").strip().rpartition("\n")[2].strip()
        except OSError:
            last = ""
        return f": {last}" if last else ""


def start_helper(version: int) -> Helper:
    """Fork a helper that loads python-iptables for an IP version. DetourError at a limit on processes or memory."""
    undo: list[Callable[[], None]] = []
    try:
        connection, calls = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        undo += (connection.close, calls.close)
        output = os.memfd_create("imds-detour-firewall")
        undo.append(lambda: os.close(output))
        pid = os.fork()
    except OSError as error:
        for close in undo:
            close()
        raise DetourError("firewall", f"cannot start the firewall helper: {error_text(error)}", NO_PROCESS) from None
    if pid == 0:
        connection.close()  # with a copy of it, the helper would never see the end of its input
        _serve(calls, output, version)
    calls.close()
    return Helper(pid, connection, output)


def _serve(calls: socket.socket, output: int, version: int) -> NoReturn:
    try:
        # Without the parent's handlers, a signal to the whole process group ends the helper.
        for number in signal.valid_signals():
            if callable(signal.getsignal(number)):
                signal.signal(number, signal.SIG_DFL)
        null = os.open("/dev/null", os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(null, 1)
        os.dup2(output, 2)
        low, high = sorted((calls.fileno(), output))
        for first, end in ((3, low), (low + 1, high), (high + 1, MAX_DESCRIPTORS)):
            os.closerange(first, end)  # a lock that is held at the fork would be held until the helper ends
        # None if imds-detour was started with stdout closed. python-iptables flushes it when it reads rules.
        sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115  (until the helper ends)
        functions: dict[str, Callable[..., object]] = {}
        refusal: tuple[str, str, str] | None = None
        try:
            from imds_detour.firewall.iptables import worker  # noqa: PLC0415  (only the helper needs it)

            functions = worker.load(version)
        except Exception as error:
            refusal = _refusal(error)
        while message := calls.recv(MAX_MESSAGE):
            for function, arguments in pickle.loads(message):
                result, failure = None, refusal
                if failure is None:
                    try:
                        result = functions[function](*arguments)
                    except Exception as error:
                        failure = _refusal(error)
                calls.sendall(pickle.dumps((result, failure)))
                if failure is not None:
                    break
    finally:
        os._exit(0)  # without the parent's clean-up, and without a traceback


def _refusal(error: Exception) -> tuple[str, str, str]:
    if isinstance(error, DetourError):
        return error.step, error.reason, error.remedy
    return "firewall", f"the firewall helper failed: {type(error).__name__}: {error}", ""
