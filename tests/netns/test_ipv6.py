"""The IPv6 endpoint [fd00:ec2::254]:80 is redirected when the mock has IPv6, and refused otherwise."""

import json
import subprocess
import sys
import time

import pytest

from tests.support.faults import nft_transactions
from tests.support.faults.injection import Injection, strace
from tests.support.faults.seccomp import kernel_without
from tests.support.hosts.network import APP6, ID_URL, INSTANCE, METADATA6, MOCK, MOCK6, NAME, PORT, Network
from tests.support.judges.rules_listing import all_rules
from tests.support.marks import first_quick

ID_URL6 = f"http://[{METADATA6}]/latest/meta-data/instance-id"


@pytest.fixture
def dual(network: Network) -> Network:
    """Give a network with IPv6 on both hosts, and the app's default route to the mock."""
    network.add_ipv6()
    network.app.ip("-6", "route", "add", "default", "via", MOCK6)
    return network


def refuses(network: Network, url: str) -> bool:
    """Return whether a client without imds-detour's environment is refused: curl's "could not connect"."""
    return network.app.run("curl", "-sS", "--max-time", "5", url, check=False).returncode == 7


def start_real_service6(network: Network) -> None:
    """Start a fake real service at the IPv6 metadata address, reachable by the app's default route."""
    network.mock.ip("address", "add", f"{METADATA6}/128", "dev", "lo", "nodad")
    network.mock.run("sh", "-c", 'echo \'{"meta-data": {"instance-id": "i-0real"}}\' > /run/real.json')
    network.start_mock("--data", "/run/real.json", at=f"[{METADATA6}]", port="80")


def test_both_endpoints_redirect_to_a_dual_stack_mock(dual: Network, backend: str) -> None:
    """With a dual-stack mock a client reads the instance id over IPv4 and IPv6; the log line names both redirects."""
    dual.start_dns(f"{NAME}={MOCK},{MOCK6}")
    dual.start_mock("--quiet", at="[::]")
    stderr = dual.success("curl", "-sS", "--fail", ID_URL, ID_URL6, stdout=INSTANCE * 2, MOCK_BACKEND=backend)
    assert f"169.254.169.254:80, [{METADATA6}]:80 -> {NAME} ({MOCK}:{PORT}, [{MOCK6}]:{PORT})" in stderr
    first = all_rules(dual.app)
    assert METADATA6 in first
    dual.success("true", MOCK_BACKEND=backend)  # a second start leaves one copy of the rules
    assert all_rules(dual.app) == first


def test_ipv6_endpoint_without_an_ipv6_mock_is_refused(dual: Network, backend: str) -> None:
    """With an IPv4-only mock the guard refuses the IPv6 endpoint at once, although a real service listens there."""
    start_real_service6(dual)
    dual.start_dns()
    dual.start_mock()
    # Controls: without imds-detour, and with MOCK_GUARD=off, it is reachable.
    assert dual.app.run("curl", "-sS", ID_URL6).stdout == "i-0real"
    dual.wanted["MOCK_BACKEND"] = backend
    dual.success("curl", "-sS", ID_URL, ID_URL6, stdout=f"{INSTANCE}i-0real", MOCK_GUARD="off")
    assert "guard" not in all_rules(dual.app).lower()
    done = dual.detour("curl", "-sS", "--max-time", "5", ID_URL6, MOCK_BACKEND=backend)
    assert (done.returncode, done.stdout) == (7, "")  # curl's "could not connect": refused, not timed out
    assert f"169.254.169.254:80 -> {NAME} ({MOCK}:{PORT})" in done.stderr


def test_ipv4_listener_with_an_ipv6_address_works_over_ipv4(dual: Network, backend: str) -> None:
    """A mock with both addresses that listens on IPv4 only, as amazon-ec2-metadata-mock, is used over IPv4."""
    start_real_service6(dual)
    dual.start_dns(f"{NAME}={MOCK},{MOCK6}")
    dual.start_mock()
    dual.success("curl", "-sS", ID_URL, stdout=INSTANCE, MOCK_BACKEND=backend)
    assert refuses(dual, ID_URL6)


@pytest.mark.parametrize("fresh", first_quick(["app", "mock"]))
def test_fresh_ipv6_address_is_waited_for(dual: Network, fresh: str) -> None:
    """While duplicate address detection checks an address of either host, a start waits, and then redirects IPv6."""
    dual.start_dns(f"{NAME}={MOCK},{MOCK6}")
    dual.start_mock("--quiet", at="[::]")
    host, address = (dual.mock, MOCK6) if fresh == "mock" else (dual.app, APP6)
    host.ip("-6", "address", "flush", "dev", "eth0")
    host.ip("address", "add", f"{address}/64", "dev", "eth0")
    assert "tentative" in host.ip("-6", "address", "show", "dev", "eth0")  # control: it is not usable yet
    if fresh == "app":
        host.ip("-6", "route", "replace", "default", "via", MOCK6)
    done = dual.detour("curl", "-sS", "--fail", ID_URL, ID_URL6)
    assert (done.returncode, done.stdout) == (0, INSTANCE * 2), done.stderr


