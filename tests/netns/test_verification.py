"""Verification: slow and broken mocks, and another service instead of the mock."""

from __future__ import annotations

import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from imds_detour.ctl.lab.hosts import Host, link, start_host
from tests.support.hosts.network import APP, DETOUR, ID_URL, INSTANCE, METADATA, MOCK, PORT, Network, output, read_until
from tests.support.judges import rules_listing

if TYPE_CHECKING:
    from collections.abc import Iterator

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


def waiting(network: Network, *command: str, **settings: str) -> tuple[subprocess.Popen[str], str]:
    """Start imds-detour, and return it with its first line."""
    detour = network.app.popen(
        DETOUR, *command, environ=network.settings(None, **settings), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    return detour, read_until(detour)


def add_foreign_rules(network: Network) -> None:
    """Add a foreign rule to both tables that imds-detour writes to."""
    for table in ("nat", "filter"):
        network.app.run("iptables-legacy", "-t", table, "-A", "OUTPUT", "-d", "192.0.2.1", "-j", "ACCEPT")


def send_metadata_to(network: Network, address: str, port: str) -> None:
    """Add a foreign nftables rule that redirects the metadata address before imds-detour's rules."""
    network.app.run(
        "nft",
        "add table ip foreign; add chain ip foreign output { type nat hook output priority -150; };"
        f" add rule ip foreign output ip daddr {METADATA} tcp dport 80 dnat to {address}:{port}",
    )


def assert_refused(network: Network, done: subprocess.CompletedProcess[str], before: str) -> str:
    """Assert that the app was not started and that nothing remains; return the last line."""
    assert done.returncode == 125, done
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert network.detour_rules() == ""
    assert network.detour_routes() == ""
    assert network.foreign() == before
    return done.stderr.splitlines()[-1]


# A late mock, or none


def test_mock_that_starts_late_is_waited_for(network: Network) -> None:
    """If the name resolves and the port is closed, the start says so and waits for the mock."""
    detour, line = waiting(network, "curl", "-sS", "--fail", ID_URL, MOCK_HOSTNAME=MOCK)
    assert line.startswith(f"imds-detour: waiting: {MOCK}:{PORT}: connection refused (")
    network.start_mock()
    out, err = detour.communicate(timeout=20)
    assert (detour.returncode, out) == (0, INSTANCE)
    assert f"verified IMDSv2 {INSTANCE}" in err


NEVER = {
    "nothing listens": ((), "connection refused"),
    "stalls after the token": (("GET=stall",), "it accepts and sends nothing within "),
    "ends in the body": (("GET=cut",), "it closed the connection in the middle of its reply"),
    "endless headers": (("GET=endless-head",), "its reply is larger than 65536 bytes"),
    "404": (("GET=404",), "it answers 404 to GET /latest/meta-data/instance-id"),
}


@pytest.mark.parametrize(("plan", "reason"), NEVER.values(), ids=NEVER.keys())
def test_mock_without_a_good_answer_ends_the_start_with_125(
    network: Network, plan: tuple[str, ...], reason: str
) -> None:
    """The start ends at its deadline, with one line of what was seen last, and without rules."""
    add_foreign_rules(network)
    if plan:
        network.start_faulty(*plan)
    before = network.foreign()
    start = time.monotonic()
    done = network.detour("echo", "started", MOCK_HOSTNAME=MOCK, MOCK_TIMEOUT=str(SHORT))
    spent = time.monotonic() - start
    last = assert_refused(network, done, before)
    assert last.startswith(f"imds-detour: no mock after {SHORT} s: {MOCK}:{PORT}: ")
    assert reason in last
    remedy = "start it, or correct its port in MOCK_PORT or MOCK_ENDPOINTS; MOCK_TIMEOUT is how long to wait"
    assert last.endswith(f"; {remedy}")
    # An attempt that lasts until the deadline has no waiting line.
    assert [line.split(": ")[1] for line in done.stderr.splitlines()[:-1]] in ([], ["waiting"])
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
    done = network.detour("echo", "started", MOCK_HOSTNAME=MOCK)
    assert (done.returncode, done.stdout) == (0, "started\n"), done
    assert f"verified IMDSv1 {INSTANCE}, " in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("token", [r"evil\r\nX-Evil: 1", r"two\nlines", r"\xff\xfe\x00", "with blank", "x" * 4097])
def test_a_token_that_is_no_header_value_is_never_sent(network: Network, token: str) -> None:
    """A token that could break a request's head counts as none."""
    server = network.start_faulty("GET=ok", f"PUT=body:{token}")
    done = network.detour("true", MOCK_HOSTNAME=MOCK)
    assert f"verified IMDSv1 {INSTANCE}, " in done.stderr
    assert (
        output(server).splitlines()
        == ["PUT /latest/api/token no token", "GET /latest/meta-data/instance-id no token"] * 2
    )


def test_good_token_is_sent(network: Network) -> None:
    """Negative control: a good token is sent, without its line end, and the line says IMDSv2."""
    server = network.start_faulty("GET=ok", r"PUT=body:AQAEA==\n")
    assert f"verified IMDSv2 {INSTANCE}, " in network.detour("true", MOCK_HOSTNAME=MOCK).stderr
    assert output(server).count("GET /latest/meta-data/instance-id token=b'AQAEA=='\n") == 2


def test_mock_that_requires_tokens_is_verified_by_imdsv2(network: Network) -> None:
    """A mock that refuses requests without a token is verified with one."""
    network.start_mock("--imdsv2", "required")
    assert f"verified IMDSv2 {INSTANCE}, " in network.detour("true", MOCK_HOSTNAME=MOCK).stderr


def test_mock_with_late_tokens_is_verified(network: Network) -> None:
    """A direct answer by IMDSv1 and one through the redirect by IMDSv2 are the same if their texts are."""
    network.start_faulty("GET=ok", "PUT=500", "PUT=body:token")
    done = network.detour("echo", "started", MOCK_HOSTNAME=MOCK)
    assert (done.returncode, done.stdout) == (0, "started\n"), done


def test_failure_through_the_redirect_is_retried(network: Network) -> None:
    """If a request through the redirect fails, the probe is repeated, and the waiting line names the redirect."""
    network.start_faulty("GET=ok", "GET=500", "GET=ok")
    done = network.detour("echo", "started", MOCK_HOSTNAME=MOCK)
    assert (done.returncode, done.stdout) == (0, "started\n"), done
    assert f"waiting: {MOCK}:{PORT} through {METADATA}:80: it answers 500 to GET" in done.stderr


def test_failure_through_the_redirect_removes_the_rules(network: Network) -> None:
    """If only direct requests get an answer, the start exits with 125 and removes its rules."""
    network.start_faulty("GET=ok", "GET=404")
    add_foreign_rules(network)
    before = network.foreign()
    done = network.detour("echo", "started", MOCK_HOSTNAME=MOCK, MOCK_TIMEOUT="0.5")
    last = assert_refused(network, done, before)
    assert f"the mock answers at {MOCK}:{PORT} and not through {METADATA}:80: it answers 404 to GET" in last


# MOCK_PROBE


def test_custom_path_may_have_any_stable_answer(network: Network) -> None:
    """With MOCK_PROBE=/path an answer may have blanks and several lines."""
    server = network.start_faulty(r"GET=body:<a b>\n two")
    done = network.detour("true", MOCK_HOSTNAME=MOCK, MOCK_PROBE="/my/path?x=1")
    assert done.returncode == 0
    assert done.stderr.count("\n") == 1
    assert r"verified IMDSv1 '<a b>\n two', " in done.stderr
    assert output(server).count("GET /my/path?x=1 no token\n") == 2


def test_varying_answer_is_reported(network: Network) -> None:
    """If the answer varies, the message says so, and does not speak of another service."""
    network.start_faulty("GET=count")
    done = network.detour("echo", "started", MOCK_HOSTNAME=MOCK, MOCK_PROBE="/time")
    last = assert_refused(network, done, network.foreign())
    assert f"the mock at {MOCK}:{PORT} answers GET /time differently each time: IMDSv1 2, IMDSv1 6" in last
    assert "let MOCK_PROBE name a path whose answer stays the same" in last


def test_answer_that_changes_once_is_accepted(network: Network) -> None:
    """If a mock restarts with other data between two requests, a second direct request confirms it."""
    network.start_faulty("GET=body:i-before", "GET=body:i-after")
    done = network.detour("echo", "started", MOCK_HOSTNAME=MOCK)
    assert (done.returncode, done.stdout) == (0, "started\n"), done


def test_probe_off_sends_no_request(network: Network) -> None:
    """MOCK_PROBE=off redirects without a request, and the line says that nothing was verified."""
    server = network.start_faulty("GET=ok")
    done = network.detour("echo", "started", MOCK_HOSTNAME=MOCK, MOCK_PROBE="off")
    assert (done.returncode, done.stdout) == (0, "started\n")
    assert "not verified (MOCK_PROBE=off)" in done.stderr
    assert output(server) == ""


# Another service answers


@pytest.mark.usefixtures("real")
def test_another_service_ends_the_start_with_125(mocked: Network) -> None:
    """If a foreign rule redirects to a real service, the app does not start, and the line quotes the service."""
    add_foreign_rules(mocked)
    send_metadata_to(mocked, REAL, "80")
    before = mocked.foreign()
    done = mocked.detour("echo", "started", MOCK_HOSTNAME=MOCK)
    last = assert_refused(mocked, done, before)
    assert f"another service answers at {METADATA}:80: IMDSv2 {REAL_INSTANCE}" in last
    assert f"the mock at {MOCK}:{PORT} is IMDSv2 {INSTANCE}" in last


@pytest.mark.usefixtures("real")
def test_probe_off_lets_the_app_reach_another_service(mocked: Network) -> None:
    """Negative control: in the same network, MOCK_PROBE=off starts an app that reads from the real service."""
    send_metadata_to(mocked, REAL, "80")
    done = mocked.detour("curl", "-sS", "--fail", ID_URL, MOCK_HOSTNAME=MOCK, MOCK_PROBE="off")
    assert (done.returncode, done.stdout) == (0, REAL_INSTANCE)


def test_answer_by_a_foreign_rule_is_refused(mocked: Network) -> None:
    """If a foreign rule redirects to the mock, the counter of imds-detour's rule does not rise, and the start fails."""
    send_metadata_to(mocked, MOCK, PORT)
    before = mocked.foreign()
    last = assert_refused(mocked, mocked.detour("echo", "started", MOCK_HOSTNAME=MOCK), before)
    assert f"{METADATA}:80 answers like the mock, but not by the rule: its counter does not rise" in last


def test_foreign_rule_to_a_closed_port_is_reported(mocked: Network) -> None:
    """If a foreign rule redirects to a closed port, the line names the direct answer and the refusal."""
    send_metadata_to(mocked, MOCK, "9")
    before = mocked.foreign()
    last = assert_refused(mocked, mocked.detour("echo", "started", MOCK_HOSTNAME=MOCK, MOCK_TIMEOUT="0.5"), before)
    assert f"the mock answers at {MOCK}:{PORT} and not through {METADATA}:80: connection refused" in last


# The guard


def test_without_the_guard_other_ports_reach_the_real_service(network: Network, backend: str) -> None:
    """Negative control: with MOCK_GUARD=off there is no guard, and port 8080 reaches the real service."""
    network.mock.ip("address", "add", f"{METADATA}/32", "dev", "lo")
    network.start_real_service(network.mock, "8080", REAL_INSTANCE)
    network.start_mock()
    url = f"http://{METADATA}:8080/latest/meta-data/instance-id"
    network.wanted = {"MOCK_HOSTNAME": MOCK, "MOCK_BACKEND": backend}
    done = network.detour("curl", "-sS", "--fail", url, ID_URL, MOCK_GUARD="off")
    assert (done.returncode, done.stdout) == (0, f"{REAL_INSTANCE}{INSTANCE}")
    listed = network.app.run("sh", "-c", rules_listing.LISTED).stdout
    assert (rules_listing.redirected(listed), rules_listing.guarded(listed)) == ({METADATA}, set())
    # The control: with it, that port is closed.
    assert network.detour("curl", "-sS", "--fail", url).returncode == 7


def test_probe_uses_the_apps_address(network: Network) -> None:
    """The mock sees two probes from the app's address: a direct one and one through the redirect."""
    server = network.start_mock()
    assert network.detour("true", MOCK_HOSTNAME=MOCK).returncode == 0
    assert output(server).count(f"{APP} GET /latest/meta-data/instance-id 200") == 2
