"""The identity of the service that answered, as text for one line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imds_detour.discovery.probe import Identity


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"i-1234567890abcdef0", "IMDSv2 i-1234567890abcdef0"),
        (b" i-1\r\n", "IMDSv2 i-1"),
        (b"two\nlines", r"IMDSv2 'two\nlines'"),
        (b"\x1b[2J", r"IMDSv2 '\x1b[2J'"),
        (b"\xff", "IMDSv2 �"),
        (b"x" * 99, "IMDSv2 " + "x" * 64),
    ],
)
def test_identity_shows_version_and_answer(body: bytes, text: str) -> None:
    """An identity is IMDS version and answer, stripped of blanks and cut to 64 characters."""
    assert str(Identity("IMDSv2", body)) == text


@given(st.binary(max_size=300))
def test_identity_is_one_printable_line(body: bytes) -> None:
    """Any bytes from a server give one short printable line."""
    text = str(Identity("IMDSv1", body))
    assert text.isprintable()
    assert len(text) <= 700  # 64 characters, each at most \U0010ffff in repr()