@pytest.mark.parametrize(
    ("rule", "seconds", "reason"),
    [
        ("drop", (5, 7), "it does not accept a connection within"),
        ("reject with tcp reset", (0, 2), "connection refused"),
    ],
)
def test_mock_silent_over_ipv6_is_waited_for_once(
    dual: Network, rule: str, seconds: tuple[float, float], reason: str
) -> None:
    """Silence over IPv6 costs five seconds in all, a refusal none; a warning says what is not redirected."""
    dual.start_dns(f"{NAME}={MOCK},{MOCK6}")
    dual.start_mock("--quiet", at="[::]")
    dual.mock.run(
        "nft", f"table ip6 t {{ chain c {{ type filter hook input priority 0; tcp dport {PORT} {rule}; }}; }}"
    )
    begin = time.monotonic()
    done = dual.detour("curl", "-sSf", ID_URL, MOCK_ENDPOINTS="aws,eks", MOCK_PROBE="/latest/meta-data/instance-id")
    assert (done.returncode, done.stdout) == (0, INSTANCE), done.stderr
    assert seconds[0] <= time.monotonic() - begin < seconds[1]
    for address in (METADATA6, "fd00:ec2::23"):
        warning = f"{NAME} answers over IPv4 only: [{address}] is not redirected: {NAME} ([{MOCK6}]:{PORT}): "
        assert f"{warning}{reason}" in done.stderr


def test_ipv6_only_mock_leaves_ipv4_refused(dual: Network, backend: str) -> None:
    """With an IPv6-only mock the IPv6 endpoint works, IPv4 is refused, and one log line says so."""
    dual.start_dns(f"{NAME}={MOCK6}")
    dual.start_mock("--quiet", at="[::]")
    stderr = dual.success("curl", "-sS", ID_URL6, stdout=INSTANCE, MOCK_BACKEND=backend)
    expected = f"imds-detour: {NAME} answers over IPv6 only: 169.254.169.254 stays closed"
    assert [line for line in stderr.splitlines() if "IPv6 only" in line] == [expected]
    assert refuses(dual, ID_URL)


def test_ipv6_literal_works_as_the_mock(dual: Network, backend: str) -> None:
    """MOCK_HOSTNAME accepts [address]:port with an IPv6 address, without DNS."""
    dual.start_mock("--quiet", at="[::]")
    dual.wanted = {"MOCK_HOSTNAME": f"[{MOCK6}]:{PORT}", "MOCK_PORT": "1", "MOCK_BACKEND": backend}
    assert f"[{METADATA6}]:80 -> [{MOCK6}]:{PORT}, " in dual.success("curl", "-sS", ID_URL6, stdout=INSTANCE)


def test_missing_routes_are_added_over_loopback(dual: Network, backend: str) -> None:
    """Without a default route, both endpoints get a route over loopback; a failed start removes it."""
    for version in ("-4", "-6"):
        dual.app.ip(version, "route", "del", "default")
    dual.start_dns(f"{NAME}={MOCK},{MOCK6}")
    assert (dual.detour("true", MOCK_TIMEOUT="0.3", MOCK_BACKEND=backend).returncode, dual.detour_routes()) == (125, "")
    dual.start_mock("--quiet", at="[::]")
    dual.success("curl", "-sS", "--fail", ID_URL, ID_URL6, stdout=INSTANCE * 2, MOCK_BACKEND=backend)


FAILS_FOR_IPV6 = """
from imds_detour.firewall import rules
from imds_detour.firewall.change import Replace
from imds_detour.firewall.select import start_legacy
from imds_detour.config.presets import PRESETS
from imds_detour.errors import DetourError

firewall = start_legacy((4, 6))
refused = rules.Rule("filter", rules.LEGACY.guard, rules.Reject("no-such-reply"), version=6)
try:
    wanted = (*rules.guard_rules([PRESETS["aws"].endpoints[0].address], rules.LEGACY), refused)
    firewall.apply(Replace("filter", wanted), 1)
except DetourError as error:
    print("refused")
firewall.close()
"""


def test_failure_for_ipv6_undoes_the_ipv4_rules(dual: Network) -> None:
    """Legacy iptables commits each IP version separately: a failure of the second removes the first's rules."""
    dual.start_mock()
    assert (dual.app.run(sys.executable, "-c", FAILS_FOR_IPV6).stdout, dual.detour_rules()) == ("refused\n", "")


