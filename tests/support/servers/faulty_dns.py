"""A DNS server with planned faults: ``python tests/support/servers/faulty_dns.py ADDRESS STEP...``.

The steps are taken in turn, one for each question of type A; the last one stays. A step is

    NAME=ADDRESS[,ADDRESS...]   answer with these, NXDOMAIN for other names; a ZONE is one or more of these with +
    NXDOMAIN | SERVFAIL | REFUSED
    silent                      no reply
    empty                       the name is there, no address
    cname:NAME=ADDRESS[,...]    an alias chain of three that ends in these addresses
    dangling                    an alias without an address
    loop                        an alias of itself, through another
    half:ZONE                   answer questions of type A, silent for others: libc then waits for five seconds
    truncated:NAME=ADDRESS      truncated over UDP, whole over TCP
    truncated                   truncated over UDP, hung up over TCP
    garbage                     16 bytes that are not a DNS message
    file:PATH                   take the step from a file at each question; SERVFAIL without the file
    hex:BYTES/BYTES             the question's id and then these bytes, over UDP and over TCP
    wrong-id:NAME=ADDRESS       an answer to another question's id
    wrong-question:NAME=ADDRESS an answer to a question for another name
    late:ZONE                   the right answer after LATE seconds; too-late: after TOO_LATE
    flip:NAME=ADDRESS,ADDRESS   one of these addresses, another one at each question
    trailing:NAME=ADDRESS       truncated over UDP; over TCP the right answer, then garbage
    overstated:NAME=ADDRESS     truncated over UDP; over TCP the right answer with a larger length
    padded:NAME=ADDRESS         the right answer, padded with zeros to the largest datagram
    huge:NAME=ADDRESS           an answer of 64 KiB, the maximum: truncated over UDP, whole over TCP

and ``STEP*N`` takes a step N times; ``STEP@S`` stays with it until S seconds after the first question.
"""

from __future__ import annotations

import struct
import sys
import time
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

import dns.flags
import dns.message
import dns.name
import dns.rdatatype
import dns.rrset

from imds_detour.ctl.lab.nameserver import addresses, refusal, serve

if TYPE_CHECKING:
    from collections.abc import Callable


LATE, TOO_LATE = 0.3, 1.0
"""Seconds below and above imds-detour's timeout for a server."""
PREFIXES = (
    *("file:", "cname:", "truncated:", "wrong-id:", "half:", "wrong-question:", "late:", "too-late:", "flip:"),
    *("huge:", "hex:", "trailing:", "overstated:", "padded:"),
)
MAX_DATAGRAM = 65_507


class Misstated(bytes):
    """A reply with a wrong length over TCP."""

    said: int

    def __len__(self) -> int:
        return self.said


class Plan:
    """The steps and their progress."""

    def __init__(self, steps: list[str]) -> None:
        self._steps: list[tuple[str, int, float]] = []
        for step in steps:
            body, _, count = step.partition("*")
            body, _, seconds = body.partition("@")
            self._steps.append((body, int(count or 1), float(seconds or 0)))
        self._asked = 0
        self._since = 0.0

    def answer(self, question: dns.message.QueryMessage, transport: str) -> bytes | None:
        """Take the plan's next step; questions for types other than A, and over TCP, repeat the last one."""
        now = time.monotonic()
        self._since = self._since or now
        asked = question.question[0]
        sys.stdout.write(f"{transport} {dns.rdatatype.to_text(asked.rdtype)} {asked.name}\n")
        sys.stdout.flush()
        if transport == "udp" and asked.rdtype == dns.rdatatype.A:
            self._asked += 1
        return _reply(self._step(now), question, transport, self._asked)

    def _step(self, now: float) -> str:
        before = 0
        for body, count, seconds in self._steps:
            before += count
            if now - self._since < seconds or (not seconds and self._asked <= before):
                return body
        return self._steps[-1][0]


