"""Rules in legacy iptables: one copy of imds-detour's, no change to foreign ones, and messages for failures."""

import glob
import importlib.util
import os
import signal
import sys
from typing import Any

import pytest

from imds_detour.advice.failure import MORE
from tests.support.faults.capabilities import without
from tests.support.faults.injection import Injection, strace
from tests.support.hosts.network import ID_URL, INSTANCE, METADATA, MOCK, PORT, Network, read_until
from tests.support.judges.processes import children
from tests.support.marks import first_quick

pytestmark = pytest.mark.usefixtures("by_address", "chosen")
REDIRECT = f"""\
:IMDS_DETOUR -
-A OUTPUT -d {METADATA}/32 -m comment --comment imds-detour -j IMDS_DETOUR
-A IMDS_DETOUR -d {METADATA}/32 -p tcp -m tcp --dport 80 -m comment --comment imds-detour -j DNAT \
--to-destination {MOCK}:{PORT}"""
GUARD = f"""\
:IMDS_DETOUR_GUARD -
-A FORWARD -d {METADATA}/32 -m comment --comment imds-detour -j IMDS_DETOUR_GUARD
-A OUTPUT -d {METADATA}/32 -m comment --comment imds-detour -j IMDS_DETOUR_GUARD
-A IMDS_DETOUR_GUARD -p tcp -m comment --comment imds-detour -j REJECT --reject-with tcp-reset
-A IMDS_DETOUR_GUARD -m comment --comment imds-detour -j REJECT --reject-with icmp-port-unreachable"""

DOCKER = """
{iptables} -t nat -N DOCKER_OUTPUT
{iptables} -t nat -N DOCKER_POSTROUTING
{iptables} -t nat -A OUTPUT -d 127.0.0.11/32 -j DOCKER_OUTPUT
{iptables} -t nat -A POSTROUTING -d 127.0.0.11/32 -j DOCKER_POSTROUTING
{iptables} -t nat -A DOCKER_OUTPUT -d 127.0.0.11/32 -p tcp -m tcp --dport 53 -j DNAT --to-destination 127.0.0.11:39743
{iptables} -t nat -A DOCKER_OUTPUT -d 127.0.0.11/32 -p udp -m udp --dport 53 -j DNAT --to-destination 127.0.0.11:44671
{iptables} -t nat -A DOCKER_POSTROUTING -s 127.0.0.11/32 -p tcp -m tcp --sport 39743 -j SNAT --to-source :53
{iptables} -t nat -A DOCKER_POSTROUTING -s 127.0.0.11/32 -p udp -m udp --sport 44671 -j SNAT --to-source :53
"""
"""The rules of Docker Engine for its embedded DNS, in a container on a user-defined network."""

ZOO = """
iptables-legacy -N FOREIGN
iptables-legacy -A OUTPUT -m owner --uid-owner 0 -j ACCEPT
iptables-legacy -A OUTPUT -p udp -m multiport --dports 53,5353 -j ACCEPT
iptables-legacy -A OUTPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT
iptables-legacy -A OUTPUT -d 10.9.9.9
iptables-legacy -A OUTPUT -d 10.9.9.8 -g FOREIGN
iptables-legacy -A OUTPUT -d 10.9.9.7 -j LOG --log-prefix "a 'b' --c"
iptables-legacy -A OUTPUT -d 10.9.9.6 -m string --string "x y" --algo bm -j DROP
iptables-legacy -A OUTPUT -d 10.9.9.5 -j NFQUEUE --queue-num 3
iptables-legacy -A OUTPUT ! -d 10.0.0.0/8 -p tcp -m tcp ! --tcp-flags SYN,RST SYN -m comment --comment imds-detour
iptables-legacy -P FORWARD DROP
iptables-legacy -t nat -A OUTPUT -p tcp --dport 81 -j REDIRECT --to-ports 8080
iptables-legacy -t nat -A OUTPUT -p tcp --dport 82 -j DNAT --to-destination 10.0.0.1-10.0.0.4:5-9
iptables-legacy -t nat -A OUTPUT -m addrtype --dst-type LOCAL ! -d 127.0.0.0/8 -j RETURN
iptables-legacy -t nat -A POSTROUTING -d 10.9.9.4 -j MASQUERADE --random
"""
"""Foreign rules of many kinds."""


