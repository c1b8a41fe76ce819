"""Serve the credentials of a credential process: a command that prints AWS credentials as JSON.

The format is that of `credential_process` in the AWS SDKs and Tools Reference Guide. No message repeats the output.
"""

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from imds_detour.errors import error_text
from imds_detour_mock.clouds.credentials import NoCredentialsError
from imds_detour_mock.clouds.documents import timestamp
from imds_detour_mock.values import Json

TIMEOUT = 60.0  # seconds that the command may take, as in the AWS SDK for Go
REFRESH = 900.0  # seconds from a new run to the expiry, as in botocore (its advisory refresh)
RETRY = 30.0  # seconds from a failed run to the next one
LIFETIME = 3600.0  # seconds of credentials without an expiry: SDKs require one from a metadata service

_MAX_LIFETIME = 10**9  # seconds, about 31 years: the year keeps four digits
_POLL = 60.0  # asyncio's clock stops while the machine sleeps: compare the time again after so many seconds


class ProcessError(Exception):
    """The command gave no valid credentials. The text says why, without the command's output."""


@dataclass(slots=True)
class CredentialProcess:
    """Runs the command at the start, before each expiry and on request, never twice at once."""

    command: tuple[str, ...] = field(repr=False)  # the program and its arguments
    environ: Mapping[str, str] = field(repr=False)  # the command's environment
    write_line: Callable[[str], None]  # takes a line for the log
    _members: dict[str, Json] = field(default_factory=dict, repr=False)
    _end: float = 0
    _due: float = 0
    _last_line: str = ""
    _request: asyncio.Event = field(default_factory=asyncio.Event)

    def current(self, now: float) -> dict[str, Json]:
        """Return the credentials' members of a metadata document; `NoCredentialsError` if they have expired."""
        if now >= self._due:
            self._request.set()
        if now >= self._end:
            raise NoCredentialsError
        return self._members

    def rotate(self) -> None:
        """Run the command again, soon."""
        self._due = 0
        self._request.set()

    async def refresh(self) -> None:
        """Run the command, and set the time of the next run. Raises `ProcessError`; then valid credentials stay."""
        self._request.clear()
        self._due = time.time() + TIMEOUT + RETRY  # meanwhile, requests for credentials ask for no other run
        try:
            self._members, self._end = parse(await run(self.command, self.environ), now := time.time())
        except ProcessError:
            self._due = time.time() + RETRY
            raise
        # After half the time that is left, if the command prints the same credentials until they expire.
        self._due = now + max(self._end - now - REFRESH, (self._end - now) / 2, 1)

    async def refresh_forever(self) -> None:
        """Run the command when it is due, and log each change."""
        while True:
            while (wait := self._due - time.time()) > 0 and not self._request.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._request.wait(), min(wait, _POLL))
            try:
                await self.refresh()
                line = f"new credentials until {timestamp(self._end)}"
            except ProcessError as error:
                line = f"{error}; requests for credentials get 503; next try in {RETRY:g} s"
                if time.time() < self._end:
                    line = f"{error}; the previous credentials are valid until {timestamp(self._end)}"
            if line != self._last_line:  # a failure that lasts is one line
                self.write_line(f"credential process: {line}")
            self._last_line = line


async def run(command: tuple[str, ...], environ: Mapping[str, str]) -> bytes:
    """Run the command without a terminal, and return what it prints on stdout; `ProcessError` if it fails."""
    with open(os.memfd_create("stdout"), "rb") as output:  # no pipe, which a daemon of the command could hold open
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=asyncio.subprocess.DEVNULL,
                start_new_session=True,  # its own process group, which a timeout kills
                env={"AWS_EC2_METADATA_DISABLED": "true", **environ},  # it could otherwise read the mock's own answers
            )
        except OSError as error:
            raise ProcessError(f"cannot run {command[0]}: {error_text(error)}") from None
        try:
            async with asyncio.timeout(TIMEOUT):
                status = await process.wait()
        except BaseException as error:  # a stop of the mock too
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            if isinstance(error, TimeoutError):
                raise ProcessError(f"the command did not end within {TIMEOUT:g} s") from None
            raise
        if status:
            how = "exited with status" if status > 0 else "was ended by signal"
            raise ProcessError(f"the command {how} {abs(status)}")
        output.seek(0)
        return output.read()


def parse(output: bytes, now: float) -> tuple[dict[str, Json], float]:
    """Return the members of a metadata document and the expiry; `ProcessError` if they are not valid at `now`."""
    try:
        document = json.loads(output)
    except (ValueError, RecursionError):
        raise ProcessError("the command's output is not JSON") from None
    if not isinstance(document, dict) or document.get("Version") != 1:
        raise ProcessError('the command\'s output has no "Version": 1')
    members: dict[str, Json] = {"Token": ""}  # SDKs require this member; if it is empty, they send no session token
    for name in ("AccessKeyId", "SecretAccessKey", "SessionToken", "AccountId"):
        value = document.get(name)
        if isinstance(value, str) and value:
            members["Token" if name == "SessionToken" else name] = value
        elif value or name in {"AccessKeyId", "SecretAccessKey"}:
            raise ProcessError(f"the command's output has no {name} that is text")
    end = _expiry(document.get("Expiration"), now)
    if end <= now:
        raise ProcessError(f"the command's credentials expired at {timestamp(end)}")
    return {**members, "Expiration": timestamp(end)}, end


def _expiry(text: Json, now: float) -> float:
    if text is None:
        return now + LIFETIME
    with contextlib.suppress(ValueError, OverflowError):
        if isinstance(text, str):
            date = datetime.fromisoformat(text)
            seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
            return min(max(seconds, 0), now + _MAX_LIFETIME)
    raise ProcessError("the command's Expiration is no ISO 8601 time")
