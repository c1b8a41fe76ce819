"""Lookup of the mock's name: the installed command with a DNS server that fails in planned ways."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from imds_detour.ctl.lab.hosts import environ
from tests.support.hosts.network import CTL, DETOUR, FAULTY_DNS, INSTANCE, METADATA, MOCK, NAME, PORT, Network
from tests.support.judges.processes import processes_in
from tests.support.marks import first_quick

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

    from imds_detour.ctl.lab.hosts import Host

RIGHT = f"{NAME}={MOCK}"
LOWER, HIGHER = "10.88.0.1", "10.88.0.9"  # addresses before and after MOCK, unused unless a test adds them
SYSTEM = "says the system resolver"
SERVER = f"says the DNS server {MOCK}"

FAULTS = {
    "NXDOMAIN": f"{MOCK} says there is no such name (NXDOMAIN)",
    "SERVFAIL": f"{MOCK} answers SERVFAIL",
    "REFUSED": f"{MOCK} answers REFUSED",
    "silent": f"{MOCK} sends no proper reply",
    "empty": f"{MOCK} knows the name, but no address for it (empty answer)",
    "garbage": f"{MOCK} sends no proper reply",
    f"wrong-id:{RIGHT}": f"{MOCK} sends no proper reply",
    "truncated": f"{MOCK} closes the connection over TCP without a reply",
    "dangling": f"{MOCK} knows the name, but no address for it (empty answer)",
    "loop": f"{MOCK} sends no valid reply: ChainTooLong",
    f"{NAME}=fd00::3": f"{NAME} has IPv6 addresses only (fd00::3), and there is no IPv6 in this network namespace",
}
"""The faults of the DNS server, and the text of each in the final line."""


def assert_failed(network: Network, done: subprocess.CompletedProcess[str]) -> str:
    """Assert that a start failed and left no rules or processes, and return its last line on stderr."""
    assert done.returncode == 125, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert network.detour_rules() == ""
    assert processes_in(network.app) == ()
    return done.stderr.splitlines()[-1].removeprefix("imds-detour: ")


def redirect_target(network: Network) -> str:
    """Return the target of the redirect in the kernel."""
    match = re.search(r"--to-destination (\S+)", network.detour_rules())
    assert match, network.rules()
    return match[1]


def questions(server: subprocess.Popen[str]) -> list[str]:
    """Stop a DNS server and return the questions that it received."""
    server.terminate()
    return server.communicate()[0].splitlines()


def getent(network: Network, name: str = NAME) -> str:
    """Return the first address that libc gives the app without imds-detour; empty if there is none."""
    return network.app.run("getent", "ahostsv4", name, check=False).stdout.partition(" ")[0]


@contextmanager
def waiting(network: Network, *command: str, timeout: str = "10") -> Iterator[subprocess.Popen[str]]:
    """Start imds-detour, yield it after its first waiting line, and kill it at the end."""
    process = network.app.popen(
        DETOUR, *command, environ=network.settings(MOCK_TIMEOUT=timeout), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    with process:
        try:
            line = process.stderr.readline()
            assert line.startswith("imds-detour: waiting: "), line
            yield process
        finally:
            process.kill()


# A working DNS server.


@pytest.mark.slow
def test_an_ip_literal_needs_no_dns(network: Network) -> None:
    """A start with an IP address as the mock sends no DNS question."""
    dns = network.start_dns("NXDOMAIN")
    network.start_mock()
    done = network.detour("true", MOCK_HOSTNAME=MOCK)
    assert done.returncode == 0
    assert f" -> {MOCK}:{PORT}, " in done.stderr
    assert questions(dns) == []


@pytest.mark.slow
def test_a_name_needs_two_dns_questions(network: Network) -> None:
    """A start sends one question for A and one for AAAA, as libc does."""
    dns = network.start_dns()
    network.start_mock()
    assert network.detour("true").returncode == 0
    assert sorted(questions(dns)) == [f"udp A {NAME}.", f"udp AAAA {NAME}."]


def test_etc_hosts_has_priority_over_dns(network: Network) -> None:
    """With a line in /etc/hosts a start uses its address, as libc does, and sends no DNS question."""
    other = network.start_dns(f"{NAME}={HIGHER}")
    assert getent(network) == HIGHER
    other.kill()
    dns = network.start_dns(f"{NAME}={HIGHER}")
    network.app.write("hosts", f"{MOCK} {NAME}\n")
    assert getent(network) == MOCK
    assert network.detour("true", MOCK_PROBE="off").returncode == 0
    assert redirect_target(network) == f"{MOCK}:{PORT}"
    assert questions(dns) == []


def test_etc_hosts_works_without_a_dns_server(network: Network) -> None:
    """With a line in /etc/hosts a start succeeds without any DNS server."""
    network.app.write("resolv.conf", "")
    network.app.write("hosts", f"{MOCK} {NAME}\n")
    network.start_mock()
    assert network.detour("true").returncode == 0


@pytest.mark.parametrize(("half", "source"), [("", SYSTEM), ("half:", SERVER)], ids=["libc", "dnspython"])
@pytest.mark.parametrize(
    ("resolv_conf", "name", "expected"),
    first_quick(
        [
            ("search lab.test\n", NAME, MOCK),
            ("search other.test lab.test\n", NAME, MOCK),
            ("domain lab.test\n", NAME, MOCK),
            ("search test\n", "mock.lab", HIGHER),
            ("search test\noptions ndots:2\n", "mock.lab", MOCK),
            ("search test\noptions ndots:2\n", "mock.lab.", HIGHER),
        ]
    ),
    ids=["search", "second", "domain", "dot", "ndots", "absolute"],
)
def test_search_domains_match_libc(  # noqa: PLR0917  (parametrised)
    network: Network, half: str, source: str, resolv_conf: str, name: str, expected: str
) -> None:
    """Lookups by libc and by dnspython honour the search list and ndots, as libc does for the app."""
    zone = f"{NAME}.lab.test={MOCK}+mock.lab.test={MOCK}+mock.lab={HIGHER}"
    server = network.start_dns(zone)
    assert getent(network, name) == (HIGHER if name != NAME else ""), "the address differs without the search line"
    network.app.write("resolv.conf", f"{resolv_conf}nameserver {MOCK}\n")
    assert getent(network, name) == expected
    server.kill()
    network.start_dns(f"{half}{zone}")
    done = network.detour("true", MOCK_HOSTNAME=name, MOCK_PROBE="off", MOCK_LOG="debug")
    assert done.returncode == 0
    assert redirect_target(network) == f"{expected}:{PORT}"
    assert source in done.stderr


# Faulty DNS servers.


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_permanent_fault_ends_at_the_timeout(permanent: dict[str, tuple[str, float]], fault: str) -> None:
    """With a permanent DNS fault a start exits with 125 at the timeout and names the fault.

    It logs one waiting line, or none if the first attempt lasts until the timeout, as on a busy machine.
    """
    stderr, took = permanent[fault]
    *waiting_lines, line = stderr.splitlines()
    reason = FAULTS[fault] if "IPv6" in FAULTS[fault] else f"cannot resolve {NAME}: {FAULTS[fault]}"
    remedy = "start it, or correct its name in MOCK_HOSTNAME or MOCK_ENDPOINTS; MOCK_TIMEOUT is how long to wait"
    assert len(waiting_lines) <= 1
    assert all(waited.startswith(f"imds-detour: waiting: {reason} (") for waited in waiting_lines)
    assert line == f"imds-detour: no mock after 1.4 s: {reason}; {remedy}"
    assert 1.4 <= took < 2.4


@pytest.fixture(scope="module")
def permanent() -> dict[str, tuple[str, float]]:
    """Return stderr and the duration of a failed start, for each fault."""

    def start(fault: str) -> tuple[str, float]:
        with Network() as network:
            network.without_ipv6()
            network.start_dns(fault)
            began = time.monotonic()
            done = network.detour("touch", "/run/started", MOCK_TIMEOUT="1.4")
            took = time.monotonic() - began
            assert_failed(network, done)
            assert network.app.run("test", "-e", "/run/started", check=False).returncode == 1
            return done.stderr, took

    return run_all_faults(start)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_temporary_fault_delays_the_start(temporary: dict[str, tuple[str, float]], fault: str) -> None:
    """The app starts within 0.9 s after a temporary DNS fault ends."""
    stderr, late = temporary[fault]
    assert stderr.splitlines()[-1].startswith(f"imds-detour: {METADATA}:80 -> {NAME} ({MOCK}:{PORT}), ")
    assert -0.01 < late < 0.9


@pytest.fixture(scope="module")
def temporary() -> dict[str, tuple[str, float]]:
    """Return stderr of a start, and the app's delay after the end of the fault, for each fault."""

    def start(fault: str) -> tuple[str, float]:
        with Network() as network:
            dns = network.start_dns(f"{fault}@0.4", RIGHT)
            network.start_mock()
            assert dns.stdout is not None
            process = network.app.popen(
                DETOUR, "echo", "started", environ=network.settings(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            with process:
                assert process.stdout is not None
                assert dns.stdout.readline()  # the first question, from which the plan counts
                asked = time.monotonic()
                assert process.stdout.readline() == "started\n"
                late = time.monotonic() - asked - 0.4
                _, stderr = process.communicate()
            assert process.returncode == 0
            return stderr, late

    return run_all_faults(start)


def run_all_faults(start: Callable[[str], tuple[str, float]]) -> dict[str, tuple[str, float]]:
    """Run a start for each fault, four at a time."""
    with ThreadPoolExecutor(4) as executor:
        return dict(zip(FAULTS, executor.map(start, FAULTS), strict=True))


def test_a_truncated_reply_is_repeated_over_tcp(network: Network) -> None:
    """A truncated UDP reply causes a question over TCP, and the start logs no wait."""
    dns = network.start_dns(f"truncated:{RIGHT}")
    network.start_mock()
    done = network.detour("true")
    assert done.returncode == 0
    assert "waiting" not in done.stderr
    assert f"tcp A {NAME}." in questions(dns)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("verdict", "words"),
    [("REJECT", "cannot be asked over TCP: Connection refused"), ("DROP", "sends no proper reply over TCP")],
)
def test_a_truncated_reply_without_tcp_names_tcp(network: Network, verdict: str, words: str) -> None:
    """If a firewall blocks DNS over TCP, the final line after a truncated reply names TCP."""
    how = ["--reject-with", "tcp-reset"] if verdict == "REJECT" else []
    network.mock.run("iptables-legacy", "-A", "INPUT", "-p", "tcp", "--dport", "53", "-j", verdict, *how)
    network.start_dns(f"truncated:{RIGHT}")
    line = assert_failed(network, network.detour("true", MOCK_TIMEOUT="0.8"))
    assert line.startswith(f"no mock after 0.8 s: cannot resolve {NAME}: {MOCK} {words}")


@pytest.mark.slow
def test_an_ipv4_reply_is_sufficient(network: Network) -> None:
    """Without a reply for AAAA, libc waits for seconds; a start uses dnspython's A reply within 1.5 s."""
    network.start_dns(f"half:{RIGHT}")
    network.start_mock()
    began = time.monotonic()
    assert getent(network) == MOCK  # control: ahostsv4 asks for A only, so it is quick
    assert network.detour("true", MOCK_TIMEOUT="3").returncode == 0
    assert time.monotonic() - began < 1.5


def test_an_alias_chain_gives_the_address(network: Network) -> None:
    """A chain of CNAME records gives the mock's address without a wait."""
    network.start_dns(f"cname:{RIGHT}")
    network.start_mock()
    done = network.detour("true")
    assert done.returncode == 0
    assert f"({MOCK}:{PORT})" in done.stderr
    assert "waiting" not in done.stderr


# Several DNS servers, or none.


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "plan"),
    [("203.0.113.9", None), ("10.88.0.4", None), ("10.88.0.4", "silent"), ("10.88.0.4", "REFUSED")],
    ids=["unroutable", "not listening", "silent", "refusing"],
)
def test_a_second_server_replaces_a_faulty_first(network: Network, first: str, plan: str | None) -> None:
    """With a faulty first DNS server a start uses the second within 1.6 s, before libc's timeout."""
    if first == "203.0.113.9":
        network.app.ip("route", "del", "default")
    network.mock.ip("address", "add", "10.88.0.4/24", "dev", "eth0")
    if plan:
        network.start(network.mock, sys.executable, FAULTY_DNS, "10.88.0.4", plan)
    network.app.write("resolv.conf", f"nameserver {first}\nnameserver {MOCK}\n")
    network.start_dns()
    network.start_mock()
    began = time.monotonic()
    done = network.detour("true")
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - began < 1.6


