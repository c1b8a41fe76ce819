"""Ask a metadata service for its identity."""

from __future__ import annotations

from imds_detour.discovery.http import AbsentError, Reply, UnreachableError, exchange, request
from imds_detour.errors import NotYetError
from imds_detour.text import DIGITS, HEX_DIGITS, VISIBLE, is_made_of
from imds_detour.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from imds_detour.config.presets import Proof, Token
    from imds_detour.deadline import Deadline
    from imds_detour.endpoint import Endpoint

REQUEST_TIMEOUT = 2.0
"""Seconds for one request, unless the caller says otherwise."""
UUID = HEX_DIGITS | {"-", "_"}
"""What UUIDs are made of, and IBM's ids, which have a number in front of one."""
NOT_IMPLEMENTED = 501
"""The status of a server that does not know PUT (RFC 9110 section 15.6.2), as Python's http.server."""
PREFIXES = ("i-", "ocid1.instance.", "credentials arn:")
"""How ids begin in EC2, Alibaba and Oracle, and roles in ECS and EKS. All other ids are numbers or UUIDs."""


class Question(Value):
    """A question to a metadata service."""

    service: str  # the preset's name
    host: str  # the Host header, the metadata address as SDKs send it. Some mocks decide by it
    proof: Proof  # the requests, and the form of an answer

    def only(self, path: str) -> Question:
        """Return the question for one of the paths."""
        return self.replace(proof=self.proof.replace(paths=(path,)))

    def bare(self, path: str) -> Question:
        """Return the question for a path without a token, which any answer below 500 satisfies."""
        return self.replace(proof=self.proof.replace(paths=(path,), token=None, accept="any"))


class ServerError(NotYetError):
    """A path is answered with a status of 500 or more."""

    path = ""


class Identity(Value):
    """A service's answer. It prints nothing that may be a secret: an instance's id, or its status, path and size."""

    version: str  # for AWS, ``IMDSv2`` if it gave a session token, else ``IMDSv1``; for others the preset's name
    path: str  # the path that was asked
    status: int  # the reply's HTTP status
    body: bytes  # the reply's body, or the part of it that is compared
    doubt: str = ""  # why this is no certain answer of a metadata service, a clause with the subject "it"

    def is_like(self, other: Identity) -> bool:
        """Whether both answers are the same, and thus taken for those of one service."""
        return (self.status, self.body) == (other.status, other.body)

    def __str__(self) -> str:
        text = self.body.decode("utf-8", "replace").strip()
        is_id = text.startswith(PREFIXES) and is_made_of(VISIBLE, text.removeprefix("credentials "), 200)
        is_number = is_made_of(DIGITS, text, 24) or (text.count("-") == 4 and is_made_of(UUID, text, 50))
        if not self.doubt and (is_id or is_number or text == "credentials"):
            return f"{self.version} {text[:64]}"
        return f"{self.version} ({self.status} to GET {shown(self.path)}, {len(self.body)} bytes)"


def shown(path: str) -> str:
    """Return a path for messages: without its query, which may contain a secret."""
    path, mark, _ = path.partition("?")
    return f"{path}?..." if mark else path


def identify(
    at: Endpoint,
    question: Question,
    deadline: Deadline,
    trace: Callable[[str], None] = lambda _line: None,
    limit: float = REQUEST_TIMEOUT,
) -> Identity:
    """Ask a metadata service for its identity: with a token if SDKs use one, without if it gives none.

    The first path with a 200 decides. Without any, another stable answer below 500 is the identity, if the proof
    accepts that. ``limit`` is the seconds for each request. ``trace`` receives each request and the status of its
    reply, never its content. Raises NotYetError when there is no valid answer; the reason is a clause with the subject
    "it".
    """
    return Client(at, deadline, trace, limit).identify(question)


