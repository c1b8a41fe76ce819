"""An nftables table whose name is imds-detour's, and whose owner is another program (NFT_TABLE_F_OWNER)."""

import subprocess

import pytest

from tests.support.hosts.network import DETOUR, METADATA, MOCK, SETTINGS, Network
from tests.support.hosts.sidecars import Sidecars, listed, until


def test_foreign_owner_of_the_table_is_named(network: Network) -> None:
    """The kernel refuses a change of an owned table with EPERM; the line does not blame a missing capability."""
    network.start_mock()
    with network.app.popen("nft", "-i", stdin=subprocess.PIPE, stdout=subprocess.PIPE) as owner:
        assert owner.stdin is not None
        owner.stdin.write("add table ip imds_detour { flags owner; }\nlist tables\n")
        owner.stdin.flush()
        assert owner.stdout is not None
        owner.stdout.readline()
        done = network.raw(DETOUR, "true", environ={**SETTINGS, "MOCK_BACKEND": "nft"})
        owner.kill()
    assert done.returncode == 125, done
    assert b"owner" in done.stderr
    assert b"NET_ADMIN" not in done.stderr


def take_over(network: Network) -> "subprocess.Popen[str]":
    """Replace imds-detour's IPv4 table by a copy that another program owns, and return that program."""
    table = network.app.run("nft", "--stateless", "list", "table", "ip", "imds_detour").stdout
    copy = table.replace("{", "{ flags owner;", 1).replace("{\n", "{ ").replace("\n", "; ")
    owner = network.app.popen("nft", "-i", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert owner.stdin is not None
    assert owner.stdout is not None
    owner.stdin.write(f"delete table ip imds_detour; {copy}\nlist tables\n")
    owner.stdin.flush()
    owner.stdout.readline()
    assert "flags owner" in listed(network)
    return owner


def test_rules_of_another_owner_are_not_relied_on(ready: Network) -> None:
    """A table with all rules that would go with its owner fails a start; control: the same table without an owner."""
    start = (DETOUR, "true")
    settings = {**SETTINGS, "MOCK_BACKEND": "nft"}
    assert (ready.raw(*start, environ=settings).returncode, ready.raw(*start, environ=settings).returncode) == (0, 0)
    with take_over(ready) as owner:
        done = ready.raw(*start, environ=settings)
        owner.kill()
    assert (done.returncode, b"another program owns the table" in done.stderr) == (125, True), done


@pytest.mark.slow
def test_rules_that_go_with_their_owner_are_put_back(network: Network, sidecars: Sidecars) -> None:
    """The kernel tells nobody when a table goes with its owner; the sidecar still finds its guard missing."""
    sidecar = sidecars.start(
        "--every", "0.2", says="closed while there is no mock", MOCK_HOSTNAME=MOCK, MOCK_BACKEND="nft"
    )
    with take_over(network) as owner:
        sidecar.says("another program owns the table")
        owner.kill()
    assert METADATA in until(lambda: listed(network), lambda seen: METADATA in seen and "owner" not in seen)
