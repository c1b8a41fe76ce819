"""A forked child that holds the firewall library, so that neither its exit() nor its stdout tricks can reach us.

libxtables may end its process, its read-back borrows file descriptor 1, and one process can build the rules of one
address family only. A child has all that to itself, and it loads while the parent looks the mock's name up.
"""

from __future__ import annotations

import _pickle as pickle  # its C half: the other one takes 1 ms to load, and is for what cannot be had here
import _socket as socket  # without the enums and selectors of socket, which take 3 ms to load
import os
import sys
from contextlib import suppress

from imds_detour.errors import DetourError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable
    from typing import Any, NoReturn
else:
    import _signal as signal  # as in handover.py

PATIENCE = 60.0
"""Seconds that one call may take. A commit takes about 1 ms, waiting for another writer's lock some seconds; where a
hundred containers start at once, the first call waits for a library that loads on a hundredth of a processor."""
LARGEST_MESSAGE = 131_072
"""Bytes. A list of our rules is some hundreds; 128 KiB fit in the default socket buffer (net.core.wmem_default)."""
EARLY_END = "look for what ended it (memory limit? a library's complaint?) and start again"
"""What to do when the child is gone."""


class Child:
    """A process that answers calls of named functions, one at a time."""

    def __init__(self, load: Callable[[], dict[str, Callable[..., object]]]) -> None:
        """Fork; the child runs ``load`` for its functions and then waits for calls."""
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # What the libraries have to say goes to a file without a name, read only when the child dies.
        self._words = os.memfd_create("imds-detour-firewall")
        self._pid = os.fork()
        if self._pid == 0:
            self._socket.close()  # with a copy of the parent's end, the child would never see the end of its input
            _serve(theirs, self._words, load)
        theirs.close()
        self._socket.settimeout(PATIENCE)

    def call(self, function: str, *arguments: object) -> Any:  # noqa: ANN401  (whatever the named function returns)
        """Call a function in the child and return what it returns.

        Raises:
            DetourError: the function's own, or one that says how the child ended.

        """
        try:
            self._socket.sendall(pickle.dumps((function, arguments)))
            answer = self._socket.recv(LARGEST_MESSAGE)
        except TimeoutError:
            # A late answer would pass for the next call's, and a child that hangs would never be reaped.
            os.kill(self._pid, signal.SIGKILL)
            raise DetourError("firewall", f"the firewall helper did not answer within {PATIENCE:.0f} s") from None
        except OSError:
            answer = b""
        if not answer:
            raise DetourError("firewall", f"the firewall helper ended early{self._last_words()}", EARLY_END)
        # Safe to unpickle: the other end is our own fork, on a socket that nobody else holds.
        outcome, error = pickle.loads(answer)
        if error is not None:
            raise DetourError(*error)
        return outcome

    def close(self) -> None:
        """End the child and reap it."""
        with suppress(OSError):  # the child is gone already
            self._socket.shutdown(socket.SHUT_RDWR)  # closing is not enough: a child forked later has a copy
        self._socket.close()
        with suppress(ChildProcessError):  # SIGCHLD is ignored by inheritance, and the kernel has reaped the child
            os.waitpid(self._pid, 0)
        os.close(self._words)

    def _last_words(self) -> str:
        words = os.pread(self._words, 4096, 0).decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(words) if line.strip()), "")
        return f": {last}" if last else ""


def _serve(calls: socket.socket, words: int, load: Callable[[], dict[str, Callable[..., object]]]) -> NoReturn:
    try:
        # The parent's stop handlers are not ours: a signal to the whole process group just ends the child.
        for number in signal.valid_signals():
            if callable(signal.getsignal(number)):
                signal.signal(number, signal.SIG_DFL)
        null = os.open("/dev/null", os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(null, 1)
        os.dup2(words, 2)
        # None when it was closed at the start; python-iptables flushes it at every read-back.
        sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115  (for the child's whole life)
        functions: dict[str, Callable[..., object]] = {}
        failure: DetourError | None = None
        try:
            functions = load()
        except DetourError as error:
            failure = error
        except Exception as error:
            failure = _translated(error)
        while message := calls.recv(LARGEST_MESSAGE):
            function, arguments = pickle.loads(message)
            calls.sendall(pickle.dumps(_answer(functions, failure, function, arguments)))
    finally:
        os._exit(0)  # never the parent's clean-up, and never a traceback of a child that nobody asked for


def _answer(
    functions: dict[str, Callable[..., object]],
    failure: DetourError | None,
    function: str,
    arguments: tuple[object, ...],
) -> tuple[object, tuple[str, str, str] | None]:
    if failure is not None:
        return None, (failure.step, failure.reason, failure.remedy)
    try:
        return functions[function](*arguments), None
    except DetourError as error:
        return None, (error.step, error.reason, error.remedy)
    except Exception as error:  # the edge at which a library's exceptions are translated
        failure = _translated(error)
        return None, (failure.step, failure.reason, failure.remedy)


def _translated(error: Exception) -> DetourError:
    return DetourError("firewall", f"the firewall helper failed: {type(error).__name__}: {error}")
