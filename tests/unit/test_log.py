"""Log lines by MOCK_LOG, and the escaping that keeps each message on one line."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imds_detour.deadline import Deadline
from imds_detour.errors import DetourError
from imds_detour.log import Log
from imds_detour.text import printable, quoted
from tests.unit.test_deadline import Clock

FAILURE = DetourError("lookup", "no such name", "correct it")


LINES = ["     0 ms  step", "warning", "waiting: no such name (0.0 of 30 s)", "success", "no such name; correct it"]


@pytest.mark.parametrize(("log", "lines"), [("text", LINES[1:]), ("quiet", LINES[-1:]), ("debug", LINES)])
def test_log_level_selects_the_lines(capfd: pytest.CaptureFixture[str], log: str, lines: list[str]) -> None:
    """MOCK_LOG=quiet shows only the failure, and MOCK_LOG=debug adds the steps."""
    log_one_of_each(log)
    assert capfd.readouterr() == ("", "".join(f"imds-detour: {line}\n" for line in lines))


def test_json_log_is_one_object_per_line(capfd: pytest.CaptureFixture[str]) -> None:
    """With MOCK_LOG=json each line is an object with the facts by name; bytes that are not UTF-8 are escaped."""
    log_one_of_each("json")
    Log("json").warning("\udcff\n")
    out, err = capfd.readouterr()
    assert out == ""
    assert [json.loads(line) for line in err.splitlines()] == [
        {"event": "warning", "text": "warning"},
        {"event": "waiting", "step": "lookup", "reason": "no such name", "seconds": 0.0},
        {"event": "ready", "port": 80},
        {"event": "failed", "step": "lookup", "reason": "no such name", "remedy": "correct it"},
        {"event": "warning", "text": "\\xff\n"},
    ]


def log_one_of_each(log: str) -> None:
    """Log one message of each kind."""
    clock = Clock()
    report = Log(log, clock)
    report.step("step")
    report.warning("warning")
    report.waiting(FAILURE, Deadline(30, clock))
    report.success("success", {"port": 80})
    report.failure(FAILURE)


def test_wait_is_logged_at_once_and_then_ever_less_often(capfd: pytest.CaptureFixture[str]) -> None:
    """A wait is logged at once, after 5 more seconds, after 10 more, and so on, with the number of attempts."""
    clock = Clock()
    report = Log("text", clock)
    deadline = Deadline(math.inf, clock)
    for _ in range(120):
        report.waiting(FAILURE, deadline)
        clock.now += 0.1
    assert capfd.readouterr().err.splitlines() == [
        "imds-detour: waiting: no such name (0.0 s)",
        "imds-detour: waiting: no such name (5.1 s, 52 attempts)",
    ]


def test_new_reason_is_logged_a_second_after_the_last_line(capfd: pytest.CaptureFixture[str]) -> None:
    """A wait with another reason is told a second after the last line at the latest; two in turn give no more lines."""
    clock = Clock()
    report = Log("text", clock)
    deadline = Deadline(30, clock)
    for number in range(45):
        report.waiting(DetourError("probe", "refused" if number % 2 else "no such name"), deadline)
        clock.now += 0.1
    assert capfd.readouterr().err.splitlines() == [
        "imds-detour: waiting: no such name (0.0 of 30 s)",
        "imds-detour: waiting: refused (1.1 of 30 s)",
    ]


def test_debug_lines_that_repeat_are_counted(capfd: pytest.CaptureFixture[str]) -> None:
    """MOCK_LOG=debug writes a step once, and tells how often it came again before the next other line."""
    report = Log("debug", Clock())
    for text in ("ask", "silence", "ask", "silence", "ask", "answer", "ask"):
        report.step(text)
    report.warning("end")
    lines = ["ask", "silence", "2 times more: ask; once more: silence", "answer", "once more: ask"]
    assert capfd.readouterr().err.splitlines() == [
        *(f"imds-detour:      0 ms  {line}" for line in lines),
        "imds-detour: end",
    ]


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=100))
def test_printable_text_has_no_control_characters(text: str) -> None:
    """printable() escapes only control characters and bytes that are not UTF-8; quoted() cuts before it escapes."""
    shown = printable(text + "\n\x1b\udc80\udcff")
    assert shown.isprintable()
    assert shown.endswith(r"\n\x1b\x80\xff")
    assert not text.isprintable() or shown.startswith(text)
    assert (quoted("a" * 10, 10), quoted("a" * 9 + "\n\n", 10)) == (f"'{'a' * 10}'", f"'{'a' * 9}\\n...'")
