"""No packet of the app reaches a real metadata service after the first rule. Capture and counters verify it."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support.faults.capabilities import DOCKER, only
from tests.support.hosts.cloud import BACKENDS, FIREWALLS, PROTOCOLS, REDIRECTED, REFUSED, Cloud
from tests.support.hosts.ip_version import IP_VERSIONS, V4
from tests.support.hosts.network import CTL, DETOUR, ID_URL, INSTANCE, NAME, read_line, read_until
from tests.support.hosts.sidecars import until
from tests.support.marks import first_quick

ROUNDS = "10"


@pytest.fixture(params=IP_VERSIONS)
def cloud(request: pytest.FixtureRequest) -> Iterator[Cloud]:
    """Yield a network with a fake real service and a mock; the tests start DNS."""
    with Cloud(request.param) as made:
        made.start_mock_everywhere()
        yield made


def start(cloud: Cloud, backend: str) -> subprocess.Popen[str]:
    """Start imds-detour with `cat` as the app, and return once its guard is installed."""
    started = cloud.popen_detour("cat", MOCK_BACKEND=backend, MOCK_LOG="debug")
    read_until(started, "guard: ")
    return started


def test_capture_and_counters_see_every_protocol(cloud: Cloud) -> None:
    """Control: without rules TCP, UDP, ICMP and another protocol reach the real service and are counted."""
    flood = cloud.flood()
    assert flood.ask("3")["tcp 80"] == ["sent"]
    flood.end()
    # Wait until the last connections are closed.
    seen = until(cloud.seen, lambda seen: {name: seen.captured[name] for name in PROTOCOLS} == seen.counted)
    assert ({name: seen.captured[name] for name in PROTOCOLS}, seen.lost) == (seen.counted, 0)
    assert all(count >= 3 for count in seen.counted.values()), seen


def test_no_packet_leaves_from_the_guard_on(cloud: Cloud, backend: str) -> None:
    """No packet of any protocol leaves during the wait, with the redirect, or after the redirect is removed."""
    before = cloud.seen()
    silent = cloud.start_dns("silent")
    with start(cloud, backend) as started:
        flood = cloud.flood()
        assert flood.ask(ROUNDS) == REFUSED
        silent.kill()
        silent.wait()
        cloud.start_dns(f"{NAME}={cloud.ip.mock}")
        read_until(started, "exec cat")
        assert flood.ask(ROUNDS) == REDIRECTED
        cloud.writer(backend, 0)  # without a mock it removes the redirect
        assert flood.ask(ROUNDS) == REFUSED
        flood.end()
        started.communicate()
    assert cloud.seen() == before


HOLD_CONNECTION = """
import socket, sys
held = socket.create_connection((sys.argv[1], 80), timeout=5)
print(held.recv(1).decode(), flush=True)
sys.stdin.readline()
try:
    held.send(b"x")
    print(held.recv(1))
except OSError as error:
    print(type(error).__name__)
"""


@pytest.mark.parametrize("backend", first_quick(BACKENDS))
def test_an_open_connection_to_the_real_service_is_reset(cloud: Cloud, backend: str) -> None:
    """A start resets connections to the real service that are already open; their next byte does not leave."""
    cloud.start_dns("silent")
    with cloud.app.popen(
        *(sys.executable, "-c", HOLD_CONNECTION, cloud.ip.metadata), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as held:
        assert read_line(held) == "R\n"
        before = cloud.seen()
        with start(cloud, backend) as started:
            assert held.communicate("\n")[0] == "ConnectionResetError\n"
            started.kill()
            started.communicate()
    assert cloud.seen() == before


# With fewer privileges a start works, or fails with one line that names the reason.

READ_ONLY_ROOT = """
for at in /run /tmp /; do mount --bind $at $at; mount -o remount,bind,ro $at; done
cd /
for file in /run/x /tmp/x /x; do if touch $file 2>/dev/null; then exit 9; fi; done
exec "$@"
"""
READ_ONLY = ("unshare", "--mount", "sh", "-euc", READ_ONLY_ROOT, "read-only")
BACKEND_SETTINGS = (*BACKENDS, "auto")
WORKS = {backend: f"{name}, verified" for backend, name in FIREWALLS.items()}
WORKS["auto"] = WORKS["legacy"]
NO_NET_ADMIN = dict.fromkeys(BACKEND_SETTINGS, "no NET_ADMIN capability; add it: in Compose `cap_add: [NET_ADMIN]`")
NO_NET_RAW = "no NET_RAW capability, which legacy iptables needs to open its socket; add it: in Compose"
WITHOUT_NET_RAW = {**WORKS, "legacy": NO_NET_RAW, "auto": WORKS["nft"]}
MATRIX = {
    "Docker's capabilities and NET_ADMIN": (only(DOCKER, "net_admin"), WORKS),
    "NET_ADMIN only": (only("net_admin"), WITHOUT_NET_RAW),
    "Docker's capabilities": (only(DOCKER), NO_NET_ADMIN),
    "none": (only(), NO_NET_ADMIN),
    "no-new-privileges": (("setpriv", "--nnp"), WORKS),
    "no-new-privileges, Docker's capabilities": (("setpriv", "--nnp", *only(DOCKER, "net_admin")), WORKS),
    "a read-only root": (READ_ONLY, WORKS),
    "a read-only root, NET_ADMIN only": ((*READ_ONLY, *only("net_admin")), WITHOUT_NET_RAW),
}


@pytest.fixture(scope="module")
def matrix() -> Iterator[Cloud]:
    """Yield a network that all rows of the matrix share."""
    with Cloud(V4) as made:
        made.start_mock("--quiet")
        yield made


@pytest.mark.parametrize("backend", first_quick(BACKEND_SETTINGS))
@pytest.mark.parametrize("privileges", MATRIX)
def test_start_with_fewer_privileges_works_or_fails_closed(matrix: Cloud, privileges: str, backend: str) -> None:
    """With fewer privileges a start works, or fails with one line that names the capability; no packet leaves."""
    start, expected = MATRIX[privileges]
    matrix.app.run("sh", "-c", "iptables-legacy-restore </dev/null; iptables-legacy -F; iptables-legacy -t nat -F")
    matrix.app.run("nft", "flush", "ruleset")
    before = matrix.seen()
    done = matrix.detour("curl", "-sS", ID_URL, prefix=start, MOCK_HOSTNAME=matrix.ip.mock, MOCK_BACKEND=backend)
    assert expected[backend] in done.stderr, done
    if expected[backend] in WORKS.values():
        assert (done.returncode, done.stdout) == (0, INSTANCE), done
    else:
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (125, "", 1), done
    assert matrix.seen() == before


ROOTLESS = """
ip link set lo up
"$1" mock --listen 127.0.0.1:1338 --quiet >/dev/null 2>&1 &
"$2" curl -sS "$3"
status=$?
kill $!
exit $status
"""


def test_start_in_a_user_namespace_works(matrix: Cloud, backend: str) -> None:
    """A rootless start works in a new user and network namespace without routes, with a mock on loopback."""
    environ = matrix.settings(MOCK_HOSTNAME="127.0.0.1", MOCK_BACKEND=backend)
    done = matrix.app.run(
        *("unshare", "--user", "--map-root-user", "--net", "--mount", "sh", "-uc", ROOTLESS, "rootless"),
        *(CTL, DETOUR, ID_URL),
        environ=environ,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, INSTANCE), done
    assert WORKS[backend] in done.stderr
