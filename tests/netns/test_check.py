"""imds-detourctl check, for HEALTHCHECK: whether the mock answers at the metadata address now."""

import sys

import pytest

from tests.support.faults.capabilities import without
from tests.support.hosts.network import CTL, ID_URL, INSTANCE, METADATA, MOCK, NAME, PORT, Network

BY_RULE = "by the rule"
BY_COMPARISON = "by comparison alone: the rule cannot be seen from here"


def healthy(network: Network, *flags: str, prefix: tuple[str, ...] = (), **settings: str) -> str:
    """Run the check, assert that it succeeds with one line, and return that line."""
    done = network.ctl("check", *flags, prefix=prefix, **settings)
    assert (done.returncode, done.stderr, done.stdout.count("\n")) == (0, "", 1), done
    return done.stdout


def unhealthy(network: Network, reason: str, prefix: tuple[str, ...] = (), **settings: str) -> None:
    """Run the check, and assert that it fails with one line that gives this reason."""
    done = network.ctl("check", prefix=prefix, **settings)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done
    assert reason in done.stderr


@pytest.mark.parametrize(("prefix", "method"), [((), BY_RULE), (without("net_admin"), BY_COMPARISON)])
def test_check_with_a_mock_is_healthy(ready: Network, backend: str, prefix: tuple[str, ...], method: str) -> None:
    """The check succeeds: by the rule's counter with NET_ADMIN, by comparing answers without."""
    assert ready.detour("true", MOCK_BACKEND=backend).returncode == 0
    line = f"{METADATA}:80 -> {NAME} ({MOCK}:{PORT}), verified IMDSv2 {INSTANCE}, {method}\n"
    assert healthy(ready, prefix=prefix) == line


