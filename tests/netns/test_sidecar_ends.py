"""The sidecar's beginning and end: it is alone or not there at all, and a stop is heard whatever it waits for."""

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


def test_a_second_one_changes_nothing_of_the_firsts_before_it_ends(network: Network, sidecars: list[Sidecar]) -> None:
    """It has other services to guard, and would put their addresses in the place of the first one's."""
    network.start_dns()
    network.start_mock()
    sidecars.append(first := Sidecar(network))
    first.says("verified")
    standing = listed(network)
    sidecars.append(second := Sidecar(network, MOCK_ENDPOINTS="alibaba"))
    second.says("another imds-detour sidecar is at work in this network namespace")
    assert second.ends() == 125
    assert listed(network) == standing
    assert "169.254.169.254" in standing
    first.process.terminate()
    assert first.ends() == 0
    sidecars.append(alone := Sidecar(network, MOCK_ENDPOINTS="alibaba"))  # the control: by itself it does change them
    alone.says("verified")
    assert "100.100.100.200" in listed(network)


@pytest.mark.slow
def test_without_a_thread_for_its_server_it_ends_with_a_line(network: Network, sidecars: list[Sidecar]) -> None:
    """A limit on processes; nothing has been changed by then."""
    user = ("setpriv", "--reuid=64090", "--regid=64090", "--clear-groups")
    capabilities = "+net_admin,+dac_read_search"  # the latter to reach this Python, wherever it is installed
    poor = (*user, f"--inh-caps={capabilities}", f"--ambient-caps={capabilities}", CTL, "sidecar")
    sidecars.append(sidecar := Sidecar(network, start=("prlimit", "--nproc=1", *poor), MOCK_BACKEND="nft"))
    sidecar.says("cannot start a thread .*; raise the limit on processes")
    assert sidecar.ends() == 125
    assert listed(network) == ""
    richer = ("prlimit", "--nproc=2", *poor)  # the control
    sidecars.append(sidecar := Sidecar(network, start=richer, MOCK_BACKEND="nft"))
    sidecar.says("aws is closed while there is no mock")


def test_with_the_guard_off_an_earlier_one_goes(network: Network, sidecars: list[Sidecar]) -> None:
    """One that --keep left behind; and the page does not speak of a guard that is not there."""
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
def test_with_an_hour_between_probes_it_is_healthy_all_the_while(network: Network, sidecars: list[Sidecar]) -> None:
    """It beats though nothing is due; what counts as stuck is a tenth here. That the stuck are seen is shown last."""
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
    """With eight names to look up, half a second each: within a second on a quiet machine, wherever it comes."""
    network.start_dns("silent")
    services = ",".join(f"192.0.2.{number}:80=mock-{number}" for number in range(1, 9))
    sidecars.append(sidecar := Sidecar(network, MOCK_ENDPOINTS=services, MOCK_LOG="debug"))
    sidecar.says(f"A mock-{asked}: sends no proper reply")
    stopped = time.monotonic()
    sidecar.process.send_signal(signal.SIGTERM)
    assert sidecar.ends() == 0
    assert time.monotonic() - stopped < 1.4, "one that waits for the other three at least takes 1.5 s"
    assert listed(network) == ""
