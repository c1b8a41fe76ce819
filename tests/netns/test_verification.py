"""Verification: slow and broken mocks, and another service instead of the mock."""

import sys
import time
from collections.abc import Iterator

import pytest

from imds_detour.advice.failure import MORE
from imds_detour.ctl.lab.hosts import Host, link, start_host
from tests.support.hosts.network import ID_URL, INSTANCE, METADATA, MOCK, PORT, Network, output, read_until
from tests.support.judges import rules_listing

pytestmark = pytest.mark.usefixtures("by_address")
REAL = "10.99.0.9"
REAL_INSTANCE = "i-0real0real0real00"
SHORT = 0.3
"""MOCK_TIMEOUT in seconds, for starts that reach it."""


@pytest.fixture
def real(network: Network) -> Iterator[Host]:
    """Give a third host with a real metadata service, on another network of the app's host."""
    with start_host() as third:
        link(third, network.app, "eth1", f"{REAL}/24", "10.99.0.2/24")
        third.ip("route", "add", "default", "via", "10.99.0.2")
        network.start_real_service(third, instance=REAL_INSTANCE)
        yield third


def add_foreign_rules(network: Network) -> None:
    """Add a foreign rule to both tables that imds-detour writes to."""
    for table in ("nat", "filter"):
        network.app.run("iptables-legacy", "-t", table, "-A", "OUTPUT", "-d", "192.0.2.1", "-j", "ACCEPT")


def refused(network: Network, **settings: str) -> list[str]:
    """Assert that a start fails and leaves its guard only; return its lines."""
    before = network.foreign()
    stderr = network.failure("echo", "started", **settings)
    assert "Traceback" not in stderr
    assert (network.detour_redirects(), network.detour_routes(), network.foreign()) == ("", "", before)
    assert METADATA in network.guarded()
    return stderr.splitlines()


# A late mock, or none


def test_mock_that_starts_late_is_waited_for(network: Network) -> None:
    """If the name resolves and the port is closed, the start says so and waits for the mock."""
    detour = network.popen_detour("curl", "-sS", "--fail", ID_URL)
    assert read_until(detour).startswith(f"imds-detour: waiting: {MOCK}:{PORT}: connection refused (")
    network.start_mock()
    out, err = detour.communicate(timeout=20)
    assert (detour.returncode, out) == (0, INSTANCE)
    assert f"verified IMDSv2 {INSTANCE}" in err


NEVER = {
    "nothing listens": ((), "connection refused"),
    "stalls after the token": (("GET=stall",), "it accepts and sends nothing within "),
    "ends in the body": (("GET=cut",), "it closed the connection in the middle of its reply"),
    "endless headers": (("GET=endless-head",), "the head of its reply is larger than 65536 bytes"),
    "500": (("GET=500",), "it answers 500 to GET /latest/meta-data/instance-id"),
    "503 and no tokens": (("GET=404", "PUT=503"), "it answers 503 to PUT /latest/api/token"),
}


@pytest.mark.parametrize(("plan", "reason"), NEVER.values(), ids=NEVER.keys())
def test_mock_without_a_good_answer_ends_with_125(network: Network, plan: tuple[str, ...], reason: str) -> None:
    """The start ends at its deadline, with one line of what was seen last, and without a redirect."""
    add_foreign_rules(network)
    if plan:
        network.start_faulty(*plan)
    start = time.monotonic()
    *lines, last = refused(network, MOCK_TIMEOUT=str(SHORT))
    spent = time.monotonic() - start
    assert last.startswith(f"imds-detour: no mock after {SHORT} s: {MOCK}:{PORT}: ")
    assert reason in last
    remedy = "start it, look for a firewall on its side, or correct its port in MOCK_PORT"
    if "it answers" in reason:
        remedy = "if another path is answered with 200, let MOCK_PROBE name it"
    if not plan:
        remedy = 'start the mock on 0.0.0.0, or correct MOCK_PORT (amazon-ec2-metadata-mock: `MOCK_PORT: "1338"`)'
    assert last.endswith(f"; {remedy}; MOCK_TIMEOUT is how long to wait; {MORE}")
    # An attempt that lasts until the deadline has no waiting line.
    assert [line.split(": ")[1] for line in lines] in ([], ["waiting"])
    # tests/chaos judges this to half a second, and plays again if the machine was busy.
    assert spent < SHORT + 8


