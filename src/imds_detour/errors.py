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
        step: the step in a word: ``settings``, ``command``, ``lookup``, ``firewall``, ``route``, ``probe``,
            ``privileges``, ``user``, ``system``.
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


class NotYetError(DetourError):
    """An attempt failed in a way that time may heal; the caller tries again until its deadline."""
