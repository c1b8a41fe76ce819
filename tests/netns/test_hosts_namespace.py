"""The host's own network namespace is refused, unless it is meant: in a disguise, for no test may be there."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from imds_detour.system.namespaces import INITIAL_NET, read_namespace_info
from tests.support.faults.host_namespace import AN_OLD_KERNEL, BY_HARDWARE, HARDWARE_AT
from tests.support.faults.injection import Injection, strace
from tests.support.hosts.network import CTL, DETOUR, ID_URL, INSTANCE, METADATA, MOCK, PORT
from tests.support.marks import first_quick

if TYPE_CHECKING:
    from tests.support.hosts.network import Network

ANOTHERS_HARDWARE = (*HARDWARE_AT, "02:00:00:00:00:01")
"""There is hardware behind a network device of its name, somewhere else: /sys was mounted there."""
ST_INO = INITIAL_NET.to_bytes(8, sys.byteorder)
"""The second member of struct stat, which follows st_dev, as the fixed number."""
NAMESPACE = ("/proc/self/ns/net",)
BY_NUMBER = strace(
    Injection("newfstatat", f"poke_exit=@arg3={bytes(8).hex()}{ST_INO.hex()}"), children=True, paths=NAMESPACE
)
"""The number that the first network namespace has from Linux 6.18 on, as the answer to whoever asks for ours."""
DISGUISES = {"by hardware": BY_HARDWARE, **({"by its number": BY_NUMBER} if read_namespace_info().fixed else {})}
REFUSED = (
    "imds-detour: this is the host's own network namespace: a redirect here would hold for the whole machine;"
    " run it in a container with a network of its own, or `imds-detourctl init --host` if you mean it\n"
)
COMMANDS = {"the entrypoint": (DETOUR, "true"), "init": (CTL, "init"), "sidecar": (CTL, "sidecar")}


def run(network: Network, *command: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a command on the app's host, its mock given by address."""
    return network.app.run(*command, environ=network.settings(None, MOCK_HOSTNAME=MOCK, **settings), check=False)


def tables(network: Network) -> str:
    """Return the tables of legacy iptables, both IP versions, and what is in nftables."""
    names = "cat /proc/self/net/ip_tables_names /proc/self/net/ip6_tables_names"
    return network.app.run("sh", "-c", f"{names}; nft list ruleset").stdout


@pytest.mark.parametrize("backend", first_quick(["auto", "legacy", "nft"]))
@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS.keys())
@pytest.mark.parametrize("disguise", DISGUISES.values(), ids=DISGUISES.keys())
def test_in_the_hosts_namespace_it_is_refused(
    network: Network, disguise: tuple[str, ...], command: tuple[str, ...], backend: str
) -> None:
    """One line, status 125, no app; and no rule, nor even an empty table, is made."""
    network.start_mock()
    done = run(network, *disguise, *command, MOCK_BACKEND=backend)
    assert (done.returncode, done.stdout, done.stderr) == (125, "", REFUSED)
    assert tables(network) == ""


@pytest.mark.parametrize("disguise", DISGUISES.values(), ids=DISGUISES.keys())
def test_where_it_is_meant_it_goes_through(network: Network, disguise: tuple[str, ...]) -> None:
    """The control, in the same disguise: ``init --host`` redirects, and verifies it."""
    network.start_mock()
    done = run(network, *disguise, CTL, "init", "--host")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{METADATA}:80 -> {MOCK}:{PORT}, ")
    assert network.app.run("curl", "-sS", ID_URL).stdout == INSTANCE


def test_a_sidecar_for_the_whole_machine_works(network: Network) -> None:
    """The same for ``sidecar --host``: it says when the redirect is verified, and goes on until told to stop."""
    network.start_mock()
    environ = network.settings(None, MOCK_HOSTNAME=MOCK)
    with network.app.popen(*BY_HARDWARE, CTL, "sidecar", "--host", environ=environ, stderr=subprocess.PIPE) as sidecar:
        assert sidecar.stderr is not None
        assert any(f"{METADATA}:80 -> {MOCK}:{PORT}" in line for line in sidecar.stderr)
        assert network.app.run("curl", "-sS", ID_URL).stdout == INSTANCE
        sidecar.terminate()
        assert sidecar.wait() == 0


@pytest.mark.slow
def test_without_the_disguise_all_of_them_start(network: Network) -> None:
    """Another control: what is refused is the disguise, and not its parts, nor what /sys shows of another namespace."""
    network.start_mock()
    for prefix in ((), AN_OLD_KERNEL, ANOTHERS_HARDWARE, strace(children=True, paths=NAMESPACE)):
        assert run(network, *prefix, DETOUR, "echo", "started").stdout == "started\n"
        assert run(network, *prefix, CTL, "init").returncode == 0
