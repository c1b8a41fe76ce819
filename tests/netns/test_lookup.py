"""Lookup of the mock's name: the installed command with a DNS server that fails in planned ways."""

import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from imds_detour.advice import mocks
from imds_detour.advice.failure import MORE
from imds_detour.ctl.lab.hosts import Host, environ
from tests.support.hosts.network import (
    CTL,
    DETOUR,
    INSTANCE,
    METADATA,
    MOCK,
    NAME,
    PORT,
    Network,
    end,
    output,
    read_line,
    read_until,
)
from tests.support.judges.processes import processes_in
from tests.support.marks import first_quick

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


def last_line(network: Network, **options: Any) -> str:  # noqa: ANN401  (those of detour())
    """Assert that a start fails and leaves no redirects or processes, and return its last line."""
    stderr = network.failure("true", **options)
    assert "Traceback" not in stderr
    assert (network.detour_redirects(), processes_in(network.app)) == ("", ())
    return stderr.splitlines()[-1].removeprefix("imds-detour: ")


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
def waiting(network: Network, *command: str) -> Iterator[subprocess.Popen[str]]:
    """Start imds-detour, yield it after its first waiting line, and kill it at the end."""
    with network.popen_detour(*command) as process:
        try:
            line = read_until(process)
            assert line.startswith("imds-detour: waiting: "), line
            yield process
        finally:
            process.kill()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "asked", "target"),
    [(MOCK, [], f"{MOCK}:{PORT}, "), (NAME, [f"udp A {NAME}.", f"udp AAAA {NAME}."], f"{NAME} ({MOCK}:{PORT}), ")],
)
def test_name_needs_two_dns_questions(mocked: Network, name: str, asked: list[str], target: str) -> None:
    """A start sends one question for A and one for AAAA, as libc does, and none with an IP address as the mock."""
    dns = mocked.start_dns()
    assert f" -> {target}" in mocked.success("true", MOCK_HOSTNAME=name)
    assert sorted(questions(dns)) == asked


def test_etc_hosts_has_priority_over_dns(network: Network) -> None:
    """With a line in /etc/hosts a start uses its address, as libc does, and sends no DNS question."""
    other = network.start_dns(f"{NAME}={HIGHER}")
    assert getent(network) == HIGHER
    other.kill()
    dns = network.start_dns(f"{NAME}={HIGHER}")
    network.app.write("hosts", f"{MOCK} {NAME}\n")
    assert getent(network) == MOCK
    network.success("true", MOCK_PROBE="off")
    assert (redirect_target(network), questions(dns)) == (f"{MOCK}:{PORT}", [])
    network.app.write("resolv.conf", "")  # no DNS server is needed
    network.start_mock()
    network.success("true")


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
    stderr = network.success("true", MOCK_HOSTNAME=name, MOCK_PROBE="off", MOCK_LOG="debug")
    assert redirect_target(network) == f"{expected}:{PORT}"
    assert source in stderr


# Faulty DNS servers.


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_permanent_fault_ends_at_the_timeout(permanent: dict[str, tuple[str, float]], fault: str) -> None:
    """With a permanent DNS fault a start ends with 125 at the timeout, names the fault, and logs at most one wait."""
    stderr, took = permanent[fault]
    *waiting_lines, line = stderr.splitlines()
    reason = FAULTS[fault] if "IPv6" in FAULTS[fault] else f"cannot resolve {NAME}: {FAULTS[fault]}"
    remedy = mocks.NO_DNS_SERVER
    if "IPv6" in reason:
        remedy = "give the mock by an IPv4 one, or enable IPv6 on the network"
    elif re.search("answers|NXDOMAIN|empty answer", reason):
        remedy = (
            "start it; or correct MOCK_HOSTNAME, or name the mock's service so (in Compose"
            f" `services: {{{NAME}: ...}}`) and put both on a common network (`networks:`)"
        )
    assert len(waiting_lines) <= 1
    assert all(waited.startswith(f"imds-detour: waiting: {reason} (") for waited in waiting_lines)
    assert line == f"imds-detour: no mock after 1.4 s: {reason}; {remedy}; MOCK_TIMEOUT is how long to wait; {MORE}"
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
            assert (done.returncode, done.stdout, "Traceback" in done.stderr) == (125, "", False), done
            assert (network.detour_redirects(), processes_in(network.app)) == ("", ())
            assert network.app.run("test", "-e", "/run/started", check=False).returncode == 1
            return done.stderr, took

    return run_all_faults(start)


