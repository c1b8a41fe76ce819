"""The sidecar closes at once, redirects when the mock answers, follows it, and closes again when it is gone."""

import json
import re
import signal
import subprocess
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.hosts.network import INSTANCE, METADATA, MOCK, NAME, PORT, Network, end
from tests.support.hosts.sidecars import LISTEN, SECOND, Sidecars, asked, count, data, listed, move, translations, until
from tests.support.marks import first_quick


@pytest.mark.parametrize("backend", ["auto", "legacy", "nft"])
def test_sidecar_closes_at_once_and_redirects_with_a_mock(network: Network, sidecars: Sidecars, backend: str) -> None:
    """Before the mock answers, requests are refused; then the app reads from the mock."""
    network.start_dns()
    sidecar = sidecars.start(MOCK_BACKEND=backend, says="aws is closed while there is no mock: .*connection refused")
    assert "Connection refused" in asked(network) or "Failed to connect" in asked(network)
    network.start_mock()
    line = sidecar.says(f"{METADATA}:80 -> ")
    name = "legacy iptables" if backend == "legacy" else "nftables"
    assert f"-> {NAME} ({MOCK}:{PORT}), {name}, verified IMDSv2" in line
    assert asked(network) == INSTANCE


@pytest.mark.parametrize("backend", first_quick(["legacy", "nft"]))
def test_sidecar_follows_the_mock_to_another_address(moving: Network, sidecars: Sidecars, backend: str) -> None:
    """Soon after the name changes its address, the redirect leads to it, and the old mock gets no request."""
    moving.start_mock("--data", data(moving, "i-00000000000000001"), at=MOCK)
    moving.start_mock("--data", data(moving, "i-00000000000000002"), at=SECOND)
    sidecar = sidecars.start(MOCK_BACKEND=backend, says="verified IMDSv2 i-00000000000000001")
    for address, instance in ((SECOND, "i-00000000000000002"), (MOCK, "i-00000000000000001")) * 2:
        move(moving, address)
        changed = time.monotonic()
        sidecar.says(f"verified IMDSv2 {instance}")
        assert time.monotonic() - changed < 5, "1 s for the TTL, and some for a busy machine"
        assert asked(moving) == instance
    assert len(translations(moving, backend)) == 1


def test_sidecar_closes_while_the_mock_is_gone(network: Network, sidecars: Sidecars) -> None:
    """While the mock is stopped, the app's requests are refused at once."""
    network.start_dns()
    mock = network.start_mock()
    sidecar = sidecars.start("--every", "0.5")
    mock.kill()
    sidecar.says("aws is closed while there is no mock")
    assert INSTANCE not in asked(network)
    assert translations(network, "nft") == []
    network.start_mock()
    sidecar.says("verified")
    assert asked(network) == INSTANCE


@pytest.mark.slow
def test_dns_failure_does_not_close_the_redirect(moving: Network, sidecars: Sidecars) -> None:
    """If the name server fails and the mock answers its probes, the redirect stays."""
    moving.start_mock()
    sidecar = sidecars.start("--listen", LISTEN, "--every", "0.5")
    moving.mock.run("rm", "/run/zone")
    assert until(lambda: count(sidecar, "lookup_failures"), lambda value: value >= 2) >= 2
    assert (sidecar.get("/readyz")[0], asked(moving)) == (200, INSTANCE)


@pytest.mark.slow
def test_another_service_at_the_mocks_address_closes_the_redirect(network: Network, sidecars: Sidecars) -> None:
    """If another container gets the mock's address and answers everything, the redirect closes."""
    network.start_dns()
    mock = network.start_mock()
    sidecar = sidecars.start("--every", "0.5")
    mock.kill()
    mock.wait()
    network.start_faulty("GET=body:<html>hello</html>")
    sidecar.says("aws is closed while there is no mock: .*with a web page")
    assert "hello" not in asked(network)


