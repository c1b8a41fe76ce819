"""The one error root: whatever stops the detour reaches the user as one line of three parts."""

STATUS_WRAPPER_FAILED = 125
"""Exit status of a failed wrapper, as docker run(1) and env(1) have it."""
STATUS_CANNOT_EXECUTE = 126
"""Exit status for a command that is there and cannot be executed (POSIX sh)."""
STATUS_NOT_FOUND = 127
"""Exit status for a command that is not there (POSIX sh)."""


class DetourError(Exception):
    """A step failed, and the app must not start.

    Attributes:
        step: the step in a word, which MOCK_LOG=json hands on: ``settings``, ``command``, ``namespace``, ``firewall``,
            ``lock``, ``lookup``, ``route``, ``hosts``, ``probe``, ``privileges``, ``user``; ``system`` and ``internal``
            for what is no step's; ``sidecar``, ``mock``, ``demo``, ``output`` in the operator's tool.
        reason: what failed and what was seen.
        remedy: what the user can do about it; may be empty where the reason says it.
        status: the exit status of the wrapper.

    """

    def __init__(self, step: str, reason: str, remedy: str = "", *, status: int = STATUS_WRAPPER_FAILED) -> None:
        super().__init__(reason)
        self.step = step
        self.reason = reason
        self.remedy = remedy
        self.status = status


def words(error: OSError) -> str:
    """Return what the system says of a failure, to stand within a sentence."""
    return (error.strerror or str(error)).lower()


class NotYetError(DetourError):
    """An attempt failed in a way that time may heal; the caller tries again until its deadline."""