@pytest.mark.parametrize("fault", FAULTS)
def test_temporary_fault_delays_the_start(temporary: dict[str, tuple[str, float]], fault: str) -> None:
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
            with network.popen_detour("echo", "started") as process:
                assert read_line(dns)  # the first question, from which the plan counts
                asked = time.monotonic()
                assert read_line(process) == "started\n"
                late = time.monotonic() - asked - 0.4
                _, stderr = process.communicate()
            assert process.returncode == 0
            return stderr, late

    return run_all_faults(start)


def run_all_faults(start: Callable[[str], tuple[str, float]]) -> dict[str, tuple[str, float]]:
    """Run a start for each fault, four at a time."""
    with ThreadPoolExecutor(4) as executor:
        return dict(zip(FAULTS, executor.map(start, FAULTS), strict=True))


@pytest.mark.parametrize(("kind", "question"), [("truncated", f"tcp A {NAME}."), ("cname", f"udp A {NAME}.")])
def test_truncated_reply_or_alias_chain_gives_the_address(mocked: Network, kind: str, question: str) -> None:
    """A truncated reply is repeated over TCP, a chain of CNAME records is followed, and the start logs no wait."""
    dns = mocked.start_dns(f"{kind}:{RIGHT}")
    (line,) = mocked.success("true").splitlines()
    assert f"({MOCK}:{PORT})" in line
    assert question in questions(dns)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("verdict", "words"),
    [("REJECT", "cannot be asked over TCP: Connection refused"), ("DROP", "sends no proper reply over TCP")],
)
def test_truncated_reply_without_tcp_names_tcp(network: Network, verdict: str, words: str) -> None:
    """If a firewall blocks DNS over TCP, the final line after a truncated reply names TCP."""
    how = ["--reject-with", "tcp-reset"] if verdict == "REJECT" else []
    network.mock.run("iptables-legacy", "-A", "INPUT", "-p", "tcp", "--dport", "53", "-j", verdict, *how)
    network.start_dns(f"truncated:{RIGHT}")
    line = last_line(network, MOCK_TIMEOUT="0.8")
    assert line.startswith(f"no mock after 0.8 s: cannot resolve {NAME}: {MOCK} {words}")


@pytest.mark.slow
def test_ipv4_reply_is_sufficient(network: Network) -> None:
    """Without a reply for AAAA, libc waits for seconds; a start uses dnspython's A reply within 1.5 s."""
    network.start_dns(f"half:{RIGHT}")
    network.start_mock()
    began = time.monotonic()
    assert getent(network) == MOCK  # control: ahostsv4 asks for A only, so it is quick
    network.success("true", MOCK_TIMEOUT="3")
    assert time.monotonic() - began < 1.5


# Several DNS servers, or none.


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "plan"),
    [("203.0.113.9", None), ("10.88.0.4", None), ("10.88.0.4", "silent"), ("10.88.0.4", "REFUSED")],
    ids=["unroutable", "not listening", "silent", "refusing"],
)
def test_second_server_replaces_a_faulty_first(network: Network, first: str, plan: str | None) -> None:
    """With a faulty first DNS server a start uses the second within 1.6 s, before libc's timeout."""
    if first == "203.0.113.9":
        network.app.ip("route", "del", "default")
    network.mock.ip("address", "add", "10.88.0.4/24", "dev", "eth0")
    if plan:
        network.start_dns(plan, at="10.88.0.4")
    network.app.write("resolv.conf", f"nameserver {first}\nnameserver {MOCK}\n")
    network.start_dns()
    network.start_mock()
    began = time.monotonic()
    network.success("true")
    assert time.monotonic() - began < 1.6


TRIES = 3
"""Starts until no attempt is cut by the deadline on a busy machine: the final line quotes the attempt before it."""


