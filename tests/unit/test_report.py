"""What is said on stderr, by MOCK_LOG, and that it is always one line."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imds_detour.deadline import Deadline
from imds_detour.errors import DetourError
from imds_detour.log import Log
from imds_detour.text import printable, quoted

FAILURE = DetourError("lookup", "no such name", "correct it")


class Clock:
    """A clock that the test turns."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """Tell the time."""
        return self.now


@pytest.mark.parametrize(
    ("log", "lines"),
    [
        ("text", ["warning", "waiting: no such name (0.0 of 30 s)", "success", "no such name; correct it"]),
        ("quiet", ["no such name; correct it"]),
        (
            "debug",
            [
                "     0 ms  step",
                "warning",
                "waiting: no such name (0.0 of 30 s)",
                "success",
                "no such name; correct it",
            ],
        ),
    ],
)
def test_each_way_says_what_it_should(capfd: pytest.CaptureFixture[str], log: str, lines: list[str]) -> None:
    """Quiet has the failure alone, debug has the steps too."""
    say_everything(log)
    assert capfd.readouterr() == ("", "".join(f"imds-detour: {line}\n" for line in lines))


def test_json_is_one_object_a_line(capfd: pytest.CaptureFixture[str]) -> None:
    """The facts by their names."""
    say_everything("json")
    out, err = capfd.readouterr()
    assert out == ""
    assert [json.loads(line) for line in err.splitlines()] == [
        {"event": "warning", "text": "warning"},
        {"event": "waiting", "step": "lookup", "reason": "no such name", "seconds": 0.0},
        {"event": "ready", "port": 80},
        {"event": "failed", "step": "lookup", "reason": "no such name", "remedy": "correct it"},
    ]


def say_everything(log: str) -> None:
    """Report one of each."""
    clock = Clock()
    report = Log(log, clock)
    report.step("step")
    report.warning("warning")
    report.waiting(FAILURE, Deadline(30, clock))
    report.success("success", {"port": 80})
    report.failure(FAILURE)


def test_a_wait_is_told_at_first_and_then_every_five_seconds(capfd: pytest.CaptureFixture[str]) -> None:
    """However often it is tried in between; without an end it is told without one."""
    clock = Clock()
    report = Log("text", clock)
    deadline = Deadline(math.inf, clock)
    for _ in range(120):
        report.waiting(FAILURE, deadline)
        clock.now += 0.1
    assert capfd.readouterr().err.splitlines() == [
        f"imds-detour: waiting: no such name ({seconds} s)" for seconds in ("0.0", "5.1", "10.2")
    ]


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=100))
def test_what_is_shown_is_printable(text: str) -> None:
    """No text, and no bytes that are none, can begin a line or move the cursor; what is printable stays as it is."""
    shown = printable(text + "\n\x1b\udc80\udcff")
    assert shown.isprintable()
    assert shown.endswith(r"\n\x1b\x80\xff")
    assert not text.isprintable() or shown.startswith(text)


def test_quotes_cut_what_is_long() -> None:
    """Before it is escaped, so that an escape sequence is never cut in the middle."""
    assert quoted("a" * 10, 10) == f"'{'a' * 10}'"
    assert quoted("a" * 9 + "\n\n", 10) == f"'{'a' * 9}\\n...'"


def test_json_holds_no_half_surrogates(capfd: pytest.CaptureFixture[str]) -> None:
    """Strict readers refuse them; line ends are JSON's own matter."""
    Log("json").warning("\udcff\n")
    assert json.loads(capfd.readouterr().err) == {"event": "warning", "text": "\\xff\n"}