def test_check_works_as_the_app_and_by_flags(ready: Network) -> None:
    """The check succeeds as the app, which has no NET_ADMIN, and with flags instead of variables."""
    done = ready.detour(CTL, "check", MOCK_LOG="quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert ready.detour("env", "-u", "MOCK_LOG", CTL, "check", MOCK_LOG="quiet").stdout.endswith(f"{BY_COMPARISON}\n")
    assert healthy(ready, "--mock", MOCK, "--port", PORT, MOCK_HOSTNAME="unset", MOCK_PORT="unset")


def test_check_without_net_raw_reads_nftables_rules(ready: Network) -> None:
    """Without NET_RAW the check compares answers for a legacy iptables rule, and reads an nftables rule."""
    for backend, method in (("legacy", BY_COMPARISON), ("nft", BY_RULE)):
        assert ready.detour("true", MOCK_BACKEND=backend).returncode == 0
        assert healthy(ready, prefix=without("net_raw")).endswith(f", {method}\n")
        assert ready.app.run(CTL, "remove").returncode == 0


def test_check_without_a_redirect_is_unhealthy(ready: Network) -> None:
    """Without a redirect the check does not contact the real service, with and without NET_ADMIN to read rules."""
    ready.mock.ip("address", "add", METADATA, "dev", "lo")
    ready.start_real_service(ready.mock)
    replaced = "where ENTRYPOINT is replaced (GitHub `container:` jobs, dev containers, `--entrypoint`), run"
    no_guard = ", and there is no guard: the real service could answer"
    for prefix, seen in (
        ((), f"{METADATA}:80 is not redirected by imds-detour{no_guard}; "),
        (without("net_admin"), f"no redirect or guard of {METADATA}:80 can be seen, so it is not asked: the real "),
    ):
        unhealthy(ready, seen, prefix=prefix)
        unhealthy(ready, f"{replaced} `imds-detourctl init`", prefix=prefix)
    ready.detour("true", MOCK_HOSTNAME="no-such-host", MOCK_TIMEOUT="1")
    done = ready.ctl("check")
    assert no_guard not in done.stderr, "control: a start that failed has left its guard"
    assert f"{METADATA}:80 is not redirected by imds-detour; " in done.stderr


def test_check_of_a_stopped_mock_is_unhealthy(network: Network, backend: str) -> None:
    """The check fails at once, without a wait, when the mock has stopped."""
    network.start_dns()
    mock = network.start_mock()
    assert network.detour("true", MOCK_BACKEND=backend).returncode == 0
    mock.kill()
    mock.wait()
    unhealthy(network, f"{NAME} ({MOCK}:{PORT}): connection refused")


@pytest.mark.slow
def test_check_of_a_moved_mock_names_both_addresses(network: Network, backend: str) -> None:
    """The check fails when the mock's name has a new address, and names the redirect's target too."""
    network.start_dns(f"{NAME}={MOCK}*2", f"{NAME}=10.88.0.4")
    network.mock.ip("address", "add", "10.88.0.4/24", "dev", "eth0")
    network.start_mock()
    assert network.app.run(CTL, "init", "--mock", MOCK, "--port", PORT, "--backend", backend).returncode == 0
    network.app.write("hosts", f"10.88.0.4 {NAME}\n")
    unhealthy(network, f"{METADATA}:80 leads to {MOCK}:{PORT}, and the mock is at {NAME} (10.88.0.4:{PORT}) now")


def test_check_accepts_any_address_of_the_mock(network: Network) -> None:
    """The check succeeds when the redirect's target is the second of the mock's addresses."""
    network.mock.ip("address", "add", "10.88.0.4/24", "dev", "eth0")
    network.start_mock()
    assert network.app.run(CTL, "init", "--mock", "10.88.0.4", "--port", PORT).returncode == 0
    network.app.write("hosts", f"{MOCK} {NAME}\n10.88.0.4 {NAME}\n")
    assert f"-> {NAME} (10.88.0.4:{PORT}), " in healthy(network)


@pytest.mark.slow
def test_check_of_a_blocked_redirect_is_unhealthy(ready: Network) -> None:
    """The check fails when another rule drops redirected packets and the mock answers directly."""
    assert ready.detour("true").returncode == 0
    ready.app.run("nft", "add table ip t; add chain ip t c { type filter hook output priority 9; }")
    ready.app.run("nft", "add rule ip t c ct status dnat drop")
    unhealthy(ready, f"the mock answers at {MOCK}:{PORT} and not through {METADATA}:80: ")


@pytest.mark.slow
def test_check_with_bad_settings_has_status_1(ready: Network) -> None:
    """The check exits with 1, as HEALTHCHECK requires, for invalid settings."""
    unhealthy(ready, "MOCK_PORT='http' is not valid", MOCK_PORT="http")
    unhealthy(ready, "MOCK_HOSTNAME is not set", MOCK_HOSTNAME="unset")
    unhealthy(ready, "MOCK_PROBE=off leaves nothing to compare", MOCK_PROBE="off")


def test_check_verifies_ipv6(network: Network) -> None:
    """The check verifies the IPv4 and the IPv6 redirect when the mock answers over both."""
    network.add_ipv6()
    network.app.write("hosts", f"{MOCK} {NAME}\nfd88::3 {NAME}\n")
    network.start_mock("--quiet", at="[::]")
    assert network.detour("true").returncode == 0
    line = f"; [fd00:ec2::254]:80 -> {NAME} ([fd88::3]:{PORT}), verified IMDSv2 {INSTANCE}, {BY_RULE}\n"
    assert line in healthy(network)


def test_check_imports_no_heavy_modules(ready: Network) -> None:
    """The check, which runs every few seconds, imports no argument parser and no modules of other verbs."""
    assert ready.detour("true", MOCK_BACKEND="nft").returncode == 0
    done = ready.app.run(sys.executable, "-X", "importtime", CTL, "check", environ=ready.settings(None))
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "imds_detour.ctl.rule_reader" in loaded
    heavy = {"argparse", "asyncio", "json", "tenacity", "dns", "iptc", "pickle", "imds_detour.ctl.doctor"}
    assert (loaded & heavy, ready.app.run("curl", "-sS", ID_URL).stdout) == (set(), INSTANCE)