@pytest.mark.slow
def test_final_line_quotes_the_last_server(network: Network) -> None:
    """With two faulty DNS servers the final line quotes the last one that was asked before the deadline."""
    network.mock.ip("address", "add", "10.88.0.4/24", "dev", "eth0")
    network.start_dns("SERVFAIL", at="10.88.0.4")
    network.start_dns("REFUSED")
    network.app.write("resolv.conf", f"nameserver {MOCK}\nnameserver 10.88.0.4\n")
    for _ in range(TRIES):
        log = network.failure("true", MOCK_TIMEOUT="4", MOCK_LOG="debug")
        asked = re.findall(r"DNS (\S+): A \S+: answers (\w+)", log)
        if told := "{} answers {}".format(*asked[-1]) in log.splitlines()[-1]:
            break
    assert told, log
    assert ("10.88.0.4", "SERVFAIL") in asked


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    ["", "nameserver\n", "nameserver 1.2.3 \nsearch a..b\noptions ndots:x\n", "\0\n;\nÿ ÿ\nnameserver https://x/\n"],
)
def test_resolv_conf_without_a_server_is_reported(network: Network, text: str) -> None:
    """The final line names /etc/resolv.conf when that file is empty or invalid."""
    network.app.write("resolv.conf", text)
    line = last_line(network, MOCK_TIMEOUT="0.4")
    assert line.startswith(f"no mock after 0.4 s: cannot resolve {NAME}: /etc/resolv.conf names no DNS server; ")


@pytest.mark.slow
def test_invalid_lines_in_resolv_conf_are_skipped(network: Network) -> None:
    """Invalid lines in /etc/resolv.conf are skipped, as by libc, and valid lines are used."""
    garbage = f"nameserver nonsense\nsearch a..b {'x' * 70}\noptions ndots:x timeout:\n\0\nÿ ÿ\n"
    network.app.write("resolv.conf", f"{garbage}nameserver {MOCK}\nnameserver 1.2.3.4.5\n")
    network.start_dns(f"half:{RIGHT}")
    assert SERVER in network.success("true", MOCK_PROBE="off", MOCK_LOG="debug")


@pytest.mark.slow
def test_invalid_host_name_is_accepted(network: Network) -> None:
    """With a container name of 64 characters, which is no DNS name, lookups work and failures take one line."""
    renamed = ("unshare", "--uts", "sh", "-c", f'hostname {"h" * 64} && exec "$@"', "sh")
    line = last_line(network, prefix=renamed, MOCK_TIMEOUT="0.4")
    assert line.startswith(f"no mock after 0.4 s: cannot resolve {NAME}: ")
    network.start_dns()
    network.start_mock()
    network.success("true", prefix=renamed)


def test_late_dns_server_is_used(network: Network) -> None:
    """A start uses a DNS server that is started and added to /etc/resolv.conf during the wait."""
    network.app.write("resolv.conf", "")
    network.start_mock()
    with waiting(network, "echo", "started") as process:
        network.start_dns()
        network.app.write("resolv.conf", f"nameserver {MOCK}\n")
        assert read_line(process) == "started\n"


# The choice of the address.


LOOP = "it is a metadata address, so the redirect would be a loop"
OF_DNSPYTHON = (f"half:{NAME}=0.0.0.0,{METADATA}", SERVER, "it is the unspecified address")


@pytest.mark.parametrize(
    ("plan", "source", "why"),
    [
        (f"{NAME}={METADATA}", SYSTEM, LOOP),
        (f"{NAME}=169.254.170.2", SYSTEM, LOOP),
        (f"{NAME}=0.0.0.0", SYSTEM, "it is the unspecified address"),
        (f"{NAME}=224.0.0.1", SYSTEM, "it is a multicast address"),
        (f"{NAME}=255.255.255.255", SYSTEM, "it is the broadcast address"),
        pytest.param(*OF_DNSPYTHON, marks=pytest.mark.slow),
    ],
)
def test_an_impossible_mock_address_is_refused_at_once(network: Network, plan: str, source: str, why: str) -> None:
    """An address that cannot be a mock's exits with 125 without a wait; the line names address, reason and source."""
    network.start_dns(plan)
    began = time.monotonic()
    line = last_line(network)
    assert time.monotonic() - began < (5 if source == SERVER else 1.5)
    address = plan.partition("=")[2].split(",")[0]
    assert line.startswith(f"{NAME} resolves to {address}, and no mock can be there: {why}")
    assert f"({source.replace('says', 'said')}); " in line


