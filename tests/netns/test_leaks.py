"""No packet of the app's reaches a real metadata service, from the first rule on: a capture and counters say so."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.hosts.cloud import BACKENDS, PROTOCOLS, REDIRECTED, REFUSED, Cloud
from tests.support.hosts.ip_version import IP_VERSIONS, V4
from tests.support.hosts.network import CTL, DETOUR, ID_URL, INSTANCE, NAME
from tests.support.hosts.sidecars import until
from tests.support.marks import first_quick

if TYPE_CHECKING:
    from collections.abc import Iterator


ROUNDS = "10"


@pytest.fixture(params=IP_VERSIONS)
def cloud(request: pytest.FixtureRequest) -> Iterator[Cloud]:
    """Give the fake real service and a mock; a start also needs DNS."""
    with Cloud(request.param) as made:
        made.start_mock_everywhere()
        yield made


def start(cloud: Cloud, backend: str) -> subprocess.Popen[str]:
    """Start imds-detour with an app that waits, and return when its guard stands; everything it says can be read."""
    environ = cloud.settings(MOCK_BACKEND=backend, MOCK_LOG="debug")
    started = cloud.app.popen(
        *(DETOUR, "cat"), environ=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    read_until(started, "guard: ")
    return started


def read_until(started: subprocess.Popen[str], words: str) -> None:
    """Read what it says until a line has these words."""
    assert started.stderr is not None
    said = []
    while words not in (line := started.stderr.readline()):
        said.append(line)
        assert line, said


def test_without_us_capture_and_counters_see_every_protocol(cloud: Cloud) -> None:
    """The control: TCP, UDP, ICMP and another protocol reach the real service, and capture and counters agree."""
    flood = cloud.program(cloud.app, "clients/flood.py", cloud.ip.metadata)
    assert flood.ask("3")["tcp 80"] == ["sent"]
    flood.end()
    # The last connections are still being closed.
    seen = until(cloud.seen, lambda seen: {name: seen.captured[name] for name in PROTOCOLS} == seen.counted)
    assert {name: seen.captured[name] for name in PROTOCOLS} == seen.counted
    assert seen.lost == 0
    assert all(count >= 3 for count in seen.counted.values()), seen


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_gets_out_while_waiting_when_redirected_and_without_the_redirect(cloud: Cloud, backend: str) -> None:
    """A process that never pauses sends in every way, from the guard on: 0 packets, and each is refused at once."""
    before = cloud.seen()
    silent = cloud.start_dns("silent")
    with start(cloud, backend) as started:
        flood = cloud.program(cloud.app, "clients/flood.py", cloud.ip.metadata)
        assert flood.ask(ROUNDS) == REFUSED
        silent.kill()
        silent.wait()
        cloud.start_dns(f"{NAME}={cloud.ip.mock}")
        read_until(started, "exec cat")
        assert flood.ask(ROUNDS) == REDIRECTED
        remover = cloud.program(cloud.app, "clients/rewrite_rules.py", backend, "0", f"{cloud.ip.metadata},80")
        assert remover.says() == "ready"
        assert flood.ask(ROUNDS) == REFUSED
        flood.end()
        started.communicate()
    assert cloud.seen() == before


HELD = """
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
def test_a_connection_to_the_real_service_from_before_is_reset(cloud: Cloud, backend: str) -> None:
    """A process that talked to it before the start is cut off; its next byte does not get out."""
    cloud.start_dns("silent")
    with cloud.app.popen(
        *(sys.executable, "-c", HELD, cloud.ip.metadata), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as held:
        assert held.stdout is not None
        assert held.stdout.readline() == "R\n"
        before = cloud.seen()
        with start(cloud, backend) as started:
            assert held.communicate("\n")[0] == "ConnectionResetError\n"
            started.kill()
            started.communicate()
    assert cloud.seen() == before


# Whatever it may and may not do: the redirect works, or the app does not start and one line says why

DOCKERS = (
    "chown,dac_override,fowner,fsetid,kill,setgid,setuid,setpcap,net_bind_service,net_raw,sys_chroot,mknod,"
    "audit_write,setfcap"
)
"""The capabilities of a container by default (moby: oci/caps/defaults.go)."""


def only(*capabilities: str) -> tuple[str, ...]:
    """Return a command that takes every capability but these away."""
    kept = "".join(f",+{name}" for names in capabilities for name in names.split(","))
    return ("setpriv", "--inh-caps=-all", f"--bounding-set=-all{kept}")


READ_ONLY_ROOT = """
for at in /run /tmp /; do mount --bind $at $at; mount -o remount,bind,ro $at; done
cd /
for file in /run/x /tmp/x /x; do if touch $file 2>/dev/null; then exit 9; fi; done
exec "$@"
"""
READ_ONLY = ("unshare", "--mount", "sh", "-euc", READ_ONLY_ROOT, "read-only")
CHOICES = (*BACKENDS, "auto")
WORKS = {"legacy": "legacy iptables, verified", "nft": "nftables, verified", "auto": "legacy iptables, verified"}
NO_NET_ADMIN = dict.fromkeys(CHOICES, "no NET_ADMIN capability; add it: in Compose `cap_add: [NET_ADMIN]`")
NO_NET_RAW = "no NET_RAW capability, which legacy iptables needs to open its socket; add it: in Compose"
WITHOUT_NET_RAW = {**WORKS, "legacy": NO_NET_RAW, "auto": WORKS["nft"]}
MATRIX = {
    "Docker's, and NET_ADMIN": (only(DOCKERS, "net_admin"), WORKS),
    "NET_ADMIN alone": (only("net_admin"), WITHOUT_NET_RAW),
    "Docker's": (only(DOCKERS), NO_NET_ADMIN),
    "none": (only(), NO_NET_ADMIN),
    "no-new-privileges": (("setpriv", "--nnp"), WORKS),
    "no-new-privileges, as in Docker": (("setpriv", "--nnp", *only(DOCKERS, "net_admin")), WORKS),
    "a read-only root": (READ_ONLY, WORKS),
    "a read-only root, NET_ADMIN alone": ((*READ_ONLY, *only("net_admin")), WITHOUT_NET_RAW),
}


@pytest.fixture(scope="module")
def matrix() -> Iterator[Cloud]:
    """Give a network that the rows of the matrix share: each start finds the rules of the one before, or none."""
    with Cloud(V4) as made:
        made.start_mock("--quiet")
        yield made


@pytest.mark.parametrize("backend", first_quick(CHOICES))
@pytest.mark.parametrize("privileges", MATRIX)
def test_with_fewer_privileges_it_works_or_says_why(matrix: Cloud, privileges: str, backend: str) -> None:
    """Each row works, or one line names the capability; never is the app started with the real service in reach."""
    start, expected = MATRIX[privileges]
    matrix.app.run("sh", "-c", "iptables-legacy-restore </dev/null; iptables-legacy -F; iptables-legacy -t nat -F")
    matrix.app.run("nft", "flush", "ruleset")
    before = matrix.seen()
    environ = matrix.settings(MOCK_HOSTNAME=matrix.ip.mock, MOCK_BACKEND=backend)
    done = matrix.app.run(*start, DETOUR, "curl", "-sS", ID_URL, environ=environ, check=False)
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


@pytest.mark.parametrize("backend", BACKENDS)
def test_in_a_user_namespace_of_its_own_it_works(matrix: Cloud, backend: str) -> None:
    """Rootless: root in there is nobody outside; the mock is a process beside the app, and there is no route at all."""
    environ = matrix.settings(MOCK_HOSTNAME="127.0.0.1", MOCK_BACKEND=backend)
    done = matrix.app.run(
        *("unshare", "--user", "--map-root-user", "--net", "--mount", "sh", "-uc", ROOTLESS, "rootless"),
        *(CTL, DETOUR, ID_URL),
        environ=environ,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, INSTANCE), done
    assert WORKS[backend] in done.stderr
