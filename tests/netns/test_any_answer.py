"""Whatever a DNS server sends, over UDP and TCP: addresses or an error of ours, in time, and in little memory."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from typing import TYPE_CHECKING, NamedTuple

import dns.flags
import dns.message
import dns.rrset
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support import SUPPORT
from tests.support.hosts.cloud import LONG, Program
from tests.support.hosts.network import NAME, Network

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MEGABYTE = 1 << 20
LIMIT = 2.0
"""Seconds that each question may take."""
SLACK = 3.0
"""Seconds more, for a machine that is busy; libc's own limits are beyond that."""
HERE_IT_IS = dns.message.make_query(NAME, "A")


def _answer(*records: str, flags: int = 0) -> bytes:
    """Return what follows the id in an answer."""
    reply = dns.message.make_response(HERE_IT_IS)
    reply.flags |= flags
    for record in records:
        reply.answer.append(dns.rrset.from_text(f"{NAME}.", 1, "IN", *record.split()))
    return reply.to_wire()[2:]


GOOD = _answer("A 10.88.0.3")
ALIASES = dns.message.make_response(HERE_IT_IS)
ALIASES.answer += [
    dns.rrset.from_text(f"{NAME}.", 1, "IN", "CNAME", "one.test."),
    dns.rrset.from_text("one.test.", 1, "IN", "A", "10.88.0.3"),
]
TRUNCATED = _answer(flags=dns.flags.TC)
SEEDS = (GOOD, ALIASES.to_wire()[2:], _answer("AAAA fd00::3"), _answer("TXT text", "A 10.88.0.3"), TRUNCATED, _answer())


def _changed(seed: bytes, edits: list[tuple[int, bytes]], end: int) -> bytes:
    """Write bytes over others here and there, and cut the end off."""
    wire = bytearray(seed)
    for at, text in edits:
        wire[at % len(wire) : at % len(wire) + len(text)] = text
    return bytes(wire[: len(wire) - end % len(wire)])


ANSWERS = st.one_of(
    st.binary(max_size=600),
    st.binary(max_size=600).map(lambda data: GOOD[:10] + data),  # behind a header that fits
    st.builds(
        _changed,
        st.sampled_from(SEEDS),
        st.lists(st.tuples(st.integers(0, 99), st.binary(min_size=1, max_size=3)), max_size=5),
        st.integers(0, 99) | st.just(0),
    ),
)


class Asked(NamedTuple):
    """A program that asks, and the file with the step that the server takes."""

    program: Program
    step: Path


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    """Give them, in a network of their own."""
    step = tmp_path_factory.mktemp("dns") / "step"
    with Network() as network:
        server = network.start_dns(f"file:{step}")
        assert server.stdout is not None
        with (
            subprocess.Popen(["cat"], stdin=server.stdout, stdout=subprocess.DEVNULL),  # what it logs
            network.app.popen(
                sys.executable, f"{SUPPORT}/clients/ask_dns.py", NAME, stdin=subprocess.PIPE, stdout=subprocess.PIPE
            ) as process,
        ):
            try:
                yield Asked(Program(process), step)
            finally:
                process.kill()
                server.kill()


def ask(asked: Asked, datagram: bytes, stream: bytes) -> dict[str, object]:
    """Let the server answer so, and return what came of a question."""
    written = asked.step.with_suffix(".new")
    written.write_text(f"hex:{datagram.hex()}/{stream.hex()}")
    os.replace(written, asked.step)
    found: dict[str, object] = asked.program.ask(str(LIMIT))
    return found


def fine(found: dict[str, object]) -> bool:
    """Whether it is an answer or an error of ours, in time, and in less than a megabyte."""
    assert isinstance(found["seconds"], float)
    assert isinstance(found["peak"], int)
    return "fault" not in found and found["seconds"] < LIMIT + SLACK and found["peak"] < MEGABYTE


@pytest.mark.slow
@settings(max_examples=250 if LONG else 25)
@given(answer=ANSWERS)
@example(answer=b"")
@example(answer=GOOD[:10] + b"\xc0\x0c" * 300)
def test_any_datagram_is_an_answer_or_an_error(asked: Asked, answer: bytes) -> None:
    """Over UDP; what it leads to over TCP is a proper answer."""
    assert fine(found := ask(asked, answer, GOOD)), found


@settings(max_examples=250 if LONG else 25)
@given(answer=ANSWERS)
@example(answer=b"")
def test_any_stream_is_an_answer_or_an_error(asked: Asked, answer: bytes) -> None:
    """Over TCP, where a truncated answer over UDP leads to."""
    assert fine(found := ask(asked, TRUNCATED, answer)), found


@pytest.mark.slow
def test_what_is_proper_among_them_is_taken(asked: Asked) -> None:
    """Control: both ways lead to the address, and half an answer does not."""
    for datagram, stream in ((GOOD, b""), (ALIASES.to_wire()[2:], b""), (TRUNCATED, GOOD)):
        assert ask(asked, datagram, stream)["addresses"] == ["10.88.0.3"]
    assert "error" in ask(asked, GOOD[:20], GOOD[:20])


FLAGS, QUESTION, SAME_NAME = GOOD[:2], HERE_IT_IS.to_wire()[12:], b"\xc0\x0c"
LARGEST = {
    "addresses": [struct.pack("!HHIHI", 1, 1, 1, 4, number) for number in range(4000)],
    "types": [struct.pack("!HHIH", 1000 + number, 1, 1, 0) for number in range(5400)],
}
"""Records, less their names, as many as 64 KiB hold: all in one set, and each a set of its own."""


@pytest.mark.slow
@pytest.mark.parametrize("records", LARGEST.values(), ids=list(LARGEST))
def test_the_largest_answers_cost_some_megabytes_for_a_moment(asked: Asked, records: list[bytes]) -> None:
    """What is there becomes objects of dnspython's, wanted or not: 1.4 and 7.3 MB. A reply over HTTP costs less."""
    counts = struct.pack("!HHHH", 1, len(records), 0, 0)
    stream = FLAGS + counts + QUESTION + b"".join(SAME_NAME + record for record in records)
    found = ask(asked, TRUNCATED, stream)
    assert "fault" not in found
    assert isinstance(found["peak"], int)
    assert found["peak"] < 10 * MEGABYTE, found["peak"]