# Unusual answers

GOOD = {
    "HTTP/1.0": ("GET=http10",),
    "no length": ("GET=close",),
    "chunked": ("GET=chunked",),
    "500 at first": ("GET=500*2", "GET=ok"),
    "garbage at first": ("GET=garbage", "GET=reset", "GET=body:", "GET=ok"),
    "the last line ends": (r"GET=body:i-1234567890abcdef0\n",),
    "no token: 403": ("GET=ok", "PUT=403"),
    "no token: 404": ("GET=ok", "PUT=404"),
    "no token: 405": ("GET=ok", "PUT=405"),
    "no token: 500": ("GET=ok", "PUT=500"),
    "no token: 301": ("GET=ok", "PUT=301"),
    "an empty token": ("GET=ok", "PUT=body:"),
}


@pytest.mark.parametrize("plan", GOOD.values(), ids=GOOD.keys())
def test_mock_without_tokens_is_verified_by_imdsv1(network: Network, plan: tuple[str, ...]) -> None:
    """Any HTTP/1.x is right. Without a token the probe uses IMDSv1, as SDKs do, and the line says so."""
    network.start_faulty(*plan)
    assert f"verified IMDSv1 {INSTANCE}, " in network.success("echo", "started", stdout="started\n").splitlines()[-1]


@pytest.mark.parametrize("token", [r"evil\r\nX-Evil: 1", r"two\nlines", r"\xff\xfe\x00", "with blank", "x" * 4097])
def test_a_token_that_is_no_header_value_is_never_sent(network: Network, token: str) -> None:
    """A token that could break a request's head counts as none. Control: a good one is sent, without its line end."""
    server = network.start_faulty("GET=ok", f"PUT=body:{token}")
    assert f"verified IMDSv1 {INSTANCE}, " in network.success("true")
    requests = ["PUT /latest/api/token no token", "GET /latest/meta-data/instance-id no token"]
    assert output(server).splitlines() == requests * 2
    server = network.start_faulty("GET=ok", r"PUT=body:AQAEA==\n")
    assert f"verified IMDSv2 {INSTANCE}, " in network.success("true")
    assert output(server).count("GET /latest/meta-data/instance-id token=b'AQAEA=='\n") == 2


@pytest.mark.parametrize(
    ("plan", "line"),
    [
        (("GET=ok", "PUT=500", "PUT=body:token"), "verified IMDSv"),
        (("GET=body:i-before", "GET=body:i-after"), "verified IMDSv1 i-after"),
        (("GET=ok", "GET=500", "GET=ok"), f"waiting: {MOCK}:{PORT} through {METADATA}:80: it answers 500 to GET"),
    ],
    ids=["tokens from the second request on", "other data after a restart", "a failure through the redirect"],
)
def test_answers_that_change_once_are_accepted(network: Network, plan: tuple[str, ...], line: str) -> None:
    """Both IMDS versions may give one text, a second direct request confirms a new one, and a failure is retried."""
    network.start_faulty(*plan)
    assert line in network.success("echo", "started", stdout="started\n")


def test_failure_through_the_redirect_removes_it(network: Network) -> None:
    """If only direct requests get an answer, the start exits with 125 and removes its redirect."""
    network.start_faulty("GET=ok", "GET=500")
    add_foreign_rules(network)
    last = refused(network, MOCK_TIMEOUT="0.5")[-1]
    assert f"the mock answers at {MOCK}:{PORT} and not through {METADATA}:80: it answers 500 to GET" in last


# MOCK_PROBE


def test_custom_path_may_have_any_stable_answer(network: Network) -> None:
    """With MOCK_PROBE=/path an answer may have blanks and several lines."""
    server = network.start_faulty(r"GET=body:<a b>\n two")
    stderr = network.success("true", MOCK_PROBE="/my/path?x=1")
    assert stderr.count("\n") == 1
    assert "verified IMDSv1 (200 to GET /my/path?..., 10 bytes), " in stderr
    assert output(server).count("GET /my/path?x=1 no token\n") == 2


