"""A forked child that holds the firewall library, so that neither its exit() nor its stdout tricks can reach us.

libxtables may end its process, its read-back borrows file descriptor 1, and one process can build the rules of one
address family only. A child has all that to itself, and it loads while the parent loads the rest of us.

Imports next to nothing: the sooner there is a child, the sooner python-iptables has loaded (helpers.py).
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress  # our lock and our parent's way through need it too

from imds_detour.errors import DetourError, words
from imds_detour.lean import pickle, signal, socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

TIMEOUT = 60.0
"""Seconds that one call may take, where the deadline leaves as much. A commit takes about 1 ms, waiting for another
writer's lock some seconds; where a hundred containers start at once, the first call waits for a library that loads on
a hundredth of a processor."""
GRACE = 0.15
"""Seconds for a call beyond what the deadline leaves: what has been put in is taken out again even then, and the child
can say itself that it has waited in vain for somebody's lock. A commit takes 1 ms."""
MAX_MESSAGE = 131_072
"""Bytes. A list of our rules is some hundreds; 128 KiB fit in the default socket buffer (net.core.wmem_default)."""
EARLY_END = "look for what ended it (memory limit? a library's complaint?) and start again"
"""What to do when the child is gone."""
BUSY = "is the machine short of processor time? MOCK_TIMEOUT is how long to wait, MOCK_BACKEND=nft needs no helper"
"""What to do when the child does not answer."""
NO_HELPER = "cannot start the firewall helper"
MORE = "raise the limit (`pids_limit`, `ulimits`, memory), or MOCK_BACKEND=nft, which needs no helper"
"""What to do when there can be no child."""


class HelperLostError(DetourError):
    """The child is gone for good; another one is needed to go on."""


def _without_end() -> float:
    return float("inf")


class Child:
    """A process that answers calls of named functions, one at a time.

    Attributes:
        left: says how many seconds are left before the deadline of the whole start: a child that hangs does not hold
            it for longer. Without end, until somebody sets it.

    """

    def __init__(self, load: Callable[[], dict[str, Callable[..., object]]]) -> None:
        """Fork; the child runs ``load`` for its functions and then waits for calls.

        Raises:
            DetourError: when the kernel has no process or no descriptor to give.

        """
        self.left: Callable[[], float] = _without_end
        self._lost: HelperLostError | None = None
        undo: list[Callable[[], None]] = []
        try:
            self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            undo += (self._socket.close, theirs.close)
            # What the libraries have to say goes to a file without a name, read only when the child dies.
            self._words = os.memfd_create("imds-detour-firewall")
            undo.append(lambda: os.close(self._words))
            self._pid = os.fork()
        except OSError as error:
            for each in undo:
                each()
            raise DetourError("firewall", f"{NO_HELPER}: {words(error)}", MORE) from None
        if self._pid == 0:
            self._socket.close()  # with a copy of the parent's end, the child would never see the end of its input
            _serve(theirs, self._words, load)
        theirs.close()

    def call(self, function: str, *arguments: object) -> Any:  # noqa: ANN401  (whatever the named function returns)
        """Call a function in the child and return what it returns.

        Raises:
            DetourError: the function's own.
            HelperLostError: one that says how the child ended, now and at each later call.

        """
        if self._lost is not None:
            raise self._lost
        timeout = min(TIMEOUT, self.left()) + GRACE
        try:
            self._socket.settimeout(timeout)
            self._socket.sendall(pickle.dumps((function, arguments)))
            answer = self._socket.recv(MAX_MESSAGE)
        except TimeoutError:
            raise self._give_up(f"did not answer within {timeout:.3g} s", BUSY) from None
        except (BrokenPipeError, ConnectionResetError):
            answer = b""
        except OSError as error:
            raise self._give_up(f"cannot be asked: {error.strerror or error}", EARLY_END) from None
        if not answer:
            raise self._give_up(f"ended early{self._last_words()}", EARLY_END)
        # Safe to unpickle: the other end is our own fork, on a socket that nobody else holds.
        outcome, refusal = pickle.loads(answer)
        if refusal is not None:
            raise DetourError(*refusal)
        return outcome

    def close(self) -> None:
        """End the child and reap it; one that hangs is killed."""
        ends = True
        try:
            self._socket.settimeout(GRACE)
            self._socket.shutdown(socket.SHUT_WR)  # closing is not enough: a child forked later has a copy
            while self._socket.recv(MAX_MESSAGE):
                pass  # until its end of the socket is gone, and so is it
        except OSError:  # it hangs, or is gone already, or cannot be told: it is waited for, so it must end
            ends = self._kill()
        # Whatever close(2) says, the descriptors are gone. Nothing here may fail a start whose rules stand.
        with suppress(OSError):
            self._socket.close()
        if ends:
            self._reap()
        with suppress(OSError):
            os.close(self._words)

    def kill(self) -> None:
        """End and reap the child, whatever it is doing: nothing will be asked of it any more."""
        if self._kill():
            self._reap()

    def _kill(self) -> bool:
        """Kill the child, and say whether it ends; where we may not (a seccomp filter), it ends with its input."""
        try:
            os.kill(self._pid, signal.SIGKILL)
        except ProcessLookupError:  # SIGCHLD is ignored by inheritance, and the kernel has reaped it
            return True
        except OSError:
            return False
        return True

    def _reap(self) -> None:
        try:
            os.waitpid(self._pid, 0)
        except OSError:  # SIGCHLD is ignored by inheritance, and the kernel has reaped it; or one may not wait
            return

    def _give_up(self, why: str, remedy: str) -> HelperLostError:
        """Kill the child and return what is to be raised, now and at each later call.

        An answer that is still on its way would pass for the next call's, and a child that hangs never be reaped.
        """
        self._kill()
        self._lost = HelperLostError("firewall", f"the firewall helper {why}", remedy)
        return self._lost

    def _last_words(self) -> str:
        words: list[str] = []
        with suppress(OSError):
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
        while message := calls.recv(MAX_MESSAGE):
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