class Client:
    """Asks a server one question after another, and counts them."""

    def __init__(
        self, at: Endpoint, deadline: Deadline, trace: Callable[[str], None], limit: float = REQUEST_TIMEOUT
    ) -> None:
        self._at = at
        self._deadline, self._limit = deadline, limit
        self._trace = trace
        self._asked = 0
        self.own: Endpoint | None = None  # this side of the latest connection

    def identify(self, question: Question) -> Identity:
        """Do what the function of this name does."""
        try:
            return self._identify(question)
        except NotYetError as error:
            error.questions = self._asked
            raise

    def _identify(self, question: Question) -> Identity:
        proof = question.proof
        headers, token = {"Host": question.host, **dict(proof.headers)}, ""
        failure: NotYetError | None = None
        other: Identity | None = None
        if proof.token:
            token, failure = self._token(proof.token, question.host)
            if token:
                headers[proof.token.give] = proof.token.prefix + token
        version = question.service
        if version == "aws":
            version = "IMDSv2" if token else "IMDSv1"
        for path in proof.paths:
            reply = self._ask("GET", path, headers)
            body = _compared(proof, reply.body)
            identity = Identity(version, path, reply.status, body, _doubt(proof, path, reply))
            if not identity.doubt:
                return identity
            if reply.status >= 500 and not isinstance(failure, ServerError):
                failure = ServerError("probe", identity.doubt)
                failure.path = path
            other = other or identity
        assert other is not None  # noqa: S101  (a proof has a path at least)
        if failure or proof.accept == "200":
            raise failure or NotYetError("probe", other.doubt)
        return other

    def _token(self, token: Token, host: str) -> tuple[str, NotYetError | None]:
        """Return a session token, empty without one, and a failure that may pass."""
        try:
            reply = self._ask("PUT", token.path, {"Host": host, token.ask[0]: token.ask[1]})
        except (AbsentError, UnreachableError):
            raise
        except NotYetError as error:  # SDKs go on without a token then
            return "", type(error)("probe", f"PUT {token.path}: {error.reason}")
        text = _token(token, reply)
        if text or reply.status < 500 or reply.status == NOT_IMPLEMENTED:
            return text, None
        return "", NotYetError("probe", f"it answers {reply.status} to PUT {token.path}")

    def _ask(self, method: str, path: str, headers: Mapping[str, str]) -> Reply:
        self._asked += 1
        reply = exchange(self._at, request(method, path, headers), self._deadline, self._limit)
        answer = f"{reply.status}, {len(reply.body)} bytes"
        self._trace(f"{method} {shown(path)} at {self._at} (Host: {headers['Host']}): {answer}")
        self.own = reply.client
        return reply


def _token(token: Token, reply: Reply) -> str:
    text = reply.body.strip()
    if token.member:
        text = _bytes(_member(text, token.member) or "")
    return text.decode("ascii") if reply.status == 200 and is_made_of(VISIBLE, text, 4096) else ""


def _doubt(proof: Proof, path: str, reply: Reply) -> str:
    """Return why a reply is no answer of a metadata service; empty if it is one."""
    if proof.accept == "any" and reply.status < 500:
        return ""
    if reply.status != 200:
        location = shown(reply.headers.get("location", ""))[:80]
        status = f"{reply.status} (to {location!r})" if location else str(reply.status)
        return f"it answers {status} to GET {shown(path)}"
    if not reply.body.strip():
        return f"it answers GET {shown(path)} with nothing"
    if proof.accept == "preset" and reply.body.lstrip()[:1] == b"<":
        return f"it answers GET {shown(path)} with a web page"
    if proof.flavor and reply.headers.get(proof.flavor[0].lower()) != proof.flavor[1]:
        return f"its answer to GET {shown(path)} lacks the header {': '.join(proof.flavor)}, which SDKs require"
    return ""


def _compared(proof: Proof, body: bytes) -> bytes:
    """Return the part of a body that is compared: an id, or for credentials their role, because keys are renewed."""
    if body.lstrip()[:1] == b"{":
        if proof.member and (value := _member(body, proof.member)):
            return _bytes(value)
        if _member(body, "AccessKeyId"):
            return _bytes(f"credentials {_member(body, 'RoleArn') or ''}".strip())
    return body


def _member(body: bytes, path: str) -> object:
    """Return a member of a JSON document, or None if there is no such member or document."""
    import json  # noqa: PLC0415  (costly to import; presets without JSON do without)

    try:
        value: object = json.loads(body)
    except (ValueError, RecursionError):
        return None
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, str | int) else None


def _bytes(value: object) -> bytes:
    """Return a member as bytes. JSON may contain half a surrogate pair, which UTF-8 cannot encode."""
    return str(value).encode("utf-8", "backslashreplace")
