"""The sidecar's --listen: it serves beside hostile clients, without the wall clock, and shows each endpoint's state."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from imds_detour import __version__
from imds_detour.config.presets import GUARDED_ADDRESSES
from tests.support import SUPPORT
from tests.support.hosts.network import INSTANCE, METADATA, METADATA6, MOCK, Network
from tests.support.hosts.sidecars import LISTEN, Sidecar, Sidecars, asked, count, until
from tests.support.marks import first_quick

HOLDERS = """
import socket, sys, time
host, port, number, first, drip = sys.argv[1:]
def connect():
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    client.connect((host, int(port)))
    client.sendall(first.encode())
    client.setblocking(False)
    return client
clients = [connect() for _ in range(int(number))]
print("held", flush=True)
replaced = 0
while True:
    time.sleep(1)
    for place, client in enumerate(clients):
        try:
            client.send(drip.encode())
            if not drip and not first.endswith("\\n\\r\\n") and client.recv(1) == b"":
                raise ConnectionError
        except BlockingIOError:
            pass
        except OSError:
            clients[place] = connect()
"""
"""Clients that hold their connections, and connect again when the sidecar has closed one."""
HOUR = 3600
ECS = "169.254.170.2"


@pytest.mark.parametrize(
    ("first", "drip"),
    first_quick(
        pytest.param(*what, id=name)
        for name, what in {
            "half a request": ("GET /healthz HT", ""),
            "silent": ("", ""),
            "reads nothing": ("GET / HTTP/1.1\r\n\r\n", ""),
            "a byte a second": ("G", "x"),
        }.items()
    ),
)
def test_listen_serves_beside_64_clients(ready: Network, sidecars: Sidecars, first: str, drip: str) -> None:
    """With 64 clients that send nothing, too little or too slowly, or read nothing, others are served in 2 s."""
    sidecar = sidecars.start("--listen", LISTEN)
    ready.start(ready.app, sys.executable, "-c", HOLDERS, *LISTEN.split(":"), "64", first, drip)
    for _ in range(6):
        began = time.monotonic()
        assert sidecar.get("/healthz") == (200, "ok\n")
        assert json.loads(ready.ctl("status", "--json").stdout)["probe"]["verified"] is True
        assert time.monotonic() - began < 2
        time.sleep(0.3)
    connections = ready.app.run("ss", "-Htnp", "state", "established", f"sport = :{LISTEN.partition(':')[2]}").stdout
    held = connections.count("pid=")  # a connection that is not accepted yet has no process
    assert held <= 32 + 1  # the bound, and one that is accepted before the oldest is closed
    assert held >= 16 or first.endswith("\r\n\r\n")  # the control: the clients hold connections


def test_wall_clock_changes_neither_health_nor_ages(ready: Network, sidecars: Sidecars, tmp_path: Path) -> None:
    """A wall clock that leaps by ten hours and back changes /healthz, /readyz and no age; seconds since 1970 move."""
    library, leapt = tmp_path / "clock.so", tmp_path / "leapt"
    subprocess.run(["gcc", "-O1", "-shared", "-fPIC", "-o", library, f"{SUPPORT}/faults/clock.c"], check=True)
    sidecar = sidecars.start(
        *("--listen", LISTEN, "--every", "0.2"),
        LD_PRELOAD=str(library),
        LEAP=str(10 * HOUR),
        LEAP_EVERY="1",
        LEAP_TOLD=str(leapt),
    )
    skews = set()
    for _ in range(10):
        assert (sidecar.get("/healthz"), sidecar.get("/readyz")) == ((200, "ok\n"), (200, "ok\n"))
        assert 0 <= json.loads(sidecar.get("/status.json")[1])["services"][0]["seconds"] < 60
        assert 0 <= json.loads(ready.ctl("status", "--json").stdout)["probe"]["age"] < 60
        seen = metrics(sidecar)
        assert 0 <= seen["imds_detour_uptime_seconds"][0][1] < 60
        skews.add(round((seen["imds_detour_last_probe_timestamp_seconds"][0][1] - time.time()) / HOUR))
    assert leapt.exists()
    assert skews == {0, 10}  # the control: the clock leaps there and back


@pytest.mark.parametrize("guard", ["on", "off"])
def test_each_endpoint_is_shown_as_it_is(network: Network, sidecars: Sidecars, guard: str) -> None:
    """Page, /status.json and /metrics show the state of each endpoint, also if IPv4 alone is redirected."""
    network.start_dns()
    network.add_ipv6()
    unguarded = {"on": "closed", "off": "open"}[guard]
    sidecar = sidecars.start("--listen", LISTEN, MOCK_GUARD=guard, says="aws is .* while there is no mock")
    assert endpoints(sidecar) == {f"{METADATA}:80": unguarded, f"[{METADATA6}]:80": unguarded}
    network.start_mock()
    sidecar.says("verified")
    expected = {f"{METADATA}:80": "redirected", f"[{METADATA6}]:80": unguarded}
    assert until(lambda: endpoints(sidecar), lambda seen: seen == expected) == expected
    rows = re.findall(
        r"<td data-of=address>([^<]*:80)<td [^<]*<td data-of=state class=(\w+)>(\w+)<", sidecar.get("/")[1]
    )
    assert rows == [(endpoint, state, state) for endpoint, state in expected.items()]
    samples = metrics(sidecar)["imds_detour_endpoint"]
    assert ({labels["endpoint"]: labels["state"] for labels, value in samples if value}, len(samples)) == (expected, 6)


def test_metrics_have_version_start_and_refused_packets(ready: Network, sidecars: Sidecars) -> None:
    """Prometheus' parser reads the version, a start time that stays, and the packets that the guard refused."""
    before = time.time()
    sidecar = sidecars.start("--listen", LISTEN, "--every", "0.2")
    first = metrics(sidecar)
    assert first["imds_detour_build_info"] == [({"version": __version__}, 1)]
    ((_, started),) = first["process_start_time_seconds"]
    assert before - 1 <= started <= time.time()
    refused = {labels["address"]: value for labels, value in first["imds_detour_refused_packets"]}
    assert set(refused.values()) == {0}  # the control
    assert set(refused) == set(map(str, GUARDED_ADDRESSES))
    for address in (METADATA, ECS, ECS):
        ready.app.run("curl", "-sS", "--max-time", "2", f"http://{address}:8080", check=False)  # the guard refuses it
    expected = {**refused, METADATA: 1, ECS: 2}

    def seen() -> dict[str, float]:
        return {labels["address"]: value for labels, value in metrics(sidecar)["imds_detour_refused_packets"]}

    assert until(seen, lambda values: values == expected) == expected
    assert json.loads(sidecar.get("/status.json")[1])["refused"] == expected
    page = sidecar.get("/")[1]
    assert "<td>Packets to a metadata address that the guard refused.<td class=count>3<" in page
    assert f"<p>Version {__version__}, ready. Redirects by " in page
    assert metrics(sidecar)["process_start_time_seconds"] == first["process_start_time_seconds"]


