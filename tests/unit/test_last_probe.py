"""The answer on the sidecar's socket: what a hostile process sends there neither holds nor misleads a reader."""

import json
import os
import socket
import threading
import time

import pytest

from imds_detour.ctl.sidecar import last_probe
from imds_detour.ctl.sidecar.last_probe import LastProbe

VALID = LastProbe(verified=True, text="IMDSv2 i-1", age=2.5)


def answer(age: str) -> bytes:
    """Return an answer with this age."""
    return b'{"verified": true, "text": "IMDSv2 i-1", "age": %s}' % age.encode()


ANSWERS = {
    "valid": (VALID.encode(), VALID),
    "nonsense": (b"[nonsense", None),
    "nothing": (b"", None),
    "deeply nested": (b"[" * 60000, None),
    "huge": (b" " * 10_000_000, None),
    "not UTF-8": (b"\xff\xfe\xff", None),
    "a list": (b"[1]", None),
    "a text for verified": (json.dumps({"verified": "yes", "text": "x", "age": 1}).encode(), None),
    "a list as text": (json.dumps({"verified": True, "text": ["x"], "age": 1}).encode(), None),
    **{
        age: (answer(age), None)
        for age in ("NaN", "Infinity", "-Infinity", "-1", "1e400", "9" * 400, "9" * 5000, '"1"')
    },
}


@pytest.fixture
def listener(monkeypatch: pytest.MonkeyPatch) -> socket.socket:
    """Give a listening socket in place of the sidecar's."""
    monkeypatch.setattr(last_probe, "ADDRESS", f"\0test-{os.getpid()}-{time.monotonic_ns()}")
    made = socket.socket(socket.AF_UNIX)
    made.bind(last_probe.ADDRESS)
    made.listen()
    return made


def send(listener: socket.socket, data: bytes, pause: float) -> None:
    """Send data to one client, all at once or a byte at a time."""
    with listener, listener.accept()[0] as client:
        try:
            for chunk in [data[place : place + 1] for place in range(len(data))] if pause else [data]:
                time.sleep(pause)
                client.sendall(chunk)
        except OSError:
            pass  # it has read enough


@pytest.mark.parametrize("kind", ANSWERS)
def test_only_a_valid_answer_of_the_socket_counts(listener: socket.socket, kind: str) -> None:
    """Nonsense, NaN, deep nesting and huge answers count as no answer; a valid one (the control) counts."""
    data, expected = ANSWERS[kind]
    threading.Thread(target=send, args=(listener, data, 0), daemon=True).start()
    assert last_probe.ask() == expected


@pytest.mark.parametrize("pause", [0.2, 3.0])
def test_slow_answer_of_the_socket_is_not_waited_for(listener: socket.socket, pause: float) -> None:
    """A byte now and then, and silence, are waited for a second in all."""
    threading.Thread(target=send, args=(listener, VALID.encode(), pause), daemon=True).start()
    began = time.monotonic()
    assert last_probe.ask() is None
    assert 0.8 < time.monotonic() - began < 1.4


def test_long_text_of_the_sidecar_fits_into_an_answer(listener: socket.socket) -> None:
    """The text of a thousand services, in any script, is cut so that `status` reads the answer."""
    long = LastProbe(verified=False, text="\U0001f600" * 100_000, age=1.0)
    threading.Thread(target=send, args=(listener, long.encode(), 0), daemon=True).start()
    assert (seen := last_probe.ask()) is not None
    assert seen.text == long.text[: last_probe.MAX_TEXT]
