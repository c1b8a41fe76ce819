"""An nftables table whose name is imds-detour's, and whose owner is another program (NFT_TABLE_F_OWNER)."""

import subprocess

import pytest

from tests.support.hosts.network import DETOUR, SETTINGS, Network


@pytest.mark.xfail(strict=True, reason="issue 16: EPERM of a foreign owner is told as a missing NET_ADMIN")
def test_a_foreign_owner_of_the_table_is_named(network: Network) -> None:
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
