"""From the mock's name to its address: the installed command against a real DNS server that misbehaves by plan."""

from __future__ import annotations

import os
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
from tests.support.marks import first_quick

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

    from imds_detour.ctl.lab.hosts import Host

RIGHT = f"{NAME}={MOCK}"
LOWER, HIGHER = "10.88.0.1", "10.88.0.9"  # addresses before and behind MOCK, where nobody is unless a test says so
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
    f"{NAME}=fd00::3": f"{NAME} has IPv6 addresses only (fd00::3), and there is no IPv6 here",
}
"""What a server may do wrong, and how the final line puts it."""


def failed(network: Network, done: subprocess.CompletedProcess[str]) -> str:
    """Check that a start failed as all must, with nothing left behind, and return the last line on stderr."""
    assert done.returncode == 125, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert network.ours() == ""
    assert inhabitants(network.app) == []
    return done.stderr.splitlines()[-1].removeprefix("imds-detour: ")


def inhabitants(host: Host) -> list[str]:
    """Return the processes in a host's network namespace, the one that holds it excepted."""
    home = os.readlink(f"/proc/{host.pid}/ns/net")
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            there = os.readlink(f"/proc/{pid}/ns/net") == home
        except OSError:
            continue  # it has ended
        if there and int(pid) != host.pid:
            found.append(pid)
    return found


def target(network: Network) -> str:
    """Return where the rule in the kernel leads to."""
    found = re.search(r"--to-destination (\S+)", network.ours())
    assert found, network.rules()
    return found[1]


def questions(server: subprocess.Popen[str]) -> list[str]:
    """End a DNS server and return the questions that it was asked."""
    server.terminate()
    return server.communicate()[0].splitlines()


def getent(network: Network, name: str = NAME) -> str:
    """Return the first address that the app itself would see, by libc and without us; empty when it sees none."""
    return network.app.run("getent", "ahostsv4", name, check=False).stdout.partition(" ")[0]


@contextmanager
def waiting(network: Network, *command: str, timeout: str = "10") -> Iterator[subprocess.Popen[str]]:
    """Start imds-detour and hand it over as soon as it has said what it waits for; end it if the test does not."""
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


# Everything in place.


@pytest.mark.slow
def test_an_ip_literal_asks_no_dns(network: Network) -> None:
    """An address needs no look-up: the DNS server hears nothing."""
    dns = network.start_dns("NXDOMAIN")
    network.start_mock()
    done = network.detour("true", MOCK_HOSTNAME=MOCK)
    assert done.returncode == 0
    assert f" -> {MOCK}:{PORT}, " in done.stderr
    assert questions(dns) == []


@pytest.mark.slow
def test_a_name_costs_two_questions(network: Network) -> None:
    """One start asks for A and AAAA once, as libc does, and nothing else."""
    dns = network.start_dns()
    network.start_mock()
    assert network.detour("true").returncode == 0
    assert sorted(questions(dns)) == [f"udp A {NAME}.", f"udp AAAA {NAME}."]


def test_etc_hosts_wins_over_dns(network: Network) -> None:
    """A line in /etc/hosts is what libc, and so the app, goes by; the DNS server is not asked."""
    lie = network.start_dns(f"{NAME}={HIGHER}")
    assert getent(network) == HIGHER
    lie.kill()
    dns = network.start_dns(f"{NAME}={HIGHER}")
    network.app.write("hosts", f"{MOCK} {NAME}\n")
    assert getent(network) == MOCK
    assert network.detour("true", MOCK_PROBE="off").returncode == 0
    assert target(network) == f"{MOCK}:{PORT}"
    assert questions(dns) == []


def test_etc_hosts_is_enough_without_any_dns_server(network: Network) -> None:
    """No server is configured and none is there: the line in /etc/hosts serves."""
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
def test_search_domains_count_as_for_the_app(  # noqa: PLR0917  (parametrised)
    network: Network, half: str, source: str, resolv_conf: str, name: str, expected: str
) -> None:
    """Search list and ndots are honoured by both ways of looking up, each as libc does it for the app."""
    zone = f"{NAME}.lab.test={MOCK}+mock.lab.test={MOCK}+mock.lab={HIGHER}"
    server = network.start_dns(zone)
    assert getent(network, name) == (HIGHER if name != NAME else ""), "without the line, the name means something else"
    network.app.write("resolv.conf", f"{resolv_conf}nameserver {MOCK}\n")
    assert getent(network, name) == expected
    server.kill()
    network.start_dns(f"{half}{zone}")
    done = network.detour("true", MOCK_HOSTNAME=name, MOCK_PROBE="off", MOCK_LOG="debug")
    assert done.returncode == 0
    assert target(network) == f"{expected}:{PORT}"
    assert source in done.stderr


