"""The error root: every failure reaches the user as one line of a reason and a remedy."""

STATUS_WRAPPER_FAILED = 125
"""Exit status of a failed wrapper, as of docker run(1) and env(1)."""
STATUS_CANNOT_EXECUTE = 126
"""Exit status for a command that cannot be executed (POSIX sh)."""
STATUS_NOT_FOUND = 127
"""Exit status for a command that is not found (POSIX sh)."""


class DetourError(Exception):
    """A step failed, and the app must not start.

    Attributes:
        step: the step in one word, a key of MOCK_LOG=json: ``settings``, ``command``, ``namespace``, ``firewall``,
            ``lock``, ``lookup``, ``route``, ``hosts``, ``probe``, ``privileges``, ``user``; ``system`` and ``internal``
            outside of all steps; ``sidecar``, ``mock``, ``demo``, ``copy``, ``output`` in imds-detourctl.
        reason: what failed and what was seen.
        remedy: what the user can do; may be empty if the reason says it.
        status: the exit status of the wrapper.

    """

    def __init__(self, step: str, reason: str, remedy: str = "", *, status: int = STATUS_WRAPPER_FAILED) -> None:
        super().__init__(reason)
        self.step = step
        self.reason = reason
        self.remedy = remedy
        self.status = status


def error_text(error: OSError) -> str:
    """Return the system's text for an error, for use within a sentence."""
    return (error.strerror or str(error)).lower()


class NotInKernelError(DetourError):
    """The kernel lacks a firewall altogether, so that no rules can be in it."""


class NotYetError(DetourError):
    """An attempt failed, and a later one may succeed; the caller tries again until its deadline."""

    questions = 1
    """How many questions the attempt has cost the server, which decides the pause before the next (deadline.py)."""


class NoAddressError(NotYetError):
    """A DNS server's answer is that the name has no address."""
