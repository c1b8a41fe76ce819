"""The requests of the control path, without a server or a clock."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imds_detour_mock.clouds.credentials import Rotation
from imds_detour_mock.clouds.notices import Notices
from imds_detour_mock.control import Control
from imds_detour_mock.faults import Failures
from tests.support.servers.clouds import NOW, mock

LOCAL = {"host": "127.0.0.1:1339"}


def control() -> Control:
    """Return the control of a mock without any event or fault."""
    return Control(Notices(), Rotation(), Failures())


def status(made: Control, request: str, headers: dict[str, str] | None = None) -> int:
    """Return the status of a reply."""
    method, target = request.split(" ")
    reply = made.answer(method, target, LOCAL if headers is None else headers, NOW)
    assert reply.cloud == "control"
    return reply.status


def state(made: Control) -> tuple[float | None, float | None, int, tuple[int, int]]:
    """Return the times of the notices, the number of rotations, and the failures that are left."""
    return made.notices.spot, made.notices.rebalance, made.rotation.first, (made.failures.left, made.failures.status)


@pytest.mark.parametrize(
    ("request_line", "after"),
    [
        ("POST /interrupt", (NOW, None, 0, (0, 503))),
        ("POST /interrupt?in=60", (NOW + 60, None, 0, (0, 503))),
        ("POST /rebalance?in=0", (None, NOW, 0, (0, 503))),
        ("POST /rotate", (None, None, 1, (0, 503))),
        ("POST /fail", (None, None, 0, (1, 503))),
        ("POST /fail?count=3&status=429", (None, None, 0, (3, 429))),
    ],
)
def test_request_changes_the_state_and_delete_withdraws_it(request_line: str, after: object) -> None:
    """Each POST changes its own part of the state; a DELETE of the same path withdraws an event or a fault."""
    made = control()
    assert (status(made, request_line), state(made)) == (200, after)
    withdrawn = status(made, request_line.replace("POST", "DELETE").partition("?")[0])
    if request_line == "POST /rotate":
        assert (withdrawn, state(made)) == (404, after)
    else:
        assert (withdrawn, state(made)) == (200, (None, None, 0, (0, 503)))


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        *(({"host": host}, 200) for host in ("127.0.0.1", "localhost:1339", "LOCALHOST", "127.9.9.9:1", "[::1]:1339")),
        ({}, 200),
        *(
            ({"host": host}, 403)
            for host in ("evil.example", "127.0.0.1.evil.example:1339", "localhost.evil", "", ":1")
        ),
        *(({"host": host}, 403) for host in ("169.254.169.254", "[::]:1339", "0.0.0.0", "127.0.0.1, evil.example")),
        *(({**LOCAL, "origin": origin}, 403) for origin in ("http://evil.example", "null", "http://127.0.0.1:1339")),
    ],
)
def test_web_pages_are_refused(headers: dict[str, str], expected: int) -> None:
    """A request with an Origin, or with a Host that is not loopback, changes nothing."""
    made = control()
    assert status(made, "POST /interrupt", headers) == expected
    assert (made.notices.spot is not None) == (expected == 200)


@pytest.mark.parametrize(
    ("request_line", "expected"),
    [
        *((f"{method} /interrupt", 404) for method in ("GET", "HEAD", "PUT", "OPTIONS")),
        *((f"POST {path}", 404) for path in ("/", "/interrupt/", "//interrupt", "/latest/meta-data/")),
        *((f"POST /fail?{query}", 400) for query in ("count=-1", "count=x", "count=1000001", "status=200", "status=0")),
        *((f"POST {target}", 400) for target in ("/fail?in=1", "/interrupt?in=", "/rotate?in=1", "/interrupt?count=1")),
    ],
)
def test_invalid_request_changes_nothing(request_line: str, expected: int) -> None:
    """An unknown path or method is 404, and an invalid variable 400; neither changes the state."""
    made = control()
    assert status(made, request_line) == expected
    assert state(made) == state(control())


def test_body_is_refused() -> None:
    """A request with a body is refused, because its values would have no effect."""
    made = control()
    assert status(made, "POST /fail", {**LOCAL, "content-length": "7"}) == 400
    assert made.failures.left == 0


@given(target=st.text(), host=st.text(), method=st.sampled_from(["POST", "DELETE", "GET"]))
def test_any_request_is_answered(target: str, host: str, method: str) -> None:
    """Any target and Host get a valid status, without an exception."""
    reply = control().answer(method, f"/{target}", {"host": host}, NOW)
    assert reply.status in {200, 400, 403, 404}


def test_next_requests_fail_and_then_those_of_the_flag() -> None:
    """/fail fails the next n requests with its status; afterwards --fail counts on."""
    failures = Failures(every=(500, 2))
    answer = failures.failing(mock().answer)
    failures.left, failures.status = 2, 429
    assert [answer("GET", "/", {}, NOW).status for _ in range(5)] == [429, 429, 200, 500, 200]