# Servers that do wrong.


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_lasts_ends_at_the_deadline(lasting: dict[str, tuple[str, float]], fault: str) -> None:
    """Exit 125 no sooner than the deadline and hardly later, at most one waiting line, and one that says what was seen.

    On a busy machine the first attempt lasts until the deadline: then nothing is left to wait for.
    """
    stderr, took = lasting[fault]
    *waiting_lines, line = stderr.splitlines()
    said = FAULTS[fault] if "IPv6" in FAULTS[fault] else f"cannot resolve {NAME}: {FAULTS[fault]}"
    remedy = "start it, or correct its name in MOCK_HOSTNAME or MOCK_ENDPOINTS; MOCK_TIMEOUT is how long to wait"
    assert len(waiting_lines) <= 1
    assert all(waited.startswith(f"imds-detour: waiting: {said} (") for waited in waiting_lines)
    assert line == f"imds-detour: no mock after 1.4 s: {said}; {remedy}"
    assert 1.4 <= took < 2.4


@pytest.fixture(scope="module")
def lasting() -> dict[str, tuple[str, float]]:
    """Give, for each fault, what a start against it said, and how long it took."""

    def start(fault: str) -> tuple[str, float]:
        with Network() as network:
            network.without_ipv6()
            network.start_dns(fault)
            began = time.monotonic()
            done = network.detour("touch", "/run/started", MOCK_TIMEOUT="1.4")
            took = time.monotonic() - began
            failed(network, done)
            assert network.app.run("test", "-e", "/run/started", check=False).returncode == 1
            return done.stderr, took

    return together(start)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_passes_is_waited_out(passing: dict[str, tuple[str, float]], fault: str) -> None:
    """However a server misbehaves for a while, its right answer starts the app, soon."""
    stderr, late = passing[fault]
    assert stderr.splitlines()[-1].startswith(f"imds-detour: {METADATA}:80 -> {NAME} ({MOCK}:{PORT}), ")
    assert -0.01 < late < 0.9


@pytest.fixture(scope="module")
def passing() -> dict[str, tuple[str, float]]:
    """Give, for each fault, what a start said that it only delayed, and how long after the fault the app ran."""

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

    return together(start)


def together(start: Callable[[str], tuple[str, float]]) -> dict[str, tuple[str, float]]:
    """Try all faults, a few at a time, since each spends its time waiting."""
    with ThreadPoolExecutor(4) as few:
        return dict(zip(FAULTS, few.map(start, FAULTS), strict=True))


def test_what_is_truncated_is_asked_for_over_tcp(network: Network) -> None:
    """A reply that does not fit a datagram comes over TCP, and the start knows no delay."""
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
def test_truncation_where_tcp_is_dead_is_said(network: Network, verdict: str, words: str) -> None:
    """A firewall that knows DNS over UDP only is a known fault, and the final line points at TCP."""
    how = ["--reject-with", "tcp-reset"] if verdict == "REJECT" else []
    network.mock.run("iptables-legacy", "-A", "INPUT", "-p", "tcp", "--dport", "53", "-j", verdict, *how)
    network.start_dns(f"truncated:{RIGHT}")
    line = failed(network, network.detour("true", MOCK_TIMEOUT="0.8"))
    assert line.startswith(f"no mock after 0.8 s: cannot resolve {NAME}: {MOCK} {words}")


@pytest.mark.slow
def test_an_answer_for_ipv4_alone_suffices(network: Network) -> None:
    """Where the question for AAAA is never answered libc hangs for seconds; dnspython has the address meanwhile."""
    network.start_dns(f"half:{RIGHT}")
    network.start_mock()
    began = time.monotonic()
    assert getent(network) == MOCK  # ahostsv4 asks for A only: this control is quick
    assert network.detour("true", MOCK_TIMEOUT="3").returncode == 0
    assert time.monotonic() - began < 1.5


