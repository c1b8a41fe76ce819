"""A start in the host's network namespace fails unless --host is set. The tests simulate that namespace."""

import subprocess
import sys

import pytest

from imds_detour.advice.failure import MORE
from imds_detour.system.namespaces import INITIAL_NET, read_namespace_info
from tests.support.faults.host_namespace import AN_OLD_KERNEL, BY_HARDWARE, HARDWARE_AT
from tests.support.faults.injection import Injection, strace
from tests.support.hosts.network import CTL, DETOUR, ID_URL, INSTANCE, METADATA, MOCK, PORT, Network
from tests.support.hosts.sidecars import Sidecars
from tests.support.marks import first_quick

OTHER_HARDWARE = (*HARDWARE_AT, "02:00:00:00:00:01")
"""Hardware of a network device with another address: /sys of another namespace."""
ST_INO = INITIAL_NET.to_bytes(8, sys.byteorder)
"""st_ino, the second member of struct stat, with the inode number of the first network namespace."""
NAMESPACE = ("/proc/self/ns/net",)
BY_NUMBER = strace(
    Injection("newfstatat", f"poke_exit=@arg3={bytes(8).hex()}{ST_INO.hex()}"), children=True, paths=NAMESPACE
)
"""Makes stat of the network namespace return the fixed inode number of the first one (Linux 6.18 and later)."""
SIMULATIONS = {"by hardware": BY_HARDWARE, **({"by its number": BY_NUMBER} if read_namespace_info().fixed else {})}
REFUSED = (
    "imds-detour: this is the host's own network namespace: a redirect here would hold for the whole machine;"
    " give the container a network of its own: no `network_mode: host` in Compose, no `--network host`; or, if the"
    f" whole machine is meant, `imds-detourctl init --host`; {MORE}\n"
)
COMMANDS = {"the entrypoint": (DETOUR, "true"), "init": (CTL, "init"), "sidecar": (CTL, "sidecar")}


def run(network: Network, *command: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a command on the app's host, with the mock's address in MOCK_HOSTNAME."""
    return network.app.run(*command, environ=network.settings(None, MOCK_HOSTNAME=MOCK, **settings), check=False)


def tables(network: Network) -> str:
    """Return the legacy iptables tables of both IP versions, and the nftables ruleset."""
    names = "cat /proc/self/net/ip_tables_names /proc/self/net/ip6_tables_names"
    return network.app.run("sh", "-c", f"{names}; nft list ruleset").stdout


@pytest.mark.parametrize("backend", first_quick(["auto", "legacy", "nft"]))
@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS.keys())
@pytest.mark.parametrize("simulation", SIMULATIONS.values(), ids=SIMULATIONS.keys())
def test_start_in_the_host_netns_fails(
    mocked: Network, simulation: tuple[str, ...], command: tuple[str, ...], backend: str
) -> None:
    """In the host's network namespace a start prints one line, exits with 125, and creates no rule or table."""
    done = run(mocked, *simulation, *command, MOCK_BACKEND=backend)
    assert (done.returncode, done.stdout, done.stderr, tables(mocked)) == (125, "", REFUSED, "")


@pytest.mark.parametrize("simulation", SIMULATIONS.values(), ids=SIMULATIONS.keys())
def test_init_with_host_works_in_the_host_netns(mocked: Network, simulation: tuple[str, ...]) -> None:
    """Control: in the host's network namespace `init --host` installs and verifies the redirect."""
    done = run(mocked, *simulation, CTL, "init", "--host")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{METADATA}:80 -> {MOCK}:{PORT}, ")
    assert mocked.app.run("curl", "-sS", ID_URL).stdout == INSTANCE


def test_sidecar_with_host_works_in_the_host_netns(mocked: Network, sidecars: Sidecars) -> None:
    """In the host's network namespace `sidecar --host` reports a verified redirect and runs until SIGTERM."""
    command = (*BY_HARDWARE, CTL, "sidecar", "--host")
    sidecar = sidecars.start(start=command, says=f"{METADATA}:80 -> {MOCK}:{PORT}", MOCK_HOSTNAME=MOCK)
    assert (mocked.app.run("curl", "-sS", ID_URL).stdout, sidecar.stop()) == (INSTANCE, 0)


@pytest.mark.slow
def test_start_in_another_netns_works(mocked: Network) -> None:
    """Control: with only a part of the simulation, or with /sys of another namespace, a start succeeds."""
    for prefix in ((), AN_OLD_KERNEL, OTHER_HARDWARE, strace(children=True, paths=NAMESPACE)):
        assert run(mocked, *prefix, DETOUR, "echo", "started").stdout == "started\n"
        assert run(mocked, *prefix, CTL, "init").returncode == 0
