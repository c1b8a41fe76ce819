"""The proof that it is the mock that answers: slow and broken mocks, and somebody else in its place."""

from __future__ import annotations

import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from imds_detour.ctl.lab.hosts import Host, link, start_host
from tests.support.hosts.cloud import BACKENDS
from tests.support.hosts.network import APP, DETOUR, ID_URL, INSTANCE, METADATA, MOCK, PORT
from tests.support.judges import rules_listing
from tests.support.marks import first_quick

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.hosts.network import Network

REAL = "10.99.0.9"
REAL_INSTANCE = "i-0real0real0real00"
SHORT = 0.3
"""Seconds of MOCK_TIMEOUT where it is meant to pass."""


@pytest.fixture
def real(network: Network) -> Iterator[Host]:
    """Give a third host, reached by another cable, on which somebody's real metadata service runs."""
    with start_host() as third:
        link(third, network.app, "eth1", f"{REAL}/24", "10.99.0.2/24")
        third.ip("route", "add", "default", "via", "10.99.0.2")
        network.start_real_service(third, instance=REAL_INSTANCE)
        yield third


@pytest.fixture(scope="module")
def start_up() -> float:
    """Return the seconds that a start takes before its deadline begins to run, the longest of three."""
    spent = []
    for _ in range(3):
        start = time.monotonic()
        subprocess.run([DETOUR, "--version"], check=True, capture_output=True)
        spent.append(time.monotonic() - start)
    return max(spent)


