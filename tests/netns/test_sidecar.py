"""The sidecar: it closes at once, redirects when the mock is there, follows it, and closes again when it is gone."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.hosts.network import CTL, INSTANCE, METADATA, MOCK, NAME, PORT
from tests.support.hosts.sidecars import LISTEN, SECOND, Sidecar, asked, count, data, listed, move, translations, until
from tests.support.marks import first_quick

if TYPE_CHECKING:
    from tests.support.hosts.network import Network


@pytest.mark.parametrize("backend", ["auto", "legacy", "nft"])
def test_it_closes_at_once_and_opens_when_the_mock_answers(
    network: Network, sidecars: list[Sidecar], backend: str
) -> None:
    """Before there is a mock, even before its name is known, nobody gets out; then the app reads from the mock."""
    network.start_dns()
    sidecars.append(sidecar := Sidecar(network, MOCK_BACKEND=backend))
    sidecar.says("aws is closed while there is no mock: .*connection refused")
    assert "Connection refused" in asked(network) or "Failed to connect" in asked(network)
    network.start_mock()
    line = sidecar.says(f"{METADATA}:80 -> ")
    name = "legacy iptables" if backend == "legacy" else "nftables"
    assert f"-> {NAME} ({MOCK}:{PORT}), {name}, verified IMDSv2" in line
    assert asked(network) == INSTANCE


@pytest.mark.parametrize("backend", first_quick(["legacy", "nft"]))
def test_it_follows_the_mock_to_another_address(
    network: Network, sidecars: list[Sidecar], zone: str, backend: str
) -> None:
    """The name leads elsewhere: soon after, so does the redirect, and the old mock hears no more."""
    assert zone
    network.start_mock("--data", data(network, "i-00000000000000001"), at=MOCK)
    network.start_mock("--data", data(network, "i-00000000000000002"), at=SECOND)
    sidecars.append(sidecar := Sidecar(network, MOCK_BACKEND=backend))
    sidecar.says("verified IMDSv2 i-00000000000000001")
    for address, instance in ((SECOND, "i-00000000000000002"), (MOCK, "i-00000000000000001")) * 2:
        move(network, address)
        changed = time.monotonic()
        sidecar.says(f"verified IMDSv2 {instance}")
        assert time.monotonic() - changed < 5, "1 s for the TTL, and some for a busy machine"
        assert asked(network) == instance
    assert len(translations(network, backend)) == 1


def test_it_closes_when_the_mock_is_gone_and_opens_when_it_is_back(network: Network, sidecars: list[Sidecar]) -> None:
    """The container is stopped and started: between the two, the app is refused at once."""
    network.start_dns()
    mock = network.start_mock()
    sidecars.append(sidecar := Sidecar(network, "--every", "0.5"))
    sidecar.says("verified")
    mock.kill()
    sidecar.says("aws is closed while there is no mock")
    assert INSTANCE not in asked(network)
    assert translations(network, "nft") == []
    network.start_mock()
    sidecar.says("verified")
    assert asked(network) == INSTANCE


@pytest.mark.slow
def test_dns_that_fails_closes_nothing_while_the_mock_answers(
    network: Network, sidecars: list[Sidecar], zone: str
) -> None:
    """It is the probe that decides, not a name server that is restarted."""
    assert zone
    network.start_mock()
    sidecars.append(sidecar := Sidecar(network, "--listen", LISTEN, "--every", "0.5"))
    sidecar.says("verified")
    network.mock.run("rm", "/run/zone")
    failures = until(lambda: count(sidecar, "lookup_failures"), lambda value: value >= 2)
    assert failures >= 2
    assert (sidecar.get("/readyz")[0], asked(network)) == (200, INSTANCE)


@pytest.mark.slow
def test_somebody_else_at_the_mocks_address_is_not_taken_for_it(network: Network, sidecars: list[Sidecar]) -> None:
    """The address is given to another container, which answers everything: the redirect closes."""
    network.start_dns()
    mock = network.start_mock()
    sidecars.append(sidecar := Sidecar(network, "--every", "0.5"))
    sidecar.says("verified")
    mock.kill()
    mock.wait()
    network.start_faulty("GET=body:<html>hello</html>")
    sidecar.says("aws is closed while there is no mock: .*which is no instance id")
    assert "hello" not in asked(network)


@pytest.mark.parametrize("backend", ["legacy", "nft"])
def test_sigterm_takes_everything_out_and_ends_with_0(network: Network, sidecars: list[Sidecar], backend: str) -> None:
    """Within a second on a quiet machine; what others have there stays."""
    network.start_dns()
    network.start_mock()
    before = network.foreign()
    sidecars.append(sidecar := Sidecar(network, MOCK_BACKEND=backend))
    sidecar.says("verified")
    asked_to = time.monotonic()
    sidecar.process.send_signal(signal.SIGTERM)
    assert sidecar.ends() == 0
    assert time.monotonic() - asked_to < 5
    assert (network.ours(), network.our_routes(), network.foreign()) == ("", "", before)


@pytest.mark.slow
def test_sigterm_is_heard_before_there_is_a_mock(network: Network, sidecars: list[Sidecar]) -> None:
    """While the name server is silent, too."""
    network.start_dns("silent")
    sidecars.append(sidecar := Sidecar(network))
    sidecar.says("aws is closed while there is no mock")
    sidecar.process.send_signal(signal.SIGTERM)
    assert sidecar.ends() == 0
    assert network.app.run("nft", "list", "ruleset").stdout == ""


@pytest.mark.slow
def test_with_keep_the_redirect_outlives_it_and_the_next_one_takes_over(
    network: Network, sidecars: list[Sidecar]
) -> None:
    """For a restart under load: the app sees nothing of it."""
    network.start_dns()
    network.start_mock()
    for _ in range(2):
        sidecars.append(sidecar := Sidecar(network, "--keep"))
        sidecar.says("verified")
        sidecar.process.send_signal(signal.SIGTERM)
        assert sidecar.ends() == 0
        assert asked(network) == INSTANCE
    assert len(translations(network, "nft")) == 1


def test_rules_that_somebody_takes_out_are_put_back(network: Network, sidecars: list[Sidecar]) -> None:
    """A firewall that is flushed, as by a script that knows only itself; said once."""
    network.start_dns()
    network.start_mock()
    sidecars.append(sidecar := Sidecar(network, "--every", "0.5"))
    sidecar.says("verified")
    standing = listed(network)
    network.app.run("nft", "flush", "ruleset")
    sidecar.says("another program has changed our firewall rules: they are put back")
    until(lambda: listed(network), lambda now: now == standing)
    assert asked(network) == INSTANCE


@pytest.mark.slow
def test_sighup_looks_again_at_once(network: Network, sidecars: list[Sidecar], zone: str) -> None:
    """With an hour between probes, somebody who knows that the mock is gone need not wait."""
    assert zone
    mock = network.start_mock()
    sidecars.append(sidecar := Sidecar(network, "--every", "3600"))
    sidecar.says("verified")
    mock.kill()
    mock.wait()
    sidecar.process.send_signal(signal.SIGHUP)
    sidecar.says("aws is closed while there is no mock")


def test_a_second_one_in_the_same_namespace_is_refused(network: Network, sidecars: list[Sidecar]) -> None:
    """Two would take turns in undoing each other's work; the first one goes on."""
    network.start_dns()
    network.start_mock()
    sidecars.append(first := Sidecar(network))
    first.says("verified")
    sidecars.append(second := Sidecar(network))
    second.says("another imds-detour sidecar is at work in this network namespace")
    assert second.ends() == 125
    assert asked(network) == INSTANCE


