"""A process that holds python-iptables, so that neither its exit() nor its use of stdout reaches imds-detour.

libxtables may end its process, a read-back borrows file descriptor 1, and one process can build the rules of one IP
version only. A helper loads the library while the parent does other things.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

from imds_detour.deadline import FOREVER
from imds_detour.errors import DetourError, words
from imds_detour.lean import pickle, signal, socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    Functions = dict[str, Callable[..., object]]
    Refusal = tuple[str, str, str]

TIMEOUT = 60.0
"""Seconds for one call, if the deadline leaves as much. The first call waits until the library has loaded, which takes
long where a hundred containers start at once."""
GRACE = 0.15
"""Seconds for a call after the deadline: an undo needs them, and the helper can report a lock that it did not get."""
MAX_MESSAGE = 131_072
"""Bytes. A list of rules takes some hundreds; 128 KiB fit in the default socket buffer (net.core.wmem_default)."""
ENDED = "look for what ended it (memory limit? a library's complaint?) and start again"
NO_ANSWER = "is the machine short of processor time? MOCK_TIMEOUT is how long to wait, MOCK_BACKEND=nft needs no helper"
NO_PROCESS = "raise the limit (`pids_limit`, `ulimits`, memory), or MOCK_BACKEND=nft, which needs no helper"


class HelperLostError(DetourError):
    """The helper has ended or does not answer; only another one can go on."""


def _forever() -> float:
    return FOREVER


class Helper:
    """A process that answers calls of named functions, one at a time."""

    def __init__(self, pid: int, connection: socket.socket, output: int) -> None:
        """Take a process, the socket to it, and the file with what it wrote to stderr."""
        self.remaining: Callable[[], float] = _forever  # seconds before the deadline, which bounds every call
        self._pid = pid
        self._connection = connection
        self._output = output
        self._lost: HelperLostError | None = None

    def call(self, function: str, *arguments: object) -> Any:  # noqa: ANN401  (the function's own type)
        """Call a function in the helper and return its result.

        Raises DetourError: the function's own. Raises HelperLostError: how the helper ended, for this call and each
        later one.
        """
        if self._lost is not None:
            raise self._lost
        timeout = min(TIMEOUT, self.remaining()) + GRACE
        try:
            self._connection.settimeout(timeout)
            self._connection.sendall(pickle.dumps((function, arguments)))
            answer = self._connection.recv(MAX_MESSAGE)
        except TimeoutError:
            raise self._lose(f"did not answer within {timeout:.3g} s", NO_ANSWER) from None
        except (BrokenPipeError, ConnectionResetError):
            answer = b""
        except OSError as error:
            raise self._lose(f"cannot be asked: {error.strerror or error}", ENDED) from None
        if not answer:
            raise self._lose(f"ended early{self._last_line()}", ENDED)
        # Safe to unpickle: the other end is our own fork, on a socket that no other process holds.
        result, refusal = pickle.loads(answer)
        if refusal is not None:
            raise DetourError(*refusal)
        return result

    def close(self) -> None:
        """End the helper and reap it; one that hangs is killed."""
        ends = True
        try:
            self._connection.settimeout(GRACE)
            self._connection.shutdown(socket.SHUT_WR)  # closing is not enough: a helper forked later has a copy
            while self._connection.recv(MAX_MESSAGE):
                pass  # until the helper has closed its end
        except OSError:  # it hangs, or has ended, or cannot be told: reaping it waits, so it must end
            ends = self._kill()
        # close(2) frees the descriptor even if it fails. Nothing here may fail a start whose rules are installed.
        with suppress(OSError):
            self._connection.close()
        if ends:
            self._reap()
        with suppress(OSError):
            os.close(self._output)

    def _kill(self) -> bool:
        """Kill the helper, and return whether it ends. Where kill(2) is forbidden (seccomp), it ends with its input."""
        try:
            os.kill(self._pid, signal.SIGKILL)
        except ProcessLookupError:  # SIGCHLD is ignored by inheritance, so the kernel has reaped it
            return True
        except OSError:
            return False
        return True

    def _reap(self) -> None:
        with suppress(
            OSError
        ):  # SIGCHLD is ignored by inheritance, so the kernel has reaped it; or waiting is forbidden
            os.waitpid(self._pid, 0)

    def _lose(self, reason: str, remedy: str) -> HelperLostError:
        """Kill the helper and return the error for this call and each later one.

        A late answer would pass for the next call's, and a helper that hangs would never be reaped.
        """
        self._kill()
        self._lost = HelperLostError("firewall", f"the firewall helper {reason}", remedy)
        return self._lost

    def _last_line(self) -> str:
        lines: list[str] = []
        with suppress(OSError):
            lines = os.pread(self._output, 4096, 0).decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return f": {last}" if last else ""


def start_helper(version: int) -> Helper:
    """Fork a helper, which loads python-iptables for an IP version and then waits for calls.

    Raises DetourError when the kernel gives no process or descriptor.
    """
    undo: list[Callable[[], None]] = []
    try:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        undo += (ours.close, theirs.close)
        # What the libraries print goes to a file without a name, which is read when the helper has ended.
        output = os.memfd_create("imds-detour-firewall")
        undo.append(lambda: os.close(output))
        pid = os.fork()
    except OSError as error:
        for close in undo:
            close()
        raise DetourError("firewall", f"cannot start the firewall helper: {words(error)}", NO_PROCESS) from None
    if pid == 0:
        ours.close()  # with a copy of the parent's end, the helper would never see the end of its input
        _serve(theirs, output, version)
    theirs.close()
    return Helper(pid, ours, output)


def _serve(calls: socket.socket, output: int, version: int) -> NoReturn:
    try:
        # The parent's handlers are not the helper's: a signal to the whole process group ends it.
        for number in signal.valid_signals():
            if callable(signal.getsignal(number)):
                signal.signal(number, signal.SIG_DFL)
        null = os.open("/dev/null", os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(null, 1)
        os.dup2(output, 2)
        # None if it was closed at the start; python-iptables flushes it at every read-back.
        sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115  (until the helper ends)
        functions: Functions = {}
        failure: DetourError | None = None
        try:
            from imds_detour.firewall.iptables import worker  # noqa: PLC0415  (only the helper needs it)

            functions = worker.load(version)
        except DetourError as error:
            failure = error
        except Exception as error:
            failure = _translated(error)
        while message := calls.recv(MAX_MESSAGE):
            function, arguments = pickle.loads(message)
            calls.sendall(pickle.dumps(_answer(functions, failure, function, arguments)))
    finally:
        os._exit(0)  # without the parent's clean-up, and without a traceback


def _answer(
    functions: Functions, failure: DetourError | None, function: str, arguments: tuple[object, ...]
) -> tuple[object, Refusal | None]:
    if failure is not None:
        return None, _refusal(failure)
    try:
        return functions[function](*arguments), None
    except DetourError as error:
        return None, _refusal(error)
    except Exception as error:  # here a library's exceptions are translated
        return None, _refusal(_translated(error))


def _refusal(error: DetourError) -> Refusal:
    return error.step, error.reason, error.remedy


def _translated(error: Exception) -> DetourError:
    return DetourError("firewall", f"the firewall helper failed: {type(error).__name__}: {error}")
