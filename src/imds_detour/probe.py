"""Who answers? The identity of a metadata service, and the proof that the mock is the one at the metadata address."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imds_detour.errors import NotYetError
from imds_detour.exchange import exchange, request

if TYPE_CHECKING:
    from imds_detour.endpoints import Endpoint
    from imds_detour.exchange import Reply
    from imds_detour.waiting import Deadline

TOKEN_PATH = "/latest/api/token"  # noqa: S105  (a path of the EC2 user guide, "Use IMDSv2", not a secret)
TOKEN_TTL = "60"  # noqa: S105  (seconds, as the header wants them)


@dataclass(frozen=True, slots=True)
class Question:
    """What to ask a metadata service.

    Attributes:
        host: the Host header, as an SDK would send it: the metadata address. Some mocks choose by it.
        path: what to GET.
        word: whether the answer must be one printable word, as an instance id is; a catch-all web page is not.

    """

    host: str
    path: str
    word: bool


@dataclass(frozen=True, slots=True)
class Identity:
    """Who answered, as far as a client can tell; two that are equal are taken for the same service.

    Attributes:
        version: ``IMDSv2`` when a session token was given, else ``IMDSv1``.
        body: the answer's body.

    """

    version: str
    body: bytes

    def __str__(self) -> str:
        text = self.body.decode("utf-8", "replace").strip()
        return f"{self.version} {text[:64] if text[:64].isprintable() else repr(text[:64])}"


def identify(at: Endpoint, question: Question, deadline: Deadline) -> Identity:
    """Ask a metadata service who it is: a token first, as SDKs do, and without one where it has none.

    Raises:
        NotYetError: when nobody answers properly; its reason starts with a verb's subject, "it ...".

    """
    token_headers = {"Host": question.host, "X-aws-ec2-metadata-token-ttl-seconds": TOKEN_TTL}
    token = exchange(at, request("PUT", TOKEN_PATH, token_headers), deadline)
    headers = {"Host": question.host}
    if token.status == 200 and re.fullmatch(rb"[!-~]{1,4096}", token.body.strip()):
        headers["X-aws-ec2-metadata-token"] = token.body.strip().decode("ascii")
    reply = exchange(at, request("GET", question.path, headers), deadline)
    if reply.status != 200:
        raise NotYetError("probe", f"it answers {_status(reply)} to GET {question.path}")
    if not reply.body.strip():
        raise NotYetError("probe", f"it answers GET {question.path} with nothing")
    if question.word and not re.fullmatch(rb"[!-;=-~]{1,256}", reply.body.strip()):  # all but the blank and "<"
        raise NotYetError("probe", f"it answers GET {question.path} with {reply.body[:40]!r}, which is no instance id")
    return Identity("IMDSv2" if len(headers) > 1 else "IMDSv1", reply.body)


def _status(reply: Reply) -> str:
    return f"{reply.status} (to {reply.location[:80]!r})" if reply.location else str(reply.status)