def tables(network: Network) -> str:
    """Return imds-detour's rules, table nat first."""
    saved = [network.app.run("iptables-legacy-save", "-t", name).stdout.splitlines() for name in ("nat", "filter")]
    return "\n".join(line.split(" [")[0] for table in saved for line in table if "IMDS_DETOUR" in line)


def last_line(network: Network, **options: Any) -> str:  # noqa: ANN401  (those of detour())
    """Assert that a start fails with one line, and return that line."""
    (line,) = network.failure("echo", "started", **options).splitlines()
    return line.removeprefix("imds-detour: ")


def repairs(network: Network) -> bool:
    """Return whether a start leads a client to the mock and leaves exactly one copy of its rules."""
    network.success("curl", "-sS", "--fail", ID_URL, stdout=INSTANCE)
    return tables(network) == f"{REDIRECT}\n{GUARD}"


# Foreign rules


@pytest.mark.parametrize(
    "script",
    [DOCKER.format(iptables="iptables-legacy"), DOCKER.format(iptables="iptables-nft"), ZOO],
    ids=["Docker, legacy", "Docker, nft", "a zoo"],
)
def test_foreign_rules_do_not_change(network: Network, script: str) -> None:
    """A failed start and two successful ones leave foreign rules as they are, in the same order."""
    network.app.run("sh", "-euc", script)
    before = network.foreign()
    assert "127.0.0.11" in before or "FOREIGN" in before
    assert network.detour("true", MOCK_TIMEOUT="0.1").returncode == 125
    assert (network.detour_redirects(), network.foreign()) == ("", before)
    network.start_mock()
    for _ in range(2):
        network.success("true")
        assert (tables(network), network.foreign()) == (f"{REDIRECT}\n{GUARD}", before)


def test_foreign_rules_with_missing_extensions_are_ignored(network: Network) -> None:
    """A start works next to foreign rules whose extensions are not in the app's image."""
    network.app.run("sh", "-euc", ZOO)
    (extensions,) = glob.glob("/usr/lib/*/xtables")
    needed = [
        name
        for extension in ("standard", "tcp", "comment", "*NAT", "REJECT")
        for name in glob.glob(f"*_{extension}.so", root_dir=extensions)
    ]
    network.app.run("sh", "-euc", f"mkdir /run/few; cd {extensions}; cp -P {' '.join(needed)} /run/few")
    network.start_mock()
    network.success("true", environment={"XTABLES_LIBDIR": "/run/few"})
    assert tables(network) == f"{REDIRECT}\n{GUARD}"


# Rules from an earlier start

OURS = f"iptables-legacy -t nat -A IMDS_DETOUR -d {METADATA} -p tcp -m tcp --dport 80 -m comment --comment imds-detour"
STALE = {
    "another mock": f"{OURS} -j DNAT --to-destination 10.88.0.77:9",
    "a range of mocks": f"{OURS} -j DNAT --to-destination 10.88.0.3-10.88.0.9:1338",
    "a mock without port": f"{OURS} -j DNAT --to-destination 10.88.0.3",
    "twice": f"{OURS} -j DNAT --to-destination {MOCK}:{PORT}\n" * 2,
    "a range of ports": f"{OURS.replace('--dport 80', '--dport 80:90')} -j DNAT --to-destination {MOCK}:{PORT}",
    "all ports but one": f"{OURS.replace('--dport', '! --dport')} -j DNAT --to-destination {MOCK}:{PORT}",
    "all addresses but one": f"{OURS.replace('-d ', '! -d ')} -j DNAT --to-destination {MOCK}:{PORT}",
    "one source": f"{OURS} -s 10.88.0.2 -j DNAT --to-destination {MOCK}:{PORT}",
    "one user": f"{OURS} -m owner --uid-owner 0 -j DNAT --to-destination {MOCK}:{PORT}",
    "random": f"{OURS} -j DNAT --to-destination {MOCK}:{PORT} --random",
    "a foreign rule at the end": f"{OURS} -j DNAT --to-destination {MOCK}:{PORT}\n"
    "iptables-legacy -t nat -A IMDS_DETOUR -p tcp -m multiport --dports 1,2 -j LOG",
    "a foreign rule at the start": "iptables-legacy -t nat -A IMDS_DETOUR -j RETURN\n"
    f"{OURS} -j DNAT --to-destination {MOCK}:{PORT}",
    "an empty chain": "",
}
JUMP = f"iptables-legacy -t nat -A OUTPUT -d {METADATA} -m comment --comment imds-detour"