def test_valid_address_among_invalid_ones_is_used(network: Network) -> None:
    """A start skips addresses that cannot be a mock's and uses the valid one."""
    network.start_dns(f"{NAME}=0.0.0.0,{METADATA},{MOCK},255.255.255.255")
    network.start_mock()
    network.success("true")
    assert redirect_target(network) == f"{MOCK}:{PORT}"


def test_mock_with_the_metadata_address_alone_gets_the_way_out(network: Network) -> None:
    """If the mock has only the metadata address, as on a link-local network, the line says that no redirect is needed.

    Nothing is asked there: the answer could be the real service's.
    """
    network.mock.ip("address", "add", f"{METADATA}/32", "dev", "lo")
    server = network.start(network.mock, CTL, "mock", "--listen", f"{METADATA}:80")
    dns = network.start_dns(f"{NAME}={METADATA}")
    assert "put the mock on another network too, or start the app without imds-detour" in last_line(network)
    assert f"MOCK_HOSTNAME='{METADATA}' is not valid (it is a" in last_line(network, MOCK_HOSTNAME=METADATA)
    assert output(server) == ""
    # Control: with an address on another network, it is used.
    end(dns)
    network.start_dns(f"{NAME}={METADATA},{MOCK}")
    network.start_mock()
    network.success("true")


@pytest.mark.slow
@pytest.mark.parametrize("half", ["", "half:"])
def test_choice_among_addresses_is_stable(network: Network, half: str) -> None:
    """Each start chooses the same address when the DNS server rotates its replies."""
    rotated = [f"{NAME}={HIGHER},{MOCK},10.88.0.5", f"{NAME}=10.88.0.5,{HIGHER},{MOCK}"]
    for zone in rotated:
        server = network.start_dns(half + zone)
        network.success("true", MOCK_PROBE="off")
        assert redirect_target(network) == f"{MOCK}:{PORT}"
        server.kill()
        server.wait()


LATE_ALIAS = ("SERVFAIL@0.3", f"cname:{NAME}={LOWER},{MOCK}")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("plan", "present", "waiting"),
    [
        ((f"{NAME}={LOWER},{MOCK}",), True, ""),
        ((f"{NAME}={LOWER},{MOCK}",), False, ""),
        ((f"{NAME}={LOWER}@1", RIGHT), True, f"{NAME} ({LOWER}:{PORT}): connection refused ("),
        (LATE_ALIAS, True, f"cannot resolve {NAME}: {MOCK} answers SERVFAIL (0."),
    ],
    ids=["nothing listens", "no host", "the mock moves", "an alias chain after a fault"],
)
def test_address_without_mock_is_skipped(network: Network, plan: tuple[str, ...], present: bool, waiting: str) -> None:
    """If an address fails its probe, a start uses the next one at once, or repeats the lookup until a mock answers."""
    if present:
        network.mock.ip("address", "add", f"{LOWER}/24", "dev", "eth0")
    network.start_mock(at=MOCK)
    network.start_dns(*plan)
    *lines, success = network.success("true", MOCK_TIMEOUT="5" if waiting else "2").splitlines()
    assert redirect_target(network) == f"{MOCK}:{PORT}"
    assert f" -> {NAME} ({MOCK}:{PORT}), legacy iptables, verified IMDSv2 {INSTANCE}, " in success
    assert [line.startswith(f"imds-detour: waiting: {waiting}") for line in lines] == [True] * bool(waiting)


@pytest.mark.slow
@pytest.mark.parametrize("dns", ["NXDOMAIN", "silent"])
def test_new_line_in_etc_hosts_ends_the_wait(mocked: Network, dns: str) -> None:
    """A new line in /etc/hosts ends the wait, even while libc waits for a silent DNS server."""
    mocked.start_dns(dns)
    with waiting(mocked, "echo", "started") as process:
        mocked.app.write("hosts", f"{MOCK} {NAME}\n")
        written = time.monotonic()
        assert read_line(process) == "started\n"
        assert time.monotonic() - written < 2.2


