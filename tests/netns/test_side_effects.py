"""Commands that only read create no table of legacy iptables, although reading a table creates it for good."""

import pytest

from tests.support.faults.capabilities import without
from tests.support.faults.injection import Injection, strace
from tests.support.hosts.network import METADATA, Network

pytestmark = pytest.mark.usefixtures("by_address")
BOTH = {"ip": ["filter", "nat"], "ip6": ["filter", "nat"]}
OF_A_START = {"ip": ["filter", "nat"], "ip6": []}
NONE: dict[str, list[str]] = {"ip": [], "ip6": []}


def tables(network: Network) -> dict[str, list[str]]:
    """Return the tables of legacy iptables on the app's host, of both IP versions."""
    made = {}
    for version in NONE:
        with open(f"/proc/{network.app.pid}/net/{version}_tables_names") as names:
            made[version] = sorted(names.read().split())
    return made


STARTS = {
    "nftables is chosen": ((), "nft", 0, "nftables, verified"),
    "auto, without NET_RAW": (without("net_raw"), "auto", 0, "nftables, verified"),
    "legacy is chosen, without NET_RAW": (without("net_raw"), "legacy", 125, "no NET_RAW capability"),
    "auto, without NET_ADMIN": (without("net_admin"), "auto", 125, "no NET_ADMIN capability"),
}


@pytest.mark.parametrize(("prefix", "backend", "status", "said"), STARTS.values(), ids=STARTS.keys())
def test_start_without_legacy_iptables_creates_no_table(
    mocked: Network, prefix: tuple[str, ...], backend: str, status: int, said: str
) -> None:
    """A start that uses nftables, or is refused, creates no table of legacy iptables."""
    done = mocked.detour("true", prefix=prefix, MOCK_BACKEND=backend)
    assert (done.returncode, tables(mocked)) == (status, NONE)
    assert said in done.stderr


def test_start_with_legacy_iptables_creates_its_tables(mocked: Network) -> None:
    """Negative control: a start with legacy iptables creates the tables nat and filter, for IPv4 only."""
    assert tables(mocked) == NONE
    mocked.success("true", MOCK_BACKEND="legacy")
    assert tables(mocked) == OF_A_START


def test_plan_creates_no_table(network: Network) -> None:
    """`plan` prints rules for both firewalls, and creates nothing."""
    assert f"-A IMDS_DETOUR -d {METADATA}/32" in network.ctl("plan").stdout
    assert (tables(network), network.app.run("nft", "list", "ruleset").stdout) == (NONE, "")


@pytest.mark.parametrize("redirected", [True, False], ids=["a redirect in nftables", "no redirect"])
def test_check_creates_no_table(mocked: Network, *, redirected: bool) -> None:
    """`check` runs every few seconds with every capability, and creates no table."""
    if redirected:
        mocked.success("true", MOCK_BACKEND="nft")
    listed = mocked.app.run("nft", "-s", "list", "ruleset").stdout
    done = mocked.ctl("check")
    assert done.returncode == (0 if redirected else 1)
    said = "by the rule" if redirected else f"{METADATA}:80 is not redirected by imds-detour"
    assert said in done.stdout + done.stderr
    assert (tables(mocked), mocked.app.run("nft", "-s", "list", "ruleset").stdout) == (NONE, listed)


UNSEEN = strace(
    Injection("openat", "error=EACCES"),
    children=True,
    paths=("/proc/self/net/ip_tables_names", "/proc/self/net/ip6_tables_names"),
)
"""Run a command that cannot list the tables, as with a masked /proc."""


def test_check_without_a_list_reads_the_tables(mocked: Network) -> None:
    """Negative control: if the list of tables is hidden, `check` reads them, which creates them, and sees the rules."""
    assert (mocked.ctl("check", prefix=UNSEEN).returncode, tables(mocked)) == (1, BOTH)
    mocked.success("true", MOCK_BACKEND="legacy")
    for prefix in ((), UNSEEN):
        done = mocked.ctl("check", prefix=prefix)
        assert done.returncode == 0, done
        assert done.stdout.endswith(", by the rule\n")