def test_varying_answer_is_reported(network: Network) -> None:
    """If the answer varies, the message says so, and does not speak of another service."""
    network.start_faulty("GET=count")
    last = refused(network, MOCK_PROBE="/time")[-1]
    assert f"the mock at {MOCK}:{PORT} answers GET /time differently each time; " in last
    assert "let MOCK_PROBE name a path whose answer stays the same" in last


def test_probe_off_sends_no_request(network: Network) -> None:
    """MOCK_PROBE=off redirects without a request, and the line says that nothing was verified."""
    server = network.start_faulty("GET=ok")
    assert "not verified (MOCK_PROBE=off)" in network.success("echo", "started", stdout="started\n", MOCK_PROBE="off")
    assert output(server) == ""


# Another service answers


@pytest.mark.usefixtures("real")
def test_another_service_ends_the_start_with_125(mocked: Network) -> None:
    """If a foreign rule redirects to a real service, the app does not start, and the line quotes the service."""
    add_foreign_rules(mocked)
    mocked.divert(REAL, "80")
    last = refused(mocked)[-1]
    assert f"another service answers at {METADATA}:80: IMDSv2 {REAL_INSTANCE}" in last
    assert f"the mock at {MOCK}:{PORT} is IMDSv2 {INSTANCE}" in last
    # Negative control: MOCK_PROBE=off starts an app that reads from the real service.
    mocked.success("curl", "-sS", "--fail", ID_URL, stdout=REAL_INSTANCE, MOCK_PROBE="off")


NOT_REACHED = f"{METADATA}:80 is not reached by the rule: its counter does not rise"


@pytest.mark.parametrize(
    ("port", "reason"),
    [
        (PORT, f"{NOT_REACHED}; it answers like the mock"),
        ("9", f"{NOT_REACHED}; connection refused"),
    ],
    ids=["the mock's port", "a closed port"],
)
def test_answer_by_a_foreign_rule_is_refused(mocked: Network, port: str, reason: str) -> None:
    """If a foreign rule redirects to the mock's host, the counter of imds-detour's rule does not rise."""
    mocked.divert(MOCK, port)
    assert reason in refused(mocked, MOCK_TIMEOUT="10" if port == PORT else "0.5")[-1]


NEIGHBOUR = f"""
import os, socket
os.setuid(65534)
print("started", flush=True)
while True:
    try:
        socket.create_connection(("{METADATA}", 80), 5).close()
    except OSError:
        pass
"""
"""A program of another user that connects to the metadata address without a pause."""


def test_a_neighbours_connections_are_not_taken_for_the_probes(mocked: Network, backend: str) -> None:
    """If a rule for root leads to a copy of the mock, a neighbour's connections by imds-detour's rule prove nothing."""
    mocked.start_mock(port="1339")
    mocked.start(mocked.app, sys.executable, "-c", NEIGHBOUR)
    # Negative control: without that rule, the start succeeds beside the neighbour.
    mocked.success("true", MOCK_BACKEND=backend)
    assert mocked.ctl("remove").returncode == 0
    mocked.divert(MOCK, "1339", of="meta skuid 0")
    last = refused(mocked, MOCK_BACKEND=backend)[-1]
    assert f"{METADATA}:80 is not reached by the rule: the connection leads to {MOCK}:1339" in last


def test_without_the_guard_other_ports_reach_the_real_service(network: Network, backend: str) -> None:
    """Negative control: with MOCK_GUARD=off there is no guard, and port 8080 reaches the real service."""
    network.mock.ip("address", "add", f"{METADATA}/32", "dev", "lo")
    network.start_real_service(network.mock, "8080", REAL_INSTANCE)
    network.start_mock()
    url = f"http://{METADATA}:8080/latest/meta-data/instance-id"
    network.wanted["MOCK_BACKEND"] = backend
    network.success("curl", "-sS", "--fail", url, ID_URL, stdout=f"{REAL_INSTANCE}{INSTANCE}", MOCK_GUARD="off")
    listed = network.app.run("sh", "-c", rules_listing.LISTED).stdout
    assert (rules_listing.redirected(listed), rules_listing.guarded(listed)) == ({METADATA}, set())
    # The control: with it, that port is closed.
    assert network.detour("curl", "-sS", "--fail", url).returncode == 7