def test_sigterm_removes_the_redirect_and_ends_with_0(ready: Network, sidecars: Sidecars, backend: str) -> None:
    """SIGTERM ends the sidecar soon with status 0; its redirect is gone, and the guard and foreign rules stay."""
    before = ready.foreign()
    sidecar = sidecars.start(MOCK_BACKEND=backend)
    assert ready.detour_redirects() != ""  # the control
    sent = time.monotonic()
    assert sidecar.stop() == 0
    assert time.monotonic() - sent < 5
    assert (ready.detour_redirects(), ready.detour_routes(), ready.foreign()) == ("", "", before)
    assert METADATA in ready.guarded()


@pytest.mark.slow
def test_keep_leaves_the_redirect_for_the_next_sidecar(ready: Network, sidecars: Sidecars) -> None:
    """With --keep, a restarted sidecar interrupts no request of the app."""
    for _ in range(2):
        assert (sidecars.start("--keep").stop(), asked(ready)) == (0, INSTANCE)
    assert len(translations(ready, "nft")) == 1


def test_removed_rules_are_restored(ready: Network, sidecars: Sidecars) -> None:
    """If another program flushes the firewall, the sidecar restores its rules, and says so once."""
    sidecar = sidecars.start("--every", "0.5")
    installed = listed(ready)
    ready.app.run("nft", "flush", "ruleset")
    sidecar.says("another program has changed imds-detour's firewall rules: they are put back")
    until(lambda: listed(ready), lambda now: now == installed)
    assert asked(ready) == INSTANCE


@pytest.mark.slow
def test_sighup_probes_at_once(moving: Network, sidecars: Sidecars) -> None:
    """With an hour between probes, SIGHUP makes the sidecar notice at once that the mock is gone."""
    mock = moving.start_mock()
    sidecar = sidecars.start("--every", "3600")
    mock.kill()
    mock.wait()
    sidecar.process.send_signal(signal.SIGHUP)
    sidecar.says("aws is closed while there is no mock")


def test_status_and_check_use_the_sidecars_last_probe(ready: Network, sidecars: Sidecars) -> None:
    """`status` gets the last probe from a socket of the network namespace."""
    sidecars.start()
    probe = json.loads(ready.ctl("status", "--json").stdout)["probe"]
    assert (probe["verified"], probe["text"], ready.ctl("check").returncode) == (True, f"aws: IMDSv2 {INSTANCE}", 0)


def test_sidecar_serves_health_readiness_metrics_and_a_page(network: Network, sidecars: Sidecars) -> None:
    """/readyz reports verification, Prometheus' own parser reads /metrics, and a silent client blocks no other."""
    network.start_dns()
    sidecar = sidecars.start("--listen", LISTEN, says="closed")
    assert (sidecar.get("/healthz"), sidecar.get("/readyz")[0]) == ((200, "ok\n"), 503)
    network.start_mock()
    sidecar.says("verified")
    assert sidecar.get("/readyz") == (200, "ok\n")
    families = {family.name: family for family in text_string_to_metric_families(sidecar.get("/metrics")[1])}
    ready = families["imds_detour_ready"].samples[0]
    assert (ready.labels, ready.value, families["imds_detour_probes"].type) == ({"service": "aws"}, 1.0, "counter")
    status, page = sidecar.get("/")
    assert status == 200
    assert f"{NAME} ({MOCK}:{PORT})" in page
    assert json.loads(sidecar.get("/status.json")[1])["ready"] is True
    host, port = LISTEN.split(":")
    silent = network.app.popen("sh", "-c", f"exec 3<>/dev/tcp/{host}/{port}; cat", stdin=subprocess.PIPE)
    assert sidecar.get("/else")[0] == 404
    end(silent)


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("--listen", "nowhere"), "--listen 'nowhere' is not valid"),
        (("--listen", "192.0.2.1:80"), "cannot listen on 192.0.2.1:80"),
        (("--every", "0"), "--every 0 is not valid"),
        (("--backend", "env"), "MOCK_BACKEND=env sets variables for an app"),
        (("--probe", "off"), "MOCK_PROBE=off leaves the sidecar nothing to follow by; leave it out, or use init"),
    ],
)
def test_bad_option_of_the_sidecar_is_one_line(sidecars: Sidecars, flags: tuple[str, ...], reason: str) -> None:
    """A sidecar that cannot start prints one line, and exits with 125."""
    assert sidecars.start(*flags, says=re.escape(reason)).ends() == 125