JUMPS = {
    "none": "",
    "twice": f"{JUMP} -j IMDS_DETOUR\n" * 2,
    "a goto": f"{JUMP} -g IMDS_DETOUR",
    "for every address": "iptables-legacy -t nat -A OUTPUT -j IMDS_DETOUR",
    "of one user": f"{JUMP} -m owner --uid-owner 0 -j IMDS_DETOUR",
    "after an ACCEPT": f"iptables-legacy -t nat -A OUTPUT -d {METADATA} -j ACCEPT\n{JUMP} -j IMDS_DETOUR",
}


DNAT = f"{OURS} -j DNAT --to-destination {MOCK}:{PORT}"
SCRIPTS = [
    *(pytest.param(f"{script}\n{JUMP} -j IMDS_DETOUR", id=f"chain: {name}") for name, script in STALE.items()),
    *(pytest.param(f"{DNAT}\n{script}", id=f"jump: {name}") for name, script in JUMPS.items()),
]


@pytest.mark.parametrize("script", first_quick(SCRIPTS, len(STALE)))
def test_stale_chain_or_jump_is_repaired(network: Network, script: str) -> None:
    """A start leaves its own rules in its chain, and one jump for the metadata address, as OUTPUT's first rule."""
    network.app.run("sh", "-euc", f"iptables-legacy -t nat -N IMDS_DETOUR\n{script}")
    before = network.foreign()
    network.start_mock()
    assert (repairs(network), network.foreign()) == (True, before)
    output = network.app.run("iptables-legacy", "-t", "nat", "-S", "OUTPUT", "1").stdout
    assert output.strip() == REDIRECT.splitlines()[1]


def test_stale_guard_is_repaired(network: Network) -> None:
    """A start repairs a guard that accepts packets to the real service."""
    network.app.run(
        "sh",
        "-euc",
        "iptables-legacy -N IMDS_DETOUR_GUARD\n"
        "iptables-legacy -A IMDS_DETOUR_GUARD -p tcp --dport 8080 -j ACCEPT\n"
        f"iptables-legacy -A OUTPUT -d {METADATA} -j ACCEPT\n"
        f"iptables-legacy -A OUTPUT -d {METADATA} -m comment --comment imds-detour -j IMDS_DETOUR_GUARD",
    )
    network.start_mock()
    network.success("true")
    assert tables(network) == f"{REDIRECT}\n{GUARD}"
    assert network.app.run("iptables-legacy", "-S", "OUTPUT", "1").stdout.strip() == GUARD.splitlines()[2]


APPLY = """
import sys
from ipaddress import ip_address
from imds_detour.firewall.change import AddGuard, Replace
from imds_detour.firewall.select import start_legacy

firewall = start_legacy((4,))
firewall.installed("nat")
previous = firewall.apply(AddGuard((ip_address("192.0.2.1"),)), 10)
if sys.argv[1] == "undo":
    firewall.apply(Replace("filter", previous), 10)
firewall.close()
"""
"""Reads table nat, guards another address, and undoes that if asked."""


@pytest.mark.parametrize(
    "altered", [f"-d {METADATA} -p tcp", f"-d {METADATA}", ""], ids=["tcp", "same", "every address"]
)
def test_undo_restores_a_jump_that_was_altered(network: Network, altered: str) -> None:
    """An undo restores the jumps that were there, also if the two chains had different ones."""
    network.app.run(sys.executable, "-c", APPLY, "keep")
    jump = f"iptables-legacy -I OUTPUT {altered} -m comment --comment imds-detour -j IMDS_DETOUR_GUARD"
    network.app.run("sh", "-euc", f"iptables-legacy -D OUTPUT 1\n{jump}")
    before = tables(network)
    network.app.run(sys.executable, "-c", APPLY, "undo")
    assert tables(network) == before