@pytest.mark.slow
def test_busy_mock_keeps_its_redirect_and_a_stop_interrupts(ready: Network, sidecars: Sidecars) -> None:
    """If the mock gets no time for a second, the second probe waits for it; a mock that stays stopped is closed."""
    mock = ready.start_mock(port="1400")
    sidecar = sidecars.start("--listen", LISTEN, "--every", "0.5", MOCK_PORT="1400", MOCK_HOSTNAME=MOCK)
    _stop_until_a_probe_fails(sidecar, mock)
    time.sleep(1.2)  # longer than the pause and a first probe, shorter than the second
    mock.send_signal(signal.SIGCONT)
    probes = count(sidecar, "probes")
    until(lambda: count(sidecar, "probes"), lambda value: value > probes)
    assert (count(sidecar, "probe_failures"), count(sidecar, "closings"), asked(ready)) == (1, 0, INSTANCE)
    mock.send_signal(signal.SIGSTOP)
    sidecar.says("aws is closed while there is no mock")  # the control
    mock.send_signal(signal.SIGCONT)
    sidecar.says("verified")
    _stop_until_a_probe_fails(sidecar, mock)
    time.sleep(0.5)  # the second probe waits for the mock
    began = time.monotonic()
    assert sidecar.stop() == 0
    assert time.monotonic() - began < 1.2


def _stop_until_a_probe_fails(sidecar: Sidecar, mock: subprocess.Popen[str]) -> None:
    before = count(sidecar, "probe_failures")
    mock.send_signal(signal.SIGSTOP)
    until(lambda: count(sidecar, "probe_failures"), lambda value: value > before)


def endpoints(sidecar: Sidecar) -> dict[str, str]:
    """Return the state of each endpoint of the first service in /status.json."""
    states: dict[str, str] = json.loads(sidecar.get("/status.json")[1])["services"][0]["states"]
    return states


def metrics(sidecar: Sidecar) -> dict[str, list[tuple[dict[str, str], float]]]:
    """Return the labels and values of each metric."""
    families = text_string_to_metric_families(sidecar.get("/metrics")[1])
    return {family.name: [(sample.labels, sample.value) for sample in family.samples] for family in families}