def test_status_knows_what_the_sidecar_saw_last(network: Network, sidecars: list[Sidecar]) -> None:
    """Through a socket that belongs to the network namespace: no file, no port."""
    network.start_dns()
    network.start_mock()
    sidecars.append(sidecar := Sidecar(network))
    sidecar.says("verified")
    probe = json.loads(network.app.run(CTL, "status", "--json").stdout)["probe"]
    assert (probe["verified"], probe["text"]) == (True, f"aws: IMDSv2 {INSTANCE}")
    assert network.app.run(CTL, "check", environ=network.settings()).returncode == 0


def test_health_readiness_metrics_and_a_page(network: Network, sidecars: list[Sidecar]) -> None:
    """Ready means verified now, healthy is the process; the metrics are read by Prometheus' own parser."""
    network.start_dns()
    sidecars.append(sidecar := Sidecar(network, "--listen", LISTEN))
    sidecar.says("closed")
    assert sidecar.get("/healthz") == (200, "ok\n")
    assert sidecar.get("/readyz")[0] == 503
    network.start_mock()
    sidecar.says("verified")
    assert sidecar.get("/readyz") == (200, "ok\n")
    families = {family.name: family for family in text_string_to_metric_families(sidecar.get("/metrics")[1])}
    ready = families["imds_detour_ready"].samples[0]
    assert (ready.labels, ready.value) == ({"service": "aws"}, 1.0)
    assert families["imds_detour_probes"].type == "counter"
    status, page = sidecar.get("/")
    assert status == 200
    assert f"{NAME} ({MOCK}:{PORT})" in page
    assert json.loads(sidecar.get("/status.json")[1])["ready"] is True
    assert sidecar.get("/else")[0] == 404


def test_a_client_that_says_nothing_holds_nobody_up_for_long(network: Network, sidecars: list[Sidecar]) -> None:
    """A connection that stays silent is dropped, and the next one is served."""
    network.start_dns()
    network.start_mock()
    sidecars.append(sidecar := Sidecar(network, "--listen", LISTEN))
    sidecar.says("verified")
    host, port = LISTEN.split(":")
    silent = network.app.popen("sh", "-c", f"exec 3<>/dev/tcp/{host}/{port}; cat", stdin=subprocess.PIPE)
    assert sidecar.get("/healthz") == (200, "ok\n")
    silent.kill()
    silent.communicate()


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
def test_what_keeps_it_from_starting_is_one_line(
    network: Network, sidecars: list[Sidecar], flags: tuple[str, ...], reason: str
) -> None:
    """Status 125, as for everything that cannot be begun."""
    sidecars.append(sidecar := Sidecar(network, *flags))
    sidecar.says(re.escape(reason))
    assert sidecar.ends() == 125