def test_corrected_dns_reply_starts_the_app(network: Network) -> None:
    """The app starts within 0.6 s after a DNS server replaces NXDOMAIN by the correct reply."""
    dns = network.start_dns("NXDOMAIN@1", RIGHT)
    network.start_mock()
    with waiting(network, "echo", "started") as process:
        assert read_line(dns)
        asked = time.monotonic()  # slightly late: after the first waiting line
        assert read_line(process) == "started\n"
        assert time.monotonic() - asked - 1 < 0.6


@pytest.mark.slow
@pytest.mark.parametrize("plan", ["silent", "NXDOMAIN"])
@pytest.mark.parametrize("when", ["first question", "first line", "later"])
def test_sigterm_ends_an_unlimited_wait(network: Network, plan: str, when: str) -> None:
    """With MOCK_TIMEOUT=0 SIGTERM ends a wait within 0.1 s with exit status 143, and leaves no processes."""
    dns = network.start_dns(plan)
    with network.popen_detour("true", MOCK_TIMEOUT="0") as process:
        assert read_line(dns)
        if when != "first question":
            assert "waiting: " in read_until(process)
        if when == "later":
            for _ in range(3):
                assert read_line(dns)
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


@pytest.mark.parametrize(("seconds", "log"), first_quick([("0.3", "json"), ("0.05", "text"), ("0.3", "text")]))
def test_short_timeout_reports_the_fault(network: Network, seconds: str, log: str) -> None:
    """With a very short timeout the final line, also as JSON, quotes a DNS server that replies at once."""
    network.start_dns("NXDOMAIN")
    start, end = ('{"event": "failed", "step": "lookup", "reason": "', '"') if log == "json" else ("", ";")
    line = last_line(network, MOCK_TIMEOUT=seconds, MOCK_LOG=log)
    assert line.startswith(f"{start}no mock after {seconds} s: cannot resolve {NAME}: {FAULTS['NXDOMAIN']}{end}")


def test_reason_is_the_same_each_time_that_libc_is_asked(network: Network) -> None:
    """A name that does not exist is told by one line while a start waits, and by the last line, with one reason."""
    network.start_dns("NXDOMAIN")
    reason = f"cannot resolve {NAME}: {FAULTS['NXDOMAIN']}"
    lines = network.failure("true", MOCK_TIMEOUT="1.5").splitlines()  # libc is asked at once, and after 1 s
    assert [line.count("cannot resolve") for line in lines] == [1, 1]
    assert all(reason in line for line in lines)


def test_check_for_leftovers_detects_them(network: Network) -> None:
    """Control: the check for leftovers of a failed start detects a process and a rule."""
    start = ("sh", "-c", "echo started; exec cat")
    with network.app.popen(*start, stdin=subprocess.PIPE, stdout=subprocess.PIPE, environ=environ()) as other:
        assert (read_line(other), len(processes_in(network.app))) == ("started\n", 1)
        other.communicate()
    network.success("true", MOCK_HOSTNAME=MOCK, MOCK_PROBE="off")
    assert network.detour_rules()


@pytest.fixture(scope="module", autouse=True)
def long_wait() -> Iterator[Future[tuple[list[tuple[float, str]], int]]]:
    """Start a wait of 6.8 s for a silent server in the background of the other tests."""

    def start() -> tuple[list[tuple[float, str]], int]:
        with Network() as network:
            network.start_dns("silent")
            command = network.popen_detour("true", MOCK_TIMEOUT="6.8")
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


def test_long_wait_logs_three_lines(long_wait: Future[tuple[list[tuple[float, str]], int]]) -> None:
    """A wait of 6.8 s logs a line at the start, after 5 s and at the end, and uses at most 6 threads."""
    ((first, _), (second, line), (_, last)), threads = long_wait.result()
    assert re.fullmatch(r"imds-detour: waiting: cannot resolve .* \([56]\.[0-9] of 6.8 s, \d+ attempts\)\n", line)
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
