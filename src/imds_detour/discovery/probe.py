"""Ask a metadata service for its identity."""

from __future__ import annotations

from imds_detour.discovery.http import Reply, exchange, request
from imds_detour.errors import NotYetError
from imds_detour.text import VISIBLE, is_made_of
from imds_detour.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from imds_detour.config.presets import Proof, Token
    from imds_detour.deadline import Deadline
    from imds_detour.endpoint import Endpoint


class Question(Value):
    """A question to a metadata service."""

    service: str  # the preset's name
    host: str  # the Host header, the metadata address as SDKs send it. Some mocks decide by it
    proof: Proof  # the request, and the form of its answer


class Identity(Value):
    """A service's answer; equal answers are taken for the same service."""

    version: str  # for AWS, ``IMDSv2`` if it gave a session token, else ``IMDSv1``; for others the preset's name
    body: bytes  # the answer's body, or the part of it that is compared

    def __str__(self) -> str:
        text = self.body.decode("utf-8", "replace").strip()
        return f"{self.version} {text[:64] if text[:64].isprintable() else repr(text[:64])}"


def identify(
    at: Endpoint, question: Question, deadline: Deadline, trace: Callable[[str], None] = lambda _line: None
) -> Identity:
    """Ask a metadata service for its identity: with a token if SDKs use one, without if it gives none.

    ``trace`` receives each request and the status of its reply, never its content. Raises NotYetError when there is no
    valid answer; the reason is a clause with the subject "it".
    """
    proof = question.proof

    def ask(method: str, path: str, headers: dict[str, str]) -> Reply:
        reply = exchange(at, request(method, path, {"Host": question.host, **headers}), deadline)
        trace(f"{method} {path} at {at} (Host: {question.host}): {reply.status}, {len(reply.body)} bytes")
        return reply

    headers = dict(proof.headers)
    if proof.token and (value := _token(proof.token, ask("PUT", proof.token.path, dict([proof.token.ask])))):
        headers[proof.token.give] = proof.token.prefix + value
    reply = ask("GET", proof.path, headers)
    version = question.service
    if question.service == "aws":
        version = "IMDSv2" if len(headers) > len(proof.headers) else "IMDSv1"
    return Identity(version, _proven(proof, reply))


def _token(token: Token, reply: Reply) -> str:
    text = reply.body.strip()
    if token.member:
        text = _bytes(_member(text, token.member) or "")
    return text.decode("ascii") if reply.status == 200 and is_made_of(VISIBLE, text, 4096) else ""


def _proven(proof: Proof, reply: Reply) -> bytes:
    """Return the part of a reply that is compared; NotYetError if it is not the answer that the proof requires."""
    if proof.answer == "reply" and reply.status < 500:
        return b"%d %s" % (reply.status, reply.body)
    if reply.status != 200:
        location = reply.headers.get("location", "")
        status = f"{reply.status} (to {location[:80]!r})" if location else str(reply.status)
        raise NotYetError("probe", f"it answers {status} to GET {proof.path}")
    if not reply.body.strip():
        raise NotYetError("probe", f"it answers GET {proof.path} with nothing")
    if proof.answer == "word" and not is_made_of(VISIBLE - {"<"}, reply.body.strip(), 256):
        raise NotYetError("probe", f"it answers GET {proof.path} with {reply.body[:40]!r}, which is no instance id")
    if proof.flavor and reply.headers.get(proof.flavor[0].lower()) != proof.flavor[1]:
        raise NotYetError("probe", f"its answer to GET {proof.path} lacks the header {': '.join(proof.flavor)}")
    if proof.member and (value := _member(reply.body, proof.member)):
        return _bytes(value)
    if proof.answer == "credentials":
        if not _member(reply.body, "AccessKeyId"):  # no message shows the body: it may contain keys
            raise NotYetError("probe", f"it answers GET {proof.path} with no AccessKeyId")
        return _bytes(f"credentials {_member(reply.body, 'RoleArn') or ''}".strip())
    return reply.body


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