def waiting(network: Network, *command: str, **settings: str) -> tuple[subprocess.Popen[str], str]:
    """Start imds-detour and return it with its first line on stderr, once it has said it."""
    detour = network.app.popen(
        DETOUR, *command, environ=network.settings(None, **settings), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert detour.stderr is not None
    return detour, detour.stderr.readline()


def add_foreign_rules(network: Network) -> None:
    """Put rules of somebody else's into both tables that imds-detour writes to."""
    for table in ("nat", "filter"):
        network.app.run("iptables-legacy", "-t", table, "-A", "OUTPUT", "-d", "192.0.2.1", "-j", "ACCEPT")


def send_metadata_to(network: Network, address: str, port: str) -> None:
    """Have a foreign nftables rule take the metadata address before any rule of ours sees it."""
    network.app.run(
        "nft",
        "add table ip foreign; add chain ip foreign output { type nat hook output priority -150; };"
        f" add rule ip foreign output ip daddr {METADATA} tcp dport 80 dnat to {address}:{port}",
    )


def assert_refused(network: Network, done: subprocess.CompletedProcess[str], before: str) -> str:
    """Check that the app was not started and that nothing of ours is left; return the last line."""
    assert done.returncode == 125, done
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert network.ours() == ""
    assert network.our_routes() == ""
    assert network.foreign() == before
    return done.stderr.splitlines()[-1]


# The mock comes late, or not at all


def test_a_mock_that_starts_late_is_waited_for(network: Network) -> None:
    """The name resolves before the port is open: the wrapper says what it waits for and goes on when it is there."""
    detour, line = waiting(network, "curl", "-sS", "--fail", ID_URL, MOCK_HOSTNAME=MOCK)
    assert line.startswith(f"imds-detour: waiting: {MOCK}:{PORT}: connection refused (")
    network.start_mock()
    out, err = detour.communicate(timeout=20)
    assert (detour.returncode, out) == (0, INSTANCE)
    assert f"verified IMDSv2 {INSTANCE}" in err


NEVER = {
    "nothing listens": ((), "connection refused"),
    "accepts and stalls": (("GET=ok", "PUT=stall"), "it accepts and sends nothing within "),
    "stalls after the token": (("GET=stall",), "it accepts and sends nothing within "),
    "a byte a second": (("GET=slow", "PUT=slow"), "its reply is not complete within "),
    "reset in the head": (("GET=reset",), "connection reset by peer"),
    "ends in the body": (("GET=cut",), "it closed the connection in the middle of its reply"),
    "endless body": (("GET=endless-body",), "its reply is larger than 65536 bytes"),
    "endless headers": (("GET=endless-head",), "its reply is larger than 65536 bytes"),
    "garbage": (("GET=garbage",), "it does not speak HTTP"),
    "TLS": (("GET=tls", "PUT=tls"), "it does not speak HTTP"),
    "redirects": (("GET=301",), "it answers 301 (to 'http://10.0.0.1/elsewhere') to GET /latest/meta-data/instance-id"),
    "404 for ever": (("GET=404",), "it answers 404 to GET /latest/meta-data/instance-id"),
    "500 for ever": (("GET=500", "PUT=500"), "it answers 500 to GET /latest/meta-data/instance-id"),
    "empty answers": (("GET=body:",), "it answers GET /latest/meta-data/instance-id with nothing"),
    "a catch-all page": (("GET=body:<html>hello</html>",), "with b'<html>hello</html>', which is no instance id"),
}


@pytest.mark.parametrize(("plan", "reason"), first_quick(NEVER.values(), 3), ids=NEVER.keys())
def test_what_never_answers_properly_ends_in_125(
    network: Network, start_up: float, plan: tuple[str, ...], reason: str
) -> None:
    """By the deadline it ends, in one line that says what was seen last, and with the firewall as it was."""
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
    # An attempt that lasts until the deadline has no waiting line before the final one.
    assert [line.split(": ")[1] for line in done.stderr.splitlines()[:-1]] in ([], ["waiting"])
    # To half a second is for tests/chaos to judge, which plays again where the machine was busy.
    assert spent < start_up + SHORT + 5


# It answers in its own way

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
def test_a_mock_without_tokens_is_verified_by_imdsv1(network: Network, plan: tuple[str, ...]) -> None:
    """Any HTTP/1.x will do; without a token the probe falls back as SDKs do, and the line says so."""
    network.start_faulty(*plan)
    done = network.detour("echo", "started", MOCK_HOSTNAME=MOCK)
    assert (done.returncode, done.stdout) == (0, "started\n"), done
    assert f"verified IMDSv1 {INSTANCE}, " in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("token", [r"evil\r\nX-Evil: 1", r"two\nlines", r"\xff\xfe\x00", "with blank", "x" * 4097])
def test_a_token_that_is_no_header_value_is_never_sent_on(network: Network, token: str) -> None:
    """A token goes into a request's head: whatever could break that head is taken for no token."""
    server = network.start_faulty("GET=ok", f"PUT=body:{token}")
    done = network.detour("true", MOCK_HOSTNAME=MOCK)
    assert f"verified IMDSv1 {INSTANCE}, " in done.stderr
    server.kill()
    assert (
        server.communicate()[0].splitlines()
        == ["PUT /latest/api/token no token", "GET /latest/meta-data/instance-id no token"] * 2
    )


def test_a_token_is_sent_with_the_question(network: Network) -> None:
    """The negative control of the one above: a good token is sent, trimmed, and the line says IMDSv2."""
    server = network.start_faulty("GET=ok", r"PUT=body:AQAEA==\n")
    assert f"verified IMDSv2 {INSTANCE}, " in network.detour("true", MOCK_HOSTNAME=MOCK).stderr
    server.kill()
    assert server.communicate()[0].count("GET /latest/meta-data/instance-id token=b'AQAEA=='\n") == 2


def test_a_mock_that_requires_tokens_is_verified_by_imdsv2(network: Network) -> None:
    """Where a question without a token is refused, the one with it is answered."""
    network.start_mock("--imdsv2", "required")
    assert f"verified IMDSv2 {INSTANCE}, " in network.detour("true", MOCK_HOSTNAME=MOCK).stderr


def test_a_mock_that_grants_tokens_only_after_a_while_is_the_same_mock(network: Network) -> None:
    """IMDSv1 asked directly and IMDSv2 through the redirect: it is the answer that tells who it is."""
    network.start_faulty("GET=ok", "PUT=500", "PUT=body:token")
    done = network.detour("echo", "started", MOCK_HOSTNAME=MOCK)
    assert (done.returncode, done.stdout) == (0, "started\n"), done


def test_a_mock_that_stumbles_through_the_redirect_is_asked_again(network: Network) -> None:
    """A failure behind the redirect is retried too, and the waiting line says which way the question went."""
    network.start_faulty("GET=ok", "GET=500", "GET=ok")
    done = network.detour("echo", "started", MOCK_HOSTNAME=MOCK)
    assert (done.returncode, done.stdout) == (0, "started\n"), done
    assert f"waiting: {MOCK}:{PORT} through {METADATA}:80: it answers 500 to GET" in done.stderr


def test_a_mock_that_stops_answering_behind_the_redirect_ends_in_125(network: Network) -> None:
    """The direct answer alone is no proof; what was put in is taken out again."""
    network.start_faulty("GET=ok", "GET=404")
    add_foreign_rules(network)
    before = network.foreign()
    done = network.detour("echo", "started", MOCK_HOSTNAME=MOCK, MOCK_TIMEOUT="0.5")
    last = assert_refused(network, done, before)
    assert f"the mock answers at {MOCK}:{PORT} and not through {METADATA}:80: it answers 404 to GET" in last


# MOCK_PROBE


def test_a_path_to_ask_for_may_have_any_stable_answer(network: Network) -> None:
    """MOCK_PROBE=/path takes what the instance id must not be: blanks and several lines."""
    server = network.start_faulty(r"GET=body:<a b>\n two")
    done = network.detour("true", MOCK_HOSTNAME=MOCK, MOCK_PROBE="/my/path?x=1")
    assert done.returncode == 0
    assert done.stderr.count("\n") == 1
    assert r"verified IMDSv1 '<a b>\n two', " in done.stderr
    server.kill()
    assert server.communicate()[0].count("GET /my/path?x=1 no token\n") == 2


def test_a_path_whose_answer_changes_each_time_is_refused_as_such(network: Network) -> None:
    """It is the mock that answers, and the message does not call it somebody else."""
    network.start_faulty("GET=count")
    done = network.detour("echo", "started", MOCK_HOSTNAME=MOCK, MOCK_PROBE="/time")
    last = assert_refused(network, done, network.foreign())
    assert f"the mock at {MOCK}:{PORT} answers GET /time differently each time: IMDSv1 2, IMDSv1 6" in last
    assert "let MOCK_PROBE name a path whose answer stays the same" in last


def test_a_mock_that_changes_its_answer_once_is_still_the_mock(network: Network) -> None:
    """It was restarted with other data between the two questions: asked directly again, it says the same."""
    network.start_faulty("GET=body:i-before", "GET=body:i-after")
    done = network.detour("echo", "started", MOCK_HOSTNAME=MOCK)
    assert (done.returncode, done.stdout) == (0, "started\n"), done


def test_without_a_probe_no_request_reaches_the_mock(network: Network) -> None:
    """MOCK_PROBE=off redirects and starts the app, and the line says that nothing was verified."""
    server = network.start_faulty("GET=ok")
    done = network.detour("echo", "started", MOCK_HOSTNAME=MOCK, MOCK_PROBE="off")
    assert (done.returncode, done.stdout) == (0, "started\n")
    assert "not verified (MOCK_PROBE=off)" in done.stderr
    server.kill()
    assert server.communicate()[0] == ""


# Somebody else answers


@pytest.mark.usefixtures("real")
def test_somebody_else_at_the_metadata_address_ends_in_125(network: Network) -> None:
    """A foreign rule sends the address to a real service: the app is not started, and the line says who answered."""
    network.start_mock()
    add_foreign_rules(network)
    send_metadata_to(network, REAL, "80")
    before = network.foreign()
    done = network.detour("echo", "started", MOCK_HOSTNAME=MOCK)
    last = assert_refused(network, done, before)
    assert f"another service answers at {METADATA}:80: IMDSv2 {REAL_INSTANCE}" in last
    assert f"the mock at {MOCK}:{PORT} is IMDSv2 {INSTANCE}" in last


@pytest.mark.usefixtures("real")
def test_without_verification_the_app_would_have_met_the_real_service(network: Network) -> None:
    """The negative control: in that same network, MOCK_PROBE=off starts an app that reads somebody's real identity."""
    network.start_mock()
    send_metadata_to(network, REAL, "80")
    done = network.detour("curl", "-sS", "--fail", ID_URL, MOCK_HOSTNAME=MOCK, MOCK_PROBE="off")
    assert (done.returncode, done.stdout) == (0, REAL_INSTANCE)


def test_the_mock_by_somebody_elses_rule_is_no_proof(network: Network) -> None:
    """The answer is right, and our rule's counter stands still: that redirect is not ours to rely on."""
    network.start_mock()
    send_metadata_to(network, MOCK, PORT)
    before = network.foreign()
    last = assert_refused(network, network.detour("echo", "started", MOCK_HOSTNAME=MOCK), before)
    assert f"{METADATA}:80 answers like the mock, but not by our rule: its counter does not rise" in last


def test_a_foreign_rule_that_leads_nowhere_ends_in_125(network: Network) -> None:
    """The mock answers directly and nobody at the metadata address: the line says both."""
    network.start_mock()
    send_metadata_to(network, MOCK, "9")
    before = network.foreign()
    last = assert_refused(network, network.detour("echo", "started", MOCK_HOSTNAME=MOCK, MOCK_TIMEOUT="0.5"), before)
    assert f"the mock answers at {MOCK}:{PORT} and not through {METADATA}:80: connection refused" in last


# The guard

PACKETS = ("iptables-legacy", "-t", "raw", "-A", "PREROUTING", "-d", METADATA, "-j", "ACCEPT")
"""Counts, on the mock's host, every packet that has left the app's host for the metadata address."""
ASK_AROUND = f"""\
import errno, socket
def outcome(act):
    try:
        return act() or "sent"
    except OSError as error:
        return errno.errorcode[error.errno]
def icmp():
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as raw:
        raw.sendto(bytes.fromhex("0800f7ff00000000"), ("{METADATA}", 0))
def udp():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.sendto(b"x", ("{METADATA}", 53))
print(outcome(lambda: socket.create_connection(("{METADATA}", 8080), 2).close()), outcome(udp), outcome(icmp))
"""


@pytest.fixture
def cloud(network: Network) -> Network:
    """Make the network a cloud machine: behind the default route, a real service answers at the metadata address."""
    network.mock.ip("address", "add", f"{METADATA}/32", "dev", "lo")
    network.start_real_service(network.mock, "80", REAL_INSTANCE)
    network.start_real_service(network.mock, "8080", REAL_INSTANCE)
    network.mock.run(*PACKETS)
    return network


def leaked(network: Network) -> int:
    """Return how many packets the real service's host has seen."""
    listing = network.mock.run("iptables-legacy", "-t", "raw", "-L", "PREROUTING", "-n", "-v", "-x").stdout
    return int(listing.splitlines()[2].split()[0])


def test_the_real_service_is_in_reach_without_us(cloud: Network) -> None:
    """The negative control of this part: an app without imds-detour reads somebody's real identity."""
    assert cloud.app.run("curl", "-sS", "--fail", ID_URL).stdout == REAL_INSTANCE
    assert leaked(cloud) > 0


def test_while_the_mock_is_not_there_nobody_reaches_the_real_service(cloud: Network) -> None:
    """With a silent DNS server the guard already stands: everybody in the app's namespace is refused at once."""
    cloud.start_dns("silent")
    detour, _line = waiting(cloud, "echo", "started")
    asked = cloud.app.run("curl", "-sS", "--max-time", "5", ID_URL, check=False)
    around = cloud.app.run("python3", "-c", ASK_AROUND).stdout
    detour.terminate()
    detour.communicate(timeout=10)
    assert (asked.returncode, asked.stdout) == (7, ""), asked  # curl: failed to connect
    assert around == "ECONNREFUSED EPERM EPERM\n"
    assert leaked(cloud) == 0


def test_what_is_not_redirected_is_refused_at_once(cloud: Network) -> None:
    """For the app, port 80 is the mock; other ports, UDP and ICMP do not leave."""
    cloud.start_mock()
    done = cloud.detour(
        "sh", "-c", f"curl -sS --fail {ID_URL}; echo; exec python3 -c '{ASK_AROUND}'", MOCK_HOSTNAME=MOCK
    )
    assert done.stdout == f"{INSTANCE}\nECONNREFUSED EPERM EPERM\n"
    assert leaked(cloud) == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_without_the_guard_other_ports_reach_the_real_service(cloud: Network, backend: str) -> None:
    """The negative control of the one above: MOCK_GUARD=off puts no guard in, and port 8080 is somebody's."""
    cloud.start_mock()
    url = f"http://{METADATA}:8080/latest/meta-data/instance-id"
    cloud.wanted = {"MOCK_HOSTNAME": MOCK, "MOCK_BACKEND": backend}
    done = cloud.detour("curl", "-sS", "--fail", url, ID_URL, MOCK_GUARD="off")
    assert (done.returncode, done.stdout) == (0, f"{REAL_INSTANCE}{INSTANCE}")
    listed = cloud.app.run("sh", "-c", rules_listing.LISTED).stdout
    assert (rules_listing.redirected(listed), rules_listing.guarded(listed)) == ({METADATA}, set())
    # The control: with it, that port is closed.
    assert cloud.detour("curl", "-sS", "--fail", url).returncode == 7


def test_a_connection_opened_before_is_cut(cloud: Network) -> None:
    """Whoever spoke to the real service before the start gets no further answer from it."""
    script = (
        "import socket, sys\n"
        f"one = socket.create_connection(('{METADATA}', 80), 5)\n"
        "print('open', flush=True)\n"
        "sys.stdin.readline()\n"
        "one.sendall(b'GET /latest/meta-data/instance-id HTTP/1.0\\r\\n\\r\\n')\n"
        "try:\n    print(one.recv(4096))\n"
        "except ConnectionResetError:\n    print('reset')\n"
    )
    early = cloud.app.popen("python3", "-c", script, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert early.stdout is not None
    assert early.stdout.readline() == "open\n"
    cloud.start_mock()
    assert cloud.detour("true", MOCK_HOSTNAME=MOCK).returncode == 0
    assert early.communicate("go\n", timeout=10)[0] == "reset\n"


def test_the_app_of_a_verified_start_is_asked_for_from_its_own_address(network: Network) -> None:
    """Probe and app both arrive as the app's host, the probe twice: directly and through the redirect."""
    server = network.start_mock()
    assert network.detour("true", MOCK_HOSTNAME=MOCK).returncode == 0
    server.terminate()
    assert server.communicate()[0].count(f"{APP} GET /latest/meta-data/instance-id 200") == 2