@pytest.mark.slow
def test_the_final_line_quotes_the_last_server(network: Network) -> None:
    """With two faulty DNS servers the final line quotes the last one that was asked."""
    network.mock.ip("address", "add", "10.88.0.4/24", "dev", "eth0")
    network.start(network.mock, sys.executable, FAULTY_DNS, "10.88.0.4", "SERVFAIL")
    network.start_dns("REFUSED")
    network.app.write("resolv.conf", f"nameserver {MOCK}\nnameserver 10.88.0.4\n")
    assert "10.88.0.4 answers SERVFAIL" in assert_failed(network, network.detour("true", MOCK_TIMEOUT="4"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    ["", "nameserver\n", "nameserver 1.2.3 \nsearch a..b\noptions ndots:x\n", "\0\n;\nÿ ÿ\nnameserver https://x/\n"],
)
def test_a_resolv_conf_without_a_server_is_reported(network: Network, text: str) -> None:
    """The final line names /etc/resolv.conf when that file is empty or invalid."""
    network.app.write("resolv.conf", text)
    line = assert_failed(network, network.detour("true", MOCK_TIMEOUT="0.4"))
    assert line.startswith(f"no mock after 0.4 s: cannot resolve {NAME}: /etc/resolv.conf names no DNS server; ")


@pytest.mark.slow
def test_invalid_lines_in_resolv_conf_are_skipped(network: Network) -> None:
    """Invalid lines in /etc/resolv.conf are skipped, as by libc, and valid lines are used."""
    garbage = f"nameserver nonsense\nsearch a..b {'x' * 70}\noptions ndots:x timeout:\n\0\nÿ ÿ\n"
    network.app.write("resolv.conf", f"{garbage}nameserver {MOCK}\nnameserver 1.2.3.4.5\n")
    network.start_dns(f"half:{RIGHT}")
    done = network.detour("true", MOCK_PROBE="off", MOCK_LOG="debug")
    assert done.returncode == 0, done.stderr
    assert SERVER in done.stderr


@pytest.mark.slow
def test_an_invalid_host_name_is_accepted(network: Network) -> None:
    """With a container name of 64 characters, which is no DNS name, lookups work and failures take one line."""
    script = f'hostname {"h" * 64} && exec "$@"'
    command = ("unshare", "--uts", "sh", "-c", script, "sh", DETOUR, "true")
    line = assert_failed(network, network.app.run(*command, environ=network.settings(MOCK_TIMEOUT="0.4"), check=False))
    assert line.startswith(f"no mock after 0.4 s: cannot resolve {NAME}: ")
    network.start_dns()
    network.start_mock()
    done = network.app.run(*command, environ=network.settings(), check=False)
    assert done.returncode == 0, done.stderr


def test_a_late_dns_server_is_used(network: Network) -> None:
    """A start uses a DNS server that is started and added to /etc/resolv.conf during the wait."""
    network.app.write("resolv.conf", "")
    network.start_mock()
    with waiting(network, "echo", "started") as process:
        assert process.stdout is not None
        network.start_dns()
        network.app.write("resolv.conf", f"nameserver {MOCK}\n")
        assert process.stdout.readline() == "started\n"


# The choice of the address.


@pytest.mark.parametrize(
    ("address", "why"),
    [
        (METADATA, "it is a metadata address, so the redirect would be a loop"),
        ("169.254.170.2", "it is a metadata address, so the redirect would be a loop"),
        ("0.0.0.0", "it is the unspecified address"),
        ("224.0.0.1", "it is a multicast address"),
        ("255.255.255.255", "it is the broadcast address"),
    ],
)
def test_an_impossible_mock_address_is_refused_at_once(network: Network, address: str, why: str) -> None:
    """An address that cannot be a mock's exits with 125 without a wait; the line names address, reason and source."""
    network.start_dns(f"{NAME}={address}")
    began = time.monotonic()
    line = assert_failed(network, network.detour("true"))
    assert time.monotonic() - began < 1.5
    assert line.startswith(f"{NAME} resolves to {address}, and no mock can be there: {why}")
    assert "(said the system resolver); " in line


@pytest.mark.slow
def test_an_invalid_address_from_dnspython_is_refused(network: Network) -> None:
    """An address from dnspython that cannot be a mock's is refused, and the line names the DNS server."""
    network.start_dns(f"half:{NAME}=0.0.0.0,{METADATA}")
    line = assert_failed(network, network.detour("true"))
    assert line.startswith(f"{NAME} resolves to 0.0.0.0, and no mock can be there: it is the unspecified address")
    assert f"(said the DNS server {MOCK}); " in line


def test_a_valid_address_among_invalid_ones_is_used(network: Network) -> None:
    """A start skips addresses that cannot be a mock's and uses the valid one."""
    network.start_dns(f"{NAME}=0.0.0.0,{METADATA},{MOCK},255.255.255.255")
    network.start_mock()
    assert network.detour("true").returncode == 0
    assert redirect_target(network) == f"{MOCK}:{PORT}"


@pytest.mark.slow
@pytest.mark.parametrize("half", ["", "half:"])
def test_the_choice_among_addresses_is_stable(network: Network, half: str) -> None:
    """Each start chooses the same address when the DNS server rotates its replies."""
    rotated = [f"{NAME}={HIGHER},{MOCK},10.88.0.5", f"{NAME}=10.88.0.5,{HIGHER},{MOCK}"]
    for zone in rotated:
        server = network.start_dns(half + zone)
        assert network.detour("true", MOCK_PROBE="off").returncode == 0
        assert redirect_target(network) == f"{MOCK}:{PORT}"
        server.kill()
        server.wait()


@pytest.mark.slow
@pytest.mark.parametrize("present", [True, False], ids=["nothing listens", "no host"])
def test_an_address_without_a_mock_is_skipped(network: Network, *, present: bool) -> None:
    """If the first address fails its probe, a start uses the next at once, even with a short timeout."""
    if present:
        network.mock.ip("address", "add", f"{LOWER}/24", "dev", "eth0")
    network.start(network.mock, CTL, "mock", "--listen", f"{MOCK}:{PORT}")
    network.start_dns(f"{NAME}={LOWER},{MOCK}")
    done = network.detour("true", MOCK_TIMEOUT="2")
    assert done.returncode == 0, done.stderr
    assert redirect_target(network) == f"{MOCK}:{PORT}"
    assert f" -> {NAME} ({MOCK}:{PORT}), " in done.stderr
    assert "waiting" not in done.stderr


@pytest.mark.slow
def test_the_lookup_is_repeated_until_a_mock_answers(network: Network) -> None:
    """During the wait a start repeats the lookup, and uses the new address of a mock that moved."""
    network.mock.ip("address", "add", f"{LOWER}/24", "dev", "eth0")
    network.start(network.mock, CTL, "mock", "--listen", f"{MOCK}:{PORT}")
    network.start_dns(f"{NAME}={LOWER}@1", RIGHT)
    done = network.detour("true", MOCK_TIMEOUT="5")
    assert done.returncode == 0, done.stderr
    assert redirect_target(network) == f"{MOCK}:{PORT}"
    assert f"waiting: {NAME} ({LOWER}:{PORT}): connection refused (" in done.stderr


# The wait.


@pytest.mark.slow
@pytest.mark.parametrize("dns", ["NXDOMAIN", "silent"])
def test_a_new_line_in_etc_hosts_ends_the_wait(network: Network, dns: str) -> None:
    """A new line in /etc/hosts ends the wait, even while libc waits for a silent DNS server."""
    network.start_mock()
    network.start_dns(dns)
    with waiting(network, "echo", "started") as process:
        assert process.stdout is not None
        network.app.write("hosts", f"{MOCK} {NAME}\n")
        written = time.monotonic()
        assert process.stdout.readline() == "started\n"
        assert time.monotonic() - written < 2.2


def test_a_corrected_dns_reply_starts_the_app(network: Network) -> None:
    """The app starts within 0.6 s after a DNS server replaces NXDOMAIN by the correct reply."""
    dns = network.start_dns("NXDOMAIN@1", RIGHT)
    network.start_mock()
    assert dns.stdout is not None
    with waiting(network, "echo", "started") as process:
        assert process.stdout is not None
        assert dns.stdout.readline()
        asked = time.monotonic()  # slightly late: after the first waiting line
        assert process.stdout.readline() == "started\n"
        assert time.monotonic() - asked - 1 < 0.6


@pytest.mark.slow
@pytest.mark.parametrize("plan", ["silent", "NXDOMAIN"])
@pytest.mark.parametrize("when", ["first question", "first line", "later"])
def test_sigterm_ends_an_unlimited_wait(network: Network, plan: str, when: str) -> None:
    """With MOCK_TIMEOUT=0 SIGTERM ends a wait within 0.1 s with exit status 143, and leaves no processes."""
    dns = network.start_dns(plan)
    assert dns.stdout is not None
    process = network.app.popen(DETOUR, "true", environ=network.settings(MOCK_TIMEOUT="0"), stderr=subprocess.PIPE)
    with process:
        assert process.stderr is not None
        assert dns.stdout.readline()
        if when != "first question":
            assert "waiting: " in process.stderr.readline()
        if when == "later":
            for _ in range(3):
                assert dns.stdout.readline()
        sent = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 143
        assert time.monotonic() - sent < 0.1
    assert wait_until_empty(network.app)


def wait_until_empty(host: Host) -> bool:
    """Return whether a host's processes end within 0.5 s, since a helper takes a moment to notice."""
    end = time.monotonic() + 0.5
    while processes_in(host):
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


@pytest.mark.slow
@pytest.mark.parametrize("seconds", ["0.05", "0.3"])
def test_a_short_timeout_reports_the_fault(network: Network, seconds: str) -> None:
    """With a very short timeout the final line still quotes a DNS server that replies at once."""
    network.start_dns("NXDOMAIN")
    line = assert_failed(network, network.detour("true", MOCK_TIMEOUT=seconds))
    assert line.startswith(f"no mock after {seconds} s: cannot resolve {NAME}: {FAULTS['NXDOMAIN']}; ")


def test_a_failed_lookup_is_logged_as_json(network: Network) -> None:
    """With MOCK_LOG=json a failed lookup gives an object with event, step and reason."""
    network.start_dns("NXDOMAIN")
    done = network.detour("true", MOCK_TIMEOUT="0.3", MOCK_LOG="json")
    assert assert_failed(network, done).startswith(
        '{"event": "failed", "step": "lookup", "reason": "no mock after 0.3 s: '
    )


def test_the_check_for_leftovers_detects_them(network: Network) -> None:
    """Control: the check for leftovers of a failed start detects a process and a rule."""
    script = "echo started; exec cat"
    with network.app.popen(
        "sh", "-c", script, stdin=subprocess.PIPE, stdout=subprocess.PIPE, environ=environ()
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "started\n"
        assert len(processes_in(network.app)) == 1
        other.stdin.close()
    assert network.detour("true", MOCK_HOSTNAME=MOCK, MOCK_PROBE="off").returncode == 0
    assert network.detour_rules()


@pytest.mark.slow
def test_a_late_alias_chain_with_two_addresses_works(network: Network) -> None:
    """After a temporary fault, a start follows an alias chain to the second address, and logs two lines."""
    network.mock.ip("address", "add", f"{LOWER}/24", "dev", "eth0")
    network.start(network.mock, CTL, "mock", "--listen", f"{MOCK}:{PORT}")
    network.start_dns("SERVFAIL@0.3", f"cname:{NAME}={LOWER},{MOCK}")
    done = network.detour("true")
    assert done.returncode == 0
    wait_line, success = done.stderr.splitlines()
    assert wait_line.startswith(f"imds-detour: waiting: cannot resolve {NAME}: {MOCK} answers SERVFAIL (0.")
    assert f" -> {NAME} ({MOCK}:{PORT}), legacy iptables, verified IMDSv2 {INSTANCE}, " in success


@pytest.fixture(scope="module", autouse=True)
def long_wait() -> Iterator[Future[tuple[list[tuple[float, str]], int]]]:
    """Start a wait of 6.8 s for a silent server in the background of the other tests."""

    def start() -> tuple[list[tuple[float, str]], int]:
        with Network() as network:
            network.start_dns("silent")
            command = network.app.popen(
                DETOUR, "true", environ=network.settings(MOCK_TIMEOUT="6.8"), stderr=subprocess.PIPE
            )
            lines, threads = [], 0
            with command as process:
                assert process.stderr is not None
                for line in process.stderr:
                    lines.append((time.monotonic(), line))
                    if len(lines) == 2:
                        with open(f"/proc/{process.pid}/status") as status:
                            threads = int(status.read().partition("Threads:")[2].split()[0])
            assert process.returncode == 125
            return lines, threads

    with ThreadPoolExecutor(1) as executor:
        yield executor.submit(start)


def test_a_long_wait_logs_three_lines(long_wait: Future[tuple[list[tuple[float, str]], int]]) -> None:
    """A wait of 6.8 s logs a line at the start, after 5 s and at the end, and uses at most 6 threads."""
    ((first, _), (second, line), (_, last)), threads = long_wait.result()
    assert re.fullmatch(r"imds-detour: waiting: cannot resolve .* \([56]\.[0-9] of 6.8 s\)\n", line)
    assert 4.95 < second - first < 5.8
    assert last.startswith("imds-detour: no mock after 6.8 s: ")
    assert 2 <= threads <= 6


IN_PLACE = """
case $2 in fifo) mkfifo /run/odd ;; huge) truncate -s 20G /run/odd ;; *) ln -s $2 /run/odd ;; esac
mount --bind $(readlink -f /run/odd) $1
shift 2
exec "$@"
"""
"""Put something else in place of a file in /etc, and execute a command. Huge files are sparse."""
ODD_FILES = [
    *[("nsswitch.conf", kind, {}, "") for kind in ("fifo", "/dev/zero", "huge")],
    *[("hosts", kind, {}, "") for kind in ("fifo", "/dev/zero", "huge")],
    ("hosts", "fifo", {"MOCK_ENDPOINTS": "gcp"}, "cannot write /etc/hosts, and SDKs use the name"),
    *[("resolv.conf", kind, {}, "/etc/resolv.conf cannot be read: ") for kind in ("fifo", "/dev/zero")],
    *[
        ("passwd", kind, {"MOCK_USER": "app"}, "cannot read /etc/passwd: it is")
        for kind in ("fifo", "/dev/zero", "huge")
    ],
    ("group", "fifo", {"MOCK_USER": "root:app"}, "cannot read /etc/group: it is not a regular file"),
]


def in_place(
    network: Network, name: str, kind: str, *command: str, **settings: str
) -> subprocess.CompletedProcess[str]:
    """Run a command with at most a gigabyte of memory, and something else in place of a file in /etc."""
    words = ("unshare", "--mount", "sh", "-euc", IN_PLACE, "sh", f"/etc/{name}", kind, "prlimit", f"--as={1 << 30}")
    environ = network.settings(None, MOCK_TIMEOUT="1", **settings)
    return network.app.run(*words, *command, environ=environ, timeout=20, check=False)


@pytest.mark.parametrize(("name", "kind", "settings", "reason"), ODD_FILES)
def test_what_is_in_place_of_a_file_holds_no_start(
    network: Network, name: str, kind: str, settings: dict[str, str], reason: str
) -> None:
    """A FIFO, a device or a huge file in /etc is ignored where DNS has the answer, or is the reason of the failure."""
    network.start_dns()
    network.start_mock()
    done = in_place(network, name, kind, DETOUR, "true", **settings)
    assert (done.returncode, reason in done.stderr) == (125 if reason else 0, True), done.stderr


def test_what_is_in_place_of_a_file_holds_libc(network: Network) -> None:
    """The control: libc waits for a FIFO, and a regular copy in the same place is used."""
    network.start_dns()
    assert in_place(network, "hosts", "fifo", "timeout", "0.5", "getent", "hosts", NAME).returncode == 124
    network.app.run("sh", "-c", f"rm /run/odd; echo {MOCK} other > /run/copy")
    assert in_place(network, "hosts", "/run/copy", "getent", "hosts", "other").returncode == 0
