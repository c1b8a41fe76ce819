"""The sidecar's start and end: it is the only one in its namespace, and any wait ends with a stop."""

from __future__ import annotations

import signal
import sys
import time
from typing import TYPE_CHECKING

import pytest

from imds_detour.ctl.sidecar import pages
from imds_detour.ctl.sidecar.state import State
from tests.support.hosts.network import CTL, MOCK
from tests.support.hosts.sidecars import LISTEN, Sidecar, listed

if TYPE_CHECKING:
    from tests.support.hosts.network import Network


def test_a_second_sidecar_changes_no_rule(network: Network, sidecars: list[Sidecar]) -> None:
    """A second sidecar with other services ends before it replaces the first one's rules."""
    network.start_dns()
    network.start_mock()
    sidecars.append(first := Sidecar(network))
    first.says("verified")
    installed = listed(network)
    sidecars.append(second := Sidecar(network, MOCK_ENDPOINTS="alibaba"))
    second.says("another imds-detour sidecar is at work in this network namespace")
    assert second.ends() == 125
    assert listed(network) == installed
    assert "169.254.169.254" in installed
    first.process.terminate()
    assert first.ends() == 0
    sidecars.append(alone := Sidecar(network, MOCK_ENDPOINTS="alibaba"))  # the control: alone it installs its rules
    alone.says("verified")
    assert "100.100.100.200" in listed(network)


@pytest.mark.slow
def test_a_sidecar_without_a_thread_ends_with_a_line(network: Network, sidecars: list[Sidecar]) -> None:
    """If a limit on processes refuses the server's thread, the sidecar ends before it changes a rule."""
    user = ("setpriv", "--reuid=64090", "--regid=64090", "--clear-groups")
    capabilities = "+net_admin,+dac_read_search"  # the latter reads this Python wherever it is installed
    limited = (*user, f"--inh-caps={capabilities}", f"--ambient-caps={capabilities}", CTL, "sidecar")
    sidecars.append(sidecar := Sidecar(network, start=("prlimit", "--nproc=1", *limited), MOCK_BACKEND="nft"))
    sidecar.says("cannot start a thread .*; raise the limit on processes")
    assert sidecar.ends() == 125
    assert listed(network) == ""
    enough = ("prlimit", "--nproc=2", *limited)  # the control
    sidecars.append(sidecar := Sidecar(network, start=enough, MOCK_BACKEND="nft"))
    sidecar.says("aws is closed while there is no mock")


def test_guard_off_removes_the_guard_of_an_earlier_sidecar(network: Network, sidecars: list[Sidecar]) -> None:
    """MOCK_GUARD=off removes a guard that --keep left, and the page shows no guard."""
    network.start_dns()
    sidecars.append(earlier := Sidecar(network, "--keep", "--listen", LISTEN))
    earlier.says("aws is closed while there is no mock")
    assert ">closed<" in earlier.get("/")[1]
    earlier.process.terminate()
    assert earlier.ends() == 0
    assert "reject" in listed(network)
    sidecars.append(sidecar := Sidecar(network, "--listen", LISTEN, MOCK_GUARD="off"))
    sidecar.says("aws is not redirected while there is no mock")
    assert listed(network) == ""
    page = sidecar.get("/")[1]
    assert ">not redirected<" in page
    assert ">closed<" not in page


@pytest.mark.slow
def test_a_sidecar_with_rare_probes_stays_healthy(network: Network, sidecars: list[Sidecar]) -> None:
    """With an hour between probes, /healthz stays good, since the sidecar wakes up regularly.

    A stuck one is unhealthy.
    """
    network.start_mock()
    short = (
        "from imds_detour.ctl.sidecar import pages; pages.STALE = 3.0; from imds_detour.ctl.main import main; main()"
    )
    flags = ("sidecar", "--listen", LISTEN, "--every", "3600")
    sidecars.append(sidecar := Sidecar(network, *flags, start=(sys.executable, "-c", short), MOCK_HOSTNAME=MOCK))
    sidecar.says("verified")
    give_up = time.monotonic() + 6
    while time.monotonic() < give_up:
        assert sidecar.get("/healthz") == (200, "ok\n")
        time.sleep(0.2)  # the time is what is tested
    stuck = State((), "nftables", beat=1000.0, started=0.0)
    assert [pages.health(stuck, 1000.0 + silent).status for silent in (29.0, 31.0)] == [200, 503]


@pytest.mark.slow
@pytest.mark.parametrize("asked", [1, 3, 5])
def test_a_stop_ends_the_wait_for_a_silent_name_server(network: Network, sidecars: list[Sidecar], asked: int) -> None:
    """With eight names to look up at a silent server, SIGTERM ends the sidecar soon, at any of them."""
    network.start_dns("silent")
    services = ",".join(f"192.0.2.{number}:80=mock-{number}" for number in range(1, 9))
    sidecars.append(sidecar := Sidecar(network, MOCK_ENDPOINTS=services, MOCK_LOG="debug"))
    sidecar.says(f"A mock-{asked}: sends no proper reply")
    stopped = time.monotonic()
    sidecar.process.send_signal(signal.SIGTERM)
    assert sidecar.ends() == 0
    assert time.monotonic() - stopped < 1.4, "to wait for three more names takes 1.5 s"
    assert listed(network) == ""