def test_an_alias_chain_leads_to_the_address(network: Network) -> None:
    """CNAME to CNAME to CNAME to A is an address as any other."""
    network.start_dns(f"cname:{RIGHT}")
    network.start_mock()
    done = network.detour("true")
    assert done.returncode == 0
    assert f"({MOCK}:{PORT})" in done.stderr
    assert "waiting" not in done.stderr


# More than one server, or none.


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "plan"),
    [("203.0.113.9", None), ("10.88.0.4", None), ("10.88.0.4", "silent"), ("10.88.0.4", "REFUSED")],
    ids=["unroutable", "not listening", "silent", "refusing"],
)
def test_a_second_server_serves_where_the_first_does_not(network: Network, first: str, plan: str | None) -> None:
    """The first server in /etc/resolv.conf may be dead: the second is asked long before libc gets round to it."""
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
def test_the_final_line_names_the_server_that_spoke_last(network: Network) -> None:
    """Of two servers that fail in their own ways, the last one asked is quoted, with its own words."""
    network.mock.ip("address", "add", "10.88.0.4/24", "dev", "eth0")
    network.start(network.mock, sys.executable, FAULTY_DNS, "10.88.0.4", "SERVFAIL")
    network.start_dns("REFUSED")
    network.app.write("resolv.conf", f"nameserver {MOCK}\nnameserver 10.88.0.4\n")
    assert "10.88.0.4 answers SERVFAIL" in failed(network, network.detour("true", MOCK_TIMEOUT="4"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    ["", "nameserver\n", "nameserver 1.2.3 \nsearch a..b\noptions ndots:x\n", "\0\n;\nÿ ÿ\nnameserver https://x/\n"],
)
def test_a_configuration_without_a_server_is_said(network: Network, text: str) -> None:
    """An /etc/resolv.conf that is empty, or garbage, ends in a line that names the file."""
    network.app.write("resolv.conf", text)
    line = failed(network, network.detour("true", MOCK_TIMEOUT="0.4"))
    assert line.startswith(f"no mock after 0.4 s: cannot resolve {NAME}: /etc/resolv.conf names no DNS server; ")


@pytest.mark.slow
def test_lines_that_make_no_sense_do_not_hide_the_others(network: Network) -> None:
    """As libc does, skip what is wrong in /etc/resolv.conf and use what is right."""
    garbage = f"nameserver nonsense\nsearch a..b {'x' * 70}\noptions ndots:x timeout:\n\0\nÿ ÿ\n"
    network.app.write("resolv.conf", f"{garbage}nameserver {MOCK}\nnameserver 1.2.3.4.5\n")
    network.start_dns(f"half:{RIGHT}")
    done = network.detour("true", MOCK_PROBE="off", MOCK_LOG="debug")
    assert done.returncode == 0, done.stderr
    assert SERVER in done.stderr


@pytest.mark.slow
def test_a_host_name_that_is_no_dns_name_does_no_harm(network: Network) -> None:
    """A container may be called anything up to 64 characters: the look-up works, and a failure is said in a line."""
    script = f'hostname {"h" * 64} && exec "$@"'
    command = ("unshare", "--uts", "sh", "-c", script, "sh", DETOUR, "true")
    line = failed(network, network.app.run(*command, environ=network.settings(MOCK_TIMEOUT="0.4"), check=False))
    assert line.startswith(f"no mock after 0.4 s: cannot resolve {NAME}: ")
    network.start_dns()
    network.start_mock()
    done = network.app.run(*command, environ=network.settings(), check=False)
    assert done.returncode == 0, done.stderr


def test_a_server_that_starts_late_is_found(network: Network) -> None:
    """The configuration may name a server that is not there yet, nor is its line in /etc/resolv.conf."""
    network.app.write("resolv.conf", "")
    network.start_mock()
    with waiting(network, "echo", "started") as process:
        assert process.stdout is not None
        network.start_dns()
        network.app.write("resolv.conf", f"nameserver {MOCK}\n")
        assert process.stdout.readline() == "started\n"


# Which address.


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
def test_an_address_where_no_mock_can_be_is_refused_at_once(network: Network, address: str, why: str) -> None:
    """A loop or nonsense is not waited for: exit 125 long before the deadline, naming address, reason and source."""
    network.start_dns(f"{NAME}={address}")
    began = time.monotonic()
    line = failed(network, network.detour("true"))
    assert time.monotonic() - began < 1.5
    assert line.startswith(f"{NAME} resolves to {address}, and no mock can be there: {why}")
    assert "(said the system resolver); " in line


@pytest.mark.slow
def test_an_address_that_dnspython_found_is_refused_as_well(network: Network) -> None:
    """Where libc hangs, the other way to the address has the same check, and names the server."""
    network.start_dns(f"half:{NAME}=0.0.0.0,{METADATA}")
    line = failed(network, network.detour("true"))
    assert line.startswith(f"{NAME} resolves to 0.0.0.0, and no mock can be there: it is the unspecified address")
    assert f"(said the DNS server {MOCK}); " in line


def test_a_good_address_among_bad_ones_is_used(network: Network) -> None:
    """What cannot be a mock is passed over while another address can."""
    network.start_dns(f"{NAME}=0.0.0.0,{METADATA},{MOCK},255.255.255.255")
    network.start_mock()
    assert network.detour("true").returncode == 0
    assert target(network) == f"{MOCK}:{PORT}"


@pytest.mark.slow
@pytest.mark.parametrize("half", ["", "half:"])
def test_every_start_takes_the_same_of_several_addresses(network: Network, half: str) -> None:
    """Servers rotate their answers; the choice does not follow."""
    rotated = [f"{NAME}={HIGHER},{MOCK},10.88.0.5", f"{NAME}=10.88.0.5,{HIGHER},{MOCK}"]
    for zone in rotated:
        server = network.start_dns(half + zone)
        assert network.detour("true", MOCK_PROBE="off").returncode == 0
        assert target(network) == f"{MOCK}:{PORT}"
        server.kill()
        server.wait()


@pytest.mark.slow
@pytest.mark.parametrize("present", [True, False], ids=["nothing listens", "nobody is there"])
def test_the_next_address_is_taken_where_the_first_does_not_answer(network: Network, *, present: bool) -> None:
    """An address that fails its probe gives way to the next at once, also with a deadline that is near."""
    if present:
        network.mock.ip("address", "add", f"{LOWER}/24", "dev", "eth0")
    network.start(network.mock, CTL, "mock", "--listen", f"{MOCK}:{PORT}")
    network.start_dns(f"{NAME}={LOWER},{MOCK}")
    done = network.detour("true", MOCK_TIMEOUT="2")
    assert done.returncode == 0, done.stderr
    assert target(network) == f"{MOCK}:{PORT}"
    assert f" -> {NAME} ({MOCK}:{PORT}), " in done.stderr
    assert "waiting" not in done.stderr


@pytest.mark.slow
def test_the_name_is_looked_up_again_while_nobody_answers(network: Network) -> None:
    """A mock that is restarted elsewhere before it ever answered is found at its new address."""
    network.mock.ip("address", "add", f"{LOWER}/24", "dev", "eth0")
    network.start(network.mock, CTL, "mock", "--listen", f"{MOCK}:{PORT}")
    network.start_dns(f"{NAME}={LOWER}@1", RIGHT)
    done = network.detour("true", MOCK_TIMEOUT="5")
    assert done.returncode == 0, done.stderr
    assert target(network) == f"{MOCK}:{PORT}"
    assert f"waiting: {NAME} ({LOWER}:{PORT}): connection refused (" in done.stderr


# The wait itself.


@pytest.mark.slow
@pytest.mark.parametrize("dns", ["NXDOMAIN", "silent"])
def test_a_line_that_appears_in_etc_hosts_is_seen(network: Network, dns: str) -> None:
    """Whoever writes the name into /etc/hosts ends the wait, also where libc hangs at a silent server meanwhile."""
    network.start_mock()
    network.start_dns(dns)
    with waiting(network, "echo", "started") as process:
        assert process.stdout is not None
        network.app.write("hosts", f"{MOCK} {NAME}\n")
        written = time.monotonic()
        assert process.stdout.readline() == "started\n"
        assert time.monotonic() - written < 2.2


def test_reaction_to_dns_that_becomes_right(network: Network) -> None:
    """From the moment when a server that said NXDOMAIN for a second is right, the app starts within 0.6 s."""
    dns = network.start_dns("NXDOMAIN@1", RIGHT)
    network.start_mock()
    assert dns.stdout is not None
    with waiting(network, "echo", "started") as process:
        assert process.stdout is not None
        assert dns.stdout.readline()
        asked = time.monotonic()  # a little late, by what it took until the first waiting line
        assert process.stdout.readline() == "started\n"
        assert time.monotonic() - asked - 1 < 0.6


@pytest.mark.slow
@pytest.mark.parametrize("plan", ["silent", "NXDOMAIN"])
@pytest.mark.parametrize("when", ["first question", "first line", "later"])
def test_waiting_for_ever_ends_by_sigterm_at_once(network: Network, plan: str, when: str) -> None:
    """MOCK_TIMEOUT=0 waits; SIGTERM ends it with 143 within 0.1 s, wherever the look-up hangs, and leaves nothing."""
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
    """Whether a host's processes are gone within half a second: a child that sees its parent's end needs a moment."""
    end = time.monotonic() + 0.5
    while inhabitants(host):
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


@pytest.mark.slow
@pytest.mark.parametrize("seconds", ["0.05", "0.3"])
def test_a_deadline_too_short_for_anything_still_tells_the_truth(network: Network, seconds: str) -> None:
    """However little time there is, a server that answers at once is quoted, not called silent."""
    network.start_dns("NXDOMAIN")
    line = failed(network, network.detour("true", MOCK_TIMEOUT=seconds))
    assert line.startswith(f"no mock after {seconds} s: cannot resolve {NAME}: {FAULTS['NXDOMAIN']}; ")


def test_the_failure_is_an_object_for_machines(network: Network) -> None:
    """MOCK_LOG=json gives step, reason and remedy of a failed look-up."""
    network.start_dns("NXDOMAIN")
    done = network.detour("true", MOCK_TIMEOUT="0.3", MOCK_LOG="json")
    assert failed(network, done).startswith('{"event": "failed", "step": "lookup", "reason": "no mock after 0.3 s: ')


def test_the_check_for_leftovers_can_fail(network: Network) -> None:
    """What failed starts are checked for is seen when it is there: a process, and a rule."""
    script = "echo there; exec cat"
    with network.app.popen(
        "sh", "-c", script, stdin=subprocess.PIPE, stdout=subprocess.PIPE, environ=environ()
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "there\n"
        assert inhabitants(network.app) == [str(other.pid)]
        other.stdin.close()
    assert network.detour("true", MOCK_HOSTNAME=MOCK, MOCK_PROBE="off").returncode == 0
    assert network.ours()


@pytest.mark.slow
def test_everything_late_and_roundabout(network: Network) -> None:
    """A server that fails at first, then an alias chain to two addresses, the second of which serves: two lines."""
    network.mock.ip("address", "add", f"{LOWER}/24", "dev", "eth0")
    network.start(network.mock, CTL, "mock", "--listen", f"{MOCK}:{PORT}")
    network.start_dns("SERVFAIL@0.3", f"cname:{NAME}={LOWER},{MOCK}")
    done = network.detour("true")
    assert done.returncode == 0
    waiting_line, success = done.stderr.splitlines()
    assert waiting_line.startswith(f"imds-detour: waiting: cannot resolve {NAME}: {MOCK} answers SERVFAIL (0.")
    assert f" -> {NAME} ({MOCK}:{PORT}), legacy iptables, verified IMDSv2 {INSTANCE}, " in success


@pytest.fixture(scope="module", autouse=True)
def long_wait() -> Iterator[Future[tuple[list[tuple[float, str]], int]]]:
    """Begin a wait of 6.8 s for a silent server, which the other tests need not wait for."""

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

    with ThreadPoolExecutor(1) as one:
        yield one.submit(start)


def test_a_long_wait_is_quiet_and_small(long_wait: Future[tuple[list[tuple[float, str]], int]]) -> None:
    """One line at first, one every 5 s, one at the end; look-ups that hang in libc do not pile up without bound."""
    ((first, _), (second, line), (_, last)), threads = long_wait.result()
    assert re.fullmatch(r"imds-detour: waiting: cannot resolve .* \([56]\.[0-9] of 6.8 s\)\n", line)
    assert 4.95 < second - first < 5.8
    assert last.startswith("imds-detour: no mock after 6.8 s: ")
    assert 2 <= threads <= 6
