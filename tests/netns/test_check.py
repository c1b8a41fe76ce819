"""imds-detourctl check: is it the mock that answers at the metadata address, now? For HEALTHCHECK."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.hosts.network import CTL, ID_URL, INSTANCE, METADATA, MOCK, NAME, PORT

if TYPE_CHECKING:
    import subprocess

    from tests.support.hosts.network import Network

BACKENDS = pytest.mark.parametrize("backend", ["legacy", "nft"])
NO_NET_ADMIN = ("setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin")
NO_NET_RAW = ("setpriv", "--bounding-set", "-net_raw", "--inh-caps", "-net_raw")
BY_RULE = "by our rule"
BY_COMPARISON = "by comparison alone: our rule cannot be seen from here"


def check(
    network: Network, *prefix: str, flags: tuple[str, ...] = (), **settings: str
) -> subprocess.CompletedProcess[str]:
    """Run it on the app's host; whatever comes of it, it is one line."""
    done = network.app.run(*prefix, CTL, "check", *flags, environ=network.settings(None, **settings), check=False)
    assert (done.stdout + done.stderr).count("\n") == 1, done
    assert done.stdout == "" or done.returncode == 0
    return done


@pytest.fixture
def ready(network: Network) -> Network:
    """Give a network with a mock and a DNS server."""
    network.start_dns()
    network.start_mock()
    return network


@BACKENDS
@pytest.mark.parametrize(("prefix", "how"), [((), BY_RULE), (NO_NET_ADMIN, BY_COMPARISON)])
def test_while_the_mock_answers_it_is_healthy(ready: Network, backend: str, prefix: tuple[str, ...], how: str) -> None:
    """With NET_ADMIN the counter of our rule counts as well; without, the answers are compared."""
    assert ready.detour("true", MOCK_BACKEND=backend).returncode == 0
    done = check(ready, *prefix)
    line = f"{METADATA}:80 -> {NAME} ({MOCK}:{PORT}), verified IMDSv2 {INSTANCE}, {how}\n"
    assert (done.returncode, done.stdout) == (0, line)