def test_namespace_without_ipv6_gets_an_ipv6_guard(network: Network, backend: str) -> None:
    """In a namespace without IPv6 a start guards IPv6 by nftables, without a redirect, and logs only its one line."""
    network.without_ipv6()
    network.start_dns()
    network.start_mock()
    assert network.success("true", MOCK_BACKEND=backend).count("\n") == 1
    listed = network.app.run("nft", "list", "table", "ip6", "imds_detour").stdout
    assert (METADATA6 in listed, "dnat" in listed, network.app.run("ip6tables-legacy-save").stdout) == (True, False, "")


def test_ipv6_mock_in_a_namespace_without_ipv6_fails_at_once(network: Network) -> None:
    """An IPv6 address as the mock fails at once, without a wait, in a namespace without IPv6."""
    network.without_ipv6()
    stderr = network.failure("true", MOCK_HOSTNAME=f"[{MOCK6}]:{PORT}", timeout=5)
    assert "there is no IPv6 in this network namespace" in stderr


HIDE_REJECT = "mkdir /run/xtables; cp -P /usr/lib/*/xtables/*.so /run/xtables; rm /run/xtables/lib{}_REJECT.so"


@pytest.mark.parametrize(
    ("missing", "closed", "prefix"),
    [
        ("ipt", "http://169.254.170.2/", ()),
        ("ip6t", ID_URL6, kernel_without("nftables")),  # otherwise nftables guards IPv6
        ("nft", ID_URL6, ()),
    ],
)
def test_guard_without_reject_drops(dual: Network, missing: str, closed: str, prefix: tuple[str, ...]) -> None:
    """If REJECT is missing for an IP version, the guard drops there, and a warning says so."""
    start_real_service6(dual)
    dual.start_mock()
    backend = "nft" if missing == "nft" else "legacy"
    if backend == "nft":
        guard, _ = nft_transactions.places(dual)
        done = nft_transactions.refused(dual, str(guard), "curl", "-sS", ID_URL)
    else:
        dual.app.run("sh", "-euc", HIDE_REJECT.format(missing))
        libraries = {"XTABLES_LIBDIR": "/run/xtables"}
        command = ("curl", "-sS", ID_URL)
        done = dual.detour(*command, prefix=prefix, environment=libraries, MOCK_HOSTNAME=MOCK, MOCK_BACKEND=backend)
    assert (done.returncode, done.stdout) == (0, INSTANCE), done
    assert done.stderr.count("the guard drops instead of rejecting, so that SDKs wait for a timeout: ") == 1
    dropped = dual.app.run("curl", "-sS", "--max-time", "0.3", closed, check=False)
    assert (dropped.returncode, dropped.stdout) == (28, "")  # curl's "timed out"
    # Control: with REJECT available it refuses at once.
    assert dual.detour("true", prefix=prefix, MOCK_HOSTNAME=MOCK, MOCK_BACKEND=backend).returncode == 0
    assert refuses(dual, closed)


@pytest.mark.parametrize(("mocks", "helpers"), [(MOCK, 1), (f"{MOCK},{MOCK6}", 2)])
def test_helper_for_ipv6_runs_only_for_an_ipv6_mock(dual: Network, mocks: str, helpers: int) -> None:
    """With IPv6 and a mock that has none, legacy iptables has one helper and nftables guards IPv6. Control: two."""
    start_real_service6(dual)
    dual.start_dns(f"{NAME}={mocks}")
    dual.start_mock("--quiet", at="[::]")
    log = "/run/forks.log"
    tracer = strace(log=log, calls=["clone"])
    dual.success("true", prefix=tracer, MOCK_BACKEND="legacy")
    assert dual.app.run("cat", log).stdout.count("|SIGCHLD, ") == helpers
    assert (METADATA6 in dual.app.run("nft", "list", "ruleset").stdout, refuses(dual, ID_URL6)) == (True, helpers == 1)


@pytest.mark.slow
def test_nftables_is_used_if_legacy_iptables_has_no_ipv6(dual: Network) -> None:
    """A mock with an IPv6 address is redirected by nftables if the kernel's legacy iptables has IPv4 only.

    Control: MOCK_BACKEND=legacy fails, and a mock without IPv6 is redirected by legacy iptables.
    """
    prefix = kernel_without("legacy IPv6")
    dual.start_dns(f"{NAME}={MOCK},{MOCK6}")
    dual.start_mock("--quiet", at="[::]")
    reason = "the kernel has no legacy iptables here (table filter: Protocol not available)"
    assert reason in dual.failure("true", prefix=prefix, MOCK_BACKEND="legacy")
    assert ", legacy iptables, " in dual.success("true", prefix=prefix, MOCK_HOSTNAME=MOCK)
    command = ("curl", "-sS", "--fail", ID_URL, ID_URL6)
    stderr = dual.success(*command, prefix=prefix, stdout=INSTANCE * 2, MOCK_LOG="debug")
    assert f"nftables is used instead: {reason}" in stderr
    assert ", nftables (" in stderr


