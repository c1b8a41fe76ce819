"""The sidecar's start and end: it is the only one in its namespace, and any wait ends with a stop."""

import sys
import time

import pytest

from imds_detour.ctl.sidecar import pages
from imds_detour.ctl.sidecar.state import State
from tests.support.hosts.network import CTL, INSTANCE, MOCK, Network, end
from tests.support.hosts.sidecars import LISTEN, Sidecars, asked, listed, until


def test_second_sidecar_changes_no_rule(ready: Network, sidecars: Sidecars) -> None:
    """A second sidecar, also with other services, ends before it replaces the first one's rules."""
    first = sidecars.start()
    installed = listed(ready)
    reason = "another imds-detour sidecar is at work in this network namespace"
    for endpoints in ("aws", "alibaba"):
        assert sidecars.start(MOCK_ENDPOINTS=endpoints, says=reason).ends() == 125
    assert (listed(ready), asked(ready)) == (installed, INSTANCE)
    assert "169.254.169.254" in installed
    assert first.stop() == 0
    sidecars.start(MOCK_ENDPOINTS="alibaba", says="verified")  # the control: alone it installs its rules
    assert "100.100.100.200 tcp dport 80" in listed(ready)


@pytest.mark.slow
def test_sidecar_without_a_thread_ends_with_a_line(network: Network, sidecars: Sidecars) -> None:
    """If a limit on processes refuses the server's thread, the sidecar ends before it changes a rule."""
    user = ("setpriv", "--reuid=64090", "--regid=64090", "--clear-groups")
    capabilities = "+net_admin,+dac_read_search"  # the latter reads this Python wherever it is installed
    limited = (*user, f"--inh-caps={capabilities}", f"--ambient-caps={capabilities}", CTL, "sidecar")
    network.wanted["MOCK_BACKEND"] = "nft"
    reason = "cannot start a thread .*; raise the limit on processes"
    assert (sidecars.start(start=("prlimit", "--nproc=1", *limited), says=reason).ends(), listed(network)) == (125, "")
    # Control: one process more is enough.
    sidecars.start(start=("prlimit", "--nproc=2", *limited), says="aws is closed while there is no mock")


@pytest.mark.slow
def test_guard_off_keeps_the_guard_of_an_earlier_sidecar(network: Network, sidecars: Sidecars) -> None:
    """MOCK_GUARD=off keeps a guard that an earlier sidecar left, and the page shows it; without one it is "open"."""
    network.start_dns()
    earlier = sidecars.start("--listen", LISTEN, says="aws is closed while there is no mock")
    assert ">closed<" in earlier.get("/")[1]
    assert earlier.stop() == 0
    assert "reject" in listed(network)
    sidecar = sidecars.start("--listen", LISTEN, "--every", "0.5", MOCK_GUARD="off", says="aws is not redirected")
    assert "reject" in listed(network)
    assert until(lambda: ">closed<" in sidecar.get("/")[1], bool)
    network.app.run("nft", "flush", "ruleset")
    assert until(lambda: ">open<" in sidecar.get("/")[1], bool)


@pytest.mark.slow
@pytest.mark.usefixtures("mocked")
def test_sidecar_with_rare_probes_stays_healthy(sidecars: Sidecars) -> None:
    """With an hour between probes, /healthz stays good, since the sidecar wakes up; a stuck one is unhealthy."""
    short = (
        "from imds_detour.ctl import main; from imds_detour.ctl.sidecar import pages; pages.STALE = 3.0; main.main()"
    )
    flags = ("sidecar", "--listen", LISTEN, "--every", "3600")
    sidecar = sidecars.start(*flags, start=(sys.executable, "-c", short), MOCK_HOSTNAME=MOCK)
    give_up = time.monotonic() + 6
    while time.monotonic() < give_up:
        assert sidecar.get("/healthz") == (200, "ok\n")
        time.sleep(0.2)  # the time is what is tested
    stuck = State((), "nftables", beat=1000.0, started=0.0)
    assert [pages.health(stuck, 1000.0 + silent).status for silent in (29.0, 31.0)] == [200, 503]


@pytest.mark.slow
@pytest.mark.parametrize("number", [None, 1, 3, 5])
def test_stop_ends_the_wait_for_a_silent_name_server(network: Network, sidecars: Sidecars, number: int | None) -> None:
    """With eight names to look up at a silent server, or one, SIGTERM ends the sidecar soon, at any of them."""
    network.start_dns("silent")
    services = ",".join(f"192.0.2.{host}:80=mock-{host}" for host in range(1, 9))
    line = f"A mock-{number}: sends no proper reply" if number else "aws is closed while there is no mock"
    sidecar = sidecars.start(MOCK_ENDPOINTS=services if number else "aws", MOCK_LOG="debug", says=line)
    stopped = time.monotonic()
    assert sidecar.stop() == 0
    assert time.monotonic() - stopped < 1.4, "to wait for three more names takes 1.5 s"
    assert "dnat" not in listed(network)


@pytest.mark.usefixtures("other_users")
def test_socket_of_another_user_does_not_stop_a_sidecar(ready: Network, sidecars: Sidecars) -> None:
    """If a process of another user holds the sidecar's socket, the sidecar warns and works; one of root ends it."""
    holder = "import os, socket, sys, time; s = socket.socket(1); os.setuid(int(sys.argv[1])); s.bind('\\0imds-detour')"
    holder += "; s.listen(); print('held', flush=True); time.sleep(60)"
    process = ready.start(ready.app, sys.executable, "-c", holder, "64090")
    sidecar = sidecars.start(says="a process of another user holds the sidecar's socket: .* lacks the last probe")
    sidecar.says("verified")
    assert (asked(ready), sidecar.stop()) == (INSTANCE, 0)
    end(process)
    ready.start(ready.app, sys.executable, "-c", holder, "0")  # the control
    assert sidecars.start(says="another imds-detour sidecar is at work").ends() == 125