def test_jump_in_another_table_is_no_part_of_the_guard(network: Network) -> None:
    """A jump in table nat that looks like one of the guard is none: what is guarded stays guarded."""
    network.start_mock()
    network.success("true")
    jump = f"-A IMDS_DETOUR -d {METADATA} -m comment --comment imds-detour -j IMDS_DETOUR_GUARD"
    network.app.run("sh", "-euc", f"iptables-legacy -t nat -N IMDS_DETOUR_GUARD\niptables-legacy -t nat {jump}")
    network.app.run(sys.executable, "-c", APPLY, "keep")
    guarded = [
        line.split()[3] for line in tables(network).splitlines() if line.startswith("-A OUTPUT") and "GUARD" in line
    ]
    assert guarded == [f"{METADATA}/32", "192.0.2.1/32"]


def test_start_with_another_mock_replaces_the_redirect(network: Network) -> None:
    """A second start with another mock replaces the redirect. If it fails, the first redirect stays."""
    network.start_mock(port="9")
    network.start_mock()
    network.success("true", MOCK_PORT="9")
    first = tables(network)
    assert f"{MOCK}:9" in first
    assert (network.detour("true", MOCK_PORT="10", MOCK_TIMEOUT="0.1").returncode, tables(network)) == (125, first)
    network.success("true")
    assert tables(network) == f"{REDIRECT}\n{GUARD}"


def test_many_starts_at_once_leave_one_copy(mocked: Network) -> None:
    """Many starts at once in a network namespace all succeed and leave one copy of the rules."""
    starts = [mocked.popen_detour("curl", "-sS", "--fail", ID_URL) for _ in range(8)]
    ends = [(*start.communicate(timeout=30), start.returncode) for start in starts]
    assert [(code, out) for out, _, code in ends] == [(0, INSTANCE)] * 8, ends
    assert tables(mocked) == f"{REDIRECT}\n{GUARD}"


# Failures


def injected(call: str, effect: str, when: int | str = "1+") -> tuple[str, ...]:
    """Return a command that runs another one with a fault in it and its helpers."""
    return strace(Injection(call, effect, when), children=True)


FAILURES = {
    "no NET_ADMIN": (without("net_admin"), "auto"),
    "no NET_RAW, as under Podman": (without("net_raw"), "legacy"),
    "another user": (("setpriv", "--reuid", "65534", "--clear-groups"), "auto"),
    "no legacy iptables": (injected("getsockopt", "error=ENOPROTOOPT"), "legacy"),
    "no firewall": (injected("socket", "error=EPROTONOSUPPORT"), "auto"),
    "refused commits": (injected("setsockopt", "error=ENOMEM"), "auto"),
}
"""The command under which a start fails, and MOCK_BACKEND."""
MESSAGES = {
    "no NET_ADMIN": "no NET_ADMIN capability; add it: in Compose `cap_add: [NET_ADMIN]`, "
    "with docker run `--cap-add NET_ADMIN`; "
    "without NET_ADMIN: MOCK_BACKEND=env sets the variables that some SDKs follow",
    "no NET_RAW, as under Podman": "no NET_RAW capability, which legacy iptables needs to open its socket; "
    "add it: in Compose `cap_add: [NET_ADMIN, NET_RAW]`; or let MOCK_BACKEND be auto, which uses nftables",
    "another user": "no NET_ADMIN capability (uid 65534 is not root); "
    "start as root with `cap_add: [NET_ADMIN]` (no `USER` in the Dockerfile, no `user:` in Compose) and let "
    "MOCK_USER=65534 make the app that user; or use the sidecar, which needs no change to the app; "
    "without NET_ADMIN: MOCK_BACKEND=env sets the variables that some SDKs follow",
    "no legacy iptables": "the kernel has no legacy iptables here (table filter: Protocol not available); "
    "load it on the host: `modprobe iptable_filter`",
    "no firewall": "the kernel refuses legacy iptables (table filter: Protocol not supported); "
    "nftables cannot be used here: the kernel has none (Protocol not supported); "
    "load them on the host: `modprobe -a nf_tables nft_chain_nat nft_nat nft_reject_ipv4 nft_reject_ipv6`",
    "refused commits": "iptables refused imds-detour's rules in table filter: can't commit: Memory allocation problem",
}