def _reply(step: str, question: dns.message.QueryMessage, transport: str, asked: int) -> bytes | None:
    prefixed = step.startswith(PREFIXES)
    kind, _, zone = step.partition(":") if prefixed else (step, "", "")
    plain: dict[str, Callable[[], bytes | None]] = {
        "silent": lambda: None,
        "garbage": lambda: b"\xff" * 16,
        "empty": lambda: dns.message.make_response(question).to_wire(),
        "dangling": lambda: _chain("nowhere=", question),
        "loop": lambda: _loop(question),
        "cname": lambda: _chain(zone, question),
        "wrong-question": lambda: _astray(zone, question),
        "flip": lambda: _flipped(zone, question, asked),
        "huge": lambda: _huge(zone, question, transport),
        "late": lambda: _late(LATE, zone, question),
        "too-late": lambda: _late(TOO_LATE, zone, question),
        "trailing": lambda: _misstated(zone, question, transport, 0),
        "overstated": lambda: _misstated(zone, question, transport, 100),
        "padded": lambda: _known(zone, question).ljust(MAX_DATAGRAM, b"\0"),
        "file": lambda: _filed(zone, question, transport, asked),
        "hex": lambda: _raw(zone, question, transport),
        # questions of type A alone
        "half": lambda: _known(zone, question) if question.question[0].rdtype == dns.rdatatype.A else None,
    }
    if kind in plain:
        return plain[kind]()
    match kind:
        case "NXDOMAIN" | "SERVFAIL" | "REFUSED":
            return refusal(question, kind)
        case "truncated" if transport == "udp":
            return _truncated(question)
        case "truncated":
            return _known(zone, question) if zone else None
        case "wrong-id":
            known = _known(zone, question)
            return bytes([known[0] ^ 0xFF]) + known[1:]
        case _:
            return _known(step, question)


def _known(zone: str, question: dns.message.QueryMessage) -> bytes:
    reply = b""
    for entry in zone.split("+"):
        name, _, known = entry.partition("=")
        reply = addresses(question, name, known.split(","))
        if question.question[0].name == dns.name.from_text(name):
            break
    return reply


def _misstated(zone: str, question: dns.message.QueryMessage, transport: str, more: int) -> bytes:
    if transport == "udp":
        return _truncated(question)
    known = _known(zone, question)
    reply = Misstated(known + b"\xff" * 40)
    reply.said = len(known) + more
    return reply


def _truncated(question: dns.message.QueryMessage) -> bytes:
    reply = dns.message.make_response(question)
    reply.flags |= dns.flags.TC
    return reply.to_wire()


def _late(seconds: float, zone: str, question: dns.message.QueryMessage) -> bytes:
    time.sleep(seconds)
    return _known(zone, question)


def _astray(zone: str, question: dns.message.QueryMessage) -> bytes:
    other = dns.message.make_query(f"not-{question.question[0].name}", question.question[0].rdtype)
    other.id = question.id
    return addresses(other, f"not-{question.question[0].name}", zone.partition("=")[2].split(","))


def _flipped(zone: str, question: dns.message.QueryMessage, asked: int) -> bytes:
    name, _, known = zone.partition("=")
    turns = known.split(",")
    return addresses(question, name, [turns[asked % len(turns)]])


def _huge(zone: str, question: dns.message.QueryMessage, transport: str) -> bytes:
    whole = _thousands(zone, question.question[0].to_text())
    return _truncated(question) if transport == "udp" else struct.pack("!H", question.id) + whole[2:]


@cache
def _thousands(zone: str, asked: str) -> bytes:
    """Build it once, since it is slow."""
    name, _, known = zone.partition("=")
    others = [f"198.18.{number // 250}.{number % 250 + 1}" for number in range(4000)]  # RFC 2544
    host, _, kind = asked.split()
    return addresses(dns.message.make_query(host, kind), name, [known, *others])


def _filed(path: str, question: dns.message.QueryMessage, transport: str, asked: int) -> bytes | None:
    try:
        with open(path) as file:
            return _reply(file.read().strip(), question, transport, asked)
    except OSError:
        return refusal(question, "SERVFAIL")


def _raw(written: str, question: dns.message.QueryMessage, transport: str) -> bytes:
    datagram, _, stream = written.partition("/")
    return struct.pack("!H", question.id) + bytes.fromhex(datagram if transport == "udp" else stream)


def _loop(question: dns.message.QueryMessage) -> bytes:
    reply = dns.message.make_response(question)
    asked = question.question[0].name.to_text()
    for alias, target in ((asked, "one.test."), ("one.test.", asked)):
        reply.answer.append(dns.rrset.from_text(alias, 1, "IN", "CNAME", target))
    return reply.to_wire()


def _chain(zone: str, question: dns.message.QueryMessage) -> bytes:
    _, _, known = zone.partition("=")
    reply = dns.message.make_response(question)
    asked = question.question[0]
    names = [asked.name.to_text(), "one.test.", "two.test.", "three.test."]
    for alias, target in pairwise(names):
        reply.answer.append(dns.rrset.from_text(alias, 1, "IN", "CNAME", target))
    kind = dns.rdatatype.to_text(asked.rdtype)
    records = [address for address in filter(None, known.split(",")) if kind == ("AAAA" if ":" in address else "A")]
    if records:
        reply.answer.append(dns.rrset.from_text(names[-1], 1, "IN", kind, *records))
    return reply.to_wire()


if __name__ == "__main__":
    serve(sys.argv[1], Plan(sys.argv[2:]).answer)