@pytest.mark.slow
@pytest.mark.parametrize("owned", [True, False])
def test_helper_guards_ipv6_if_nftables_refuses_it(dual: Network, owned: bool) -> None:
    """If another program owns nftables' table for IPv6, legacy iptables guards that. Control: otherwise it does not."""
    start_real_service6(dual)
    dual.start_mock()
    with dual.app.popen("nft", "-i", stdin=subprocess.PIPE, stdout=subprocess.PIPE) as owner:
        assert owner.stdin
        assert owner.stdout
        if owned:
            owner.stdin.write("add table ip6 imds_detour { flags owner; }\n")
        owner.stdin.write("list tables\nadd table ip done\nlist tables\n")
        owner.stdin.flush()
        while "done" not in owner.stdout.readline():
            pass
        dual.success("true", MOCK_HOSTNAME=MOCK, MOCK_BACKEND="legacy")
        saved = METADATA6 in dual.app.run("ip6tables-legacy-save").stdout
        assert (saved, refuses(dual, ID_URL6)) == (owned, True)
        owner.kill()


def test_guard_that_cannot_cover_ipv6_fails_the_start(dual: Network) -> None:
    """With IPv6 and no firewall for it, a start fails. Control: with MOCK_GUARD=off, IPv4 is redirected."""
    prefix = (*kernel_without("nftables"), *kernel_without("legacy IPv6"))
    dual.start_mock("--quiet")
    reason = "IPv6 cannot be guarded: the kernel has no legacy iptables here (table filter: Protocol not available); "
    assert f"{reason}nftables cannot be used here: the kernel has none" in dual.failure(
        "true", prefix=prefix, MOCK_HOSTNAME=MOCK
    )
    dual.success("curl", "-sS", ID_URL, prefix=prefix, stdout=INSTANCE, MOCK_HOSTNAME=MOCK, MOCK_GUARD="off")


def test_failed_start_keeps_the_early_guard_of_ipv6(dual: Network) -> None:
    """A start whose legacy iptables fails after it has guarded IPv6 leaves that: another start may rely on it."""
    start_real_service6(dual)
    dual.start_mock("--quiet")
    dual.app.run("mkdir", "/run/none")
    extensions = {"XTABLES_LIBDIR": "/run/none"}
    dual.failure("true", environment=extensions, MOCK_HOSTNAME=MOCK, MOCK_BACKEND="legacy")
    assert refuses(dual, ID_URL6)


@pytest.mark.slow
def test_tools_work_where_legacy_iptables_has_no_ipv6(dual: Network) -> None:
    """Where legacy iptables has IPv4 only, doctor, status and remove see what a start installs there."""
    prefix = kernel_without("legacy IPv6")
    dual.start_mock("--quiet")
    settings = {"MOCK_HOSTNAME": MOCK, "MOCK_BACKEND": "legacy"}
    assert dual.ctl("doctor", prefix=prefix, **settings).returncode == 0
    dual.success("true", prefix=prefix, MOCK_HOSTNAME=MOCK)
    facts = json.loads(dual.ctl("status", "--json", prefix=prefix).stdout)
    assert [redirect["backend"] for redirect in facts["redirects"]] == ["legacy iptables"]
    removed = dual.ctl("remove", prefix=prefix)
    assert (removed.returncode, removed.stderr) == (0, "")
    assert (dual.detour_rules(), METADATA6 in dual.app.run("nft", "list", "ruleset").stdout) == ("", False)


@pytest.mark.slow
def test_nftables_is_used_if_the_helper_for_ipv6_cannot_start(dual: Network) -> None:
    """At the limit on processes, the second helper cannot start: auto uses nftables. Control: legacy fails."""
    dual.start_dns(f"{NAME}={MOCK},{MOCK6}")
    dual.start_mock("--quiet", at="[::]")
    tracer = strace(Injection("clone", "error=EAGAIN", "2+"))
    assert "cannot start the firewall helper" in dual.failure("true", prefix=tracer, MOCK_BACKEND="legacy")
    command = ("curl", "-sS", "--fail", ID_URL, ID_URL6)
    assert ", nftables (" in dual.success(*command, prefix=tracer, stdout=INSTANCE * 2, MOCK_LOG="debug")