@pytest.mark.parametrize("failure", FAILURES)
def test_failed_start_says_what_to_do(network: Network, failure: str, request: pytest.FixtureRequest) -> None:
    """A start that may not or cannot change the firewall prints one line with the reason and what to add."""
    if failure == "another user":
        request.getfixturevalue("other_users")
    prefix, backend = FAILURES[failure]
    assert last_line(network, prefix=prefix, MOCK_BACKEND=backend) == f"{MESSAGES[failure]}; {MORE}"
    assert network.detour_redirects() == ""


def test_start_under_setpriv_with_all_privileges_succeeds(mocked: Network) -> None:
    """Control: under setpriv, with all privileges, the app starts."""
    mocked.success("echo", "started", stdout="started\n", prefix=("setpriv", "--nnp"))


PACKAGES = (
    "install the package that brings libxtables, libip4tc and the extensions: `iptables` on Debian, Ubuntu and Alpine"
)


@pytest.mark.parametrize("library", ["libip4tc.so.2", "libxtables.so.12"])
def test_missing_library_names_the_package(network: Network, library: str) -> None:
    """When a library of iptables is missing, the message names the library and the package to install."""
    (path,) = glob.glob(f"/usr/lib/*/{library}")
    network.app.run("mount", "--bind", "/dev/null", os.path.realpath(path))
    line = last_line(network, MOCK_BACKEND="legacy")
    assert line.startswith("a library of iptables is missing (")
    assert library in line
    assert line.endswith(f"; {PACKAGES}; {MORE}")


def test_missing_extensions_name_the_package(network: Network) -> None:
    """When the extensions of libxtables are missing, the message names the folder and the package to install."""
    network.app.run("mkdir", "/run/none")
    line = last_line(network, environment={"XTABLES_LIBDIR": "/run/none"}, MOCK_BACKEND="legacy")
    assert line.startswith("an iptables extension is missing in /run/none, or of another version (")
    assert line.endswith(f"; {PACKAGES}; {MORE}")


def test_missing_python_iptables_says_how_to_install_it(network: Network) -> None:
    """When imds-detour was installed without its dependencies, the message has the pip command."""
    spec = importlib.util.find_spec("iptc")
    assert spec is not None
    (folder,) = list(spec.submodule_search_locations or [])
    network.app.run("mount", "-t", "tmpfs", "tmpfs", folder)
    assert last_line(network, MOCK_BACKEND="legacy") == (
        "python-iptables cannot be imported: cannot import name 'ip4tc' from 'iptc' (unknown location);"
        f" pip install python-iptables; {MORE}"
    )


# Helpers that end early


ENDED_EARLY = "imds-detour: the firewall helper ended early; look for what ended it"


@pytest.mark.parametrize("commit", [1, 2, 3, 4, 5])
def test_helper_killed_in_a_commit_fails_the_start(mocked: Network, commit: int) -> None:
    """A helper killed in any commit fails the start without a redirect without guard. Control: there is no fifth."""
    if commit == 5:
        mocked.success("echo", "started", stdout="started\n", prefix=injected("setsockopt", "signal=KILL", commit))
        return
    stderr = mocked.failure("echo", "started", prefix=injected("setsockopt", "signal=KILL", commit))
    assert stderr.splitlines()[-1].startswith(ENDED_EARLY)
    rules = mocked.detour_rules()
    assert "-j IMDS_DETOUR\n" not in f"{rules}\n" or "-j IMDS_DETOUR_GUARD" in rules


def test_helper_killed_during_the_wait_fails_the_start(network: Network) -> None:
    """When the helpers are killed during the wait for the mock, the start exits with 125 and the guard stays."""
    detour = network.popen_detour("echo", "started")
    assert "waiting: " in read_until(detour)
    for helper in children(detour.pid):  # one for each IP version
        os.kill(helper, signal.SIGKILL)
    network.start_mock()
    out, err = detour.communicate(timeout=20)
    assert (detour.returncode, out) == (125, "")
    assert err.splitlines()[-1].startswith(ENDED_EARLY)
    assert tables(network) == GUARD