def test_an_app_behind_the_entrypoint_can_run_it_itself(ready: Network) -> None:
    """It has no NET_ADMIN by then."""
    done = ready.detour(CTL, "check", MOCK_LOG="quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    loud = ready.detour("env", "-u", "MOCK_LOG", CTL, "check", MOCK_LOG="quiet")
    assert loud.stdout.endswith(f"{BY_COMPARISON}\n")


def test_a_rule_that_cannot_be_seen_is_not_laid_to_a_capability_that_is_there(ready: Network) -> None:
    """With NET_ADMIN and without NET_RAW a rule in legacy iptables is out of sight, and one in nftables is not."""
    for backend, how in (("legacy", BY_COMPARISON), ("nft", BY_RULE)):
        assert ready.detour("true", MOCK_BACKEND=backend).returncode == 0
        done = check(ready, *NO_NET_RAW)
        assert (done.returncode, done.stdout.endswith(f", {how}\n")) == (0, True), done
        assert ready.app.run(CTL, "remove").returncode == 0


def test_without_a_redirect_nobody_is_asked(ready: Network) -> None:
    """Where it can be seen that none stands, a service that is at the address for real hears nothing of us."""
    ready.mock.ip("address", "add", METADATA, "dev", "lo")
    ready.start_real_service(ready.mock)
    done = check(ready)
    assert done.returncode == 1
    assert f"{METADATA}:80 is not redirected by imds-detour" in done.stderr


def test_somebody_else_is_not_the_mock(ready: Network) -> None:
    """Without NET_ADMIN and without a redirect the real service answers, and is found out."""
    ready.mock.ip("address", "add", METADATA, "dev", "lo")
    ready.start_real_service(ready.mock)
    done = check(ready, *NO_NET_ADMIN)
    assert done.returncode == 1
    assert f"another service answers at {METADATA}:80: IMDSv2 i-0real0real0real00" in done.stderr


@BACKENDS
def test_when_the_mock_is_gone_it_is_unhealthy(network: Network, backend: str) -> None:
    """At once: there is no waiting in a health check."""
    network.start_dns()
    mock = network.start_mock()
    assert network.detour("true", MOCK_BACKEND=backend).returncode == 0
    mock.kill()
    mock.wait()
    done = check(network)
    assert done.returncode == 1
    assert f"{NAME} ({MOCK}:{PORT}): connection refused" in done.stderr


@pytest.mark.slow
@BACKENDS
def test_when_the_mock_has_moved_the_old_place_is_named(network: Network, backend: str) -> None:
    """The redirect still leads to the old address, and the name to the new one."""
    network.start_dns(f"{NAME}={MOCK}*2", f"{NAME}=10.88.0.4")
    network.mock.ip("address", "add", "10.88.0.4/24", "dev", "eth0")
    network.start_mock()
    assert network.app.run(CTL, "init", "--mock", MOCK, "--port", PORT, "--backend", backend).returncode == 0
    network.app.write("hosts", f"10.88.0.4 {NAME}\n")
    done = check(network)
    assert done.returncode == 1
    assert f"{METADATA}:80 leads to {MOCK}:{PORT}, and the mock is at {NAME} (10.88.0.4:{PORT}) now" in done.stderr


def test_any_of_the_addresses_that_the_name_has_is_right(network: Network) -> None:
    """A mock in two copies: the redirect leads to the second, since the first was not there at the start."""
    network.mock.ip("address", "add", "10.88.0.4/24", "dev", "eth0")
    network.start_mock()
    assert network.app.run(CTL, "init", "--mock", "10.88.0.4", "--port", PORT).returncode == 0
    network.app.write("hosts", f"{MOCK} {NAME}\n10.88.0.4 {NAME}\n")
    done = check(network)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"-> {NAME} (10.88.0.4:{PORT}), " in done.stdout


@pytest.mark.slow
def test_when_something_takes_the_way_it_is_unhealthy(ready: Network) -> None:
    """The mock answers, and not through the metadata address."""
    assert ready.detour("true").returncode == 0
    ready.app.run("nft", "add table ip t; add chain ip t c { type filter hook output priority 9; }")
    ready.app.run("nft", "add rule ip t c ct status dnat drop")
    done = check(ready)
    assert done.returncode == 1
    assert f"the mock answers at {MOCK}:{PORT} and not through {METADATA}:80: " in done.stderr


@pytest.mark.slow
def test_bad_settings_are_status_1_too(ready: Network) -> None:
    """HEALTHCHECK knows 0 and 1; the line is the same as everywhere."""
    assert check(ready, MOCK_PORT="http").returncode == 1
    nowhere = check(ready, MOCK_HOSTNAME="unset")
    assert nowhere.returncode == 1
    assert "MOCK_HOSTNAME is not set" in nowhere.stderr
    off = check(ready, MOCK_PROBE="off")
    assert off.returncode == 1
    assert "MOCK_PROBE=off leaves nothing to compare" in off.stderr


def test_flags_stand_for_the_settings(ready: Network) -> None:
    """For a HEALTHCHECK in a container that has no such environment."""
    assert ready.detour("true").returncode == 0
    done = check(ready, flags=("--mock", MOCK, "--port", PORT), MOCK_HOSTNAME="unset", MOCK_PORT="unset")
    assert done.returncode == 0


def test_over_ipv6_as_well(network: Network) -> None:
    """Both redirects are looked at where the mock answers over both."""
    for host, address in ((network.mock, "fd88::3"), (network.app, "fd88::2")):
        host.ip("address", "add", f"{address}/64", "dev", "eth0", "nodad")
    network.app.write("hosts", f"{MOCK} {NAME}\nfd88::3 {NAME}\n")
    network.start(network.mock, CTL, "mock", "--listen", f"[::]:{PORT}", "--quiet")
    assert network.detour("true").returncode == 0
    done = check(network)
    assert done.returncode == 0, done.stderr
    assert f"; [fd00:ec2::254]:80 -> {NAME} ([fd88::3]:{PORT}), verified IMDSv2 {INSTANCE}, {BY_RULE}\n" in done.stdout


def test_it_loads_what_it_needs_and_no_more(ready: Network) -> None:
    """A health check runs every few seconds: no command line parser, nothing of the other verbs."""
    assert ready.detour("true", MOCK_BACKEND="nft").returncode == 0
    done = ready.app.run(sys.executable, "-X", "importtime", CTL, "check", environ=ready.settings(None))
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "imds_detour.ctl.rule_reader" in loaded
    heavy = {"argparse", "asyncio", "json", "tenacity", "dns", "iptc", "pickle", "imds_detour.ctl.doctor"}
    assert loaded & heavy == set()
    assert ready.app.run("curl", "-sS", ID_URL).stdout == INSTANCE
