"""Removal and undo when the kernel or a file refuses: each failure is reported, and none hides another."""

import re
import signal
import subprocess
import sys
from os import kill

import pytest

from tests.support.faults.injection import Injection, calls_made, strace
from tests.support.faults.nft_transactions import BATCH
from tests.support.hosts.network import CTL, DETOUR, METADATA, MOCK, Network, read_line, read_until
from tests.support.hosts.sidecars import Sidecars, listed
from tests.support.marks import first_quick

pytestmark = pytest.mark.usefixtures("by_address", "chosen")
LOG = "/run/sendto.log"
DELETE_ROUTE = re.compile(r"nlmsg_type=(RTM_DELROUTE|0x19)\b")
"""How strace shows a request to remove a route (linux/rtnetlink.h), with or without the family of the socket."""
MARK = "# imds-detour"
HOSTS_REMEDY = f"remove the lines that end with `{MARK}` by hand, or make /etc/hosts writable and try again"
HOSTS_ERROR = f"cannot write /etc/hosts, which has lines of imds-detour: read-only file system; {HOSTS_REMEDY}"
ROUTE_REASON = f"cannot remove the route to {METADATA}: operation not permitted"
ROLL_BACK = """
import ipaddress, sys, threading
from imds_detour.errors import DetourError
from imds_detour.firewall.iptables.backend import LegacyFirewall
from imds_detour.firewall.iptables.helper import start_helper
from imds_detour.firewall.change import AddGuard
helpers = {version: start_helper(version) for version in (4, 6)}
firewall = LegacyFirewall(helpers, lambda: 1.5)
firewall.require()
with open(f"/proc/self/task/{threading.get_native_id()}/children") as children:
    print(children.read(), flush=True)
sys.stdin.readline()
call = helpers[4].call
def call_and_report(*arguments, **options):
    result = call(*arguments, **options)
    print("committed", flush=True)
    return result
helpers[4].call = call_and_report
addresses = (ipaddress.ip_address("169.254.169.254"), ipaddress.ip_address("fd00:ec2::254"))
try:
    firewall.apply(AddGuard(addresses), 1)
except DetourError as error:
    print(error.reason)
firewall.close()
"""
"""Apply rules of both IP versions. It prints the helpers' process ids, IPv4's first, and each commit of IPv4's."""


def refuse(
    network: Network, pattern: re.Pattern[str], *command: str, nth: int = 0, environ: dict[str, str] | None = None
) -> tuple[str, ...]:
    """Run a command to see its requests to the kernel, and return a prefix that makes the nth that matches fail."""
    network.app.run(*strace(log=LOG, calls=["sendto"]), *command, environ=environ, check=False)
    calls = calls_made(network.app.run("cat", LOG).stdout)
    return strace(Injection("sendto", "error=EPERM", [call.number for call in calls if pattern.search(call.line)][nth]))


@pytest.fixture
def routed(network: Network) -> Network:
    """Give a network in which a redirect needs a route of imds-detour."""
    network.app.ip("route", "del", "default")
    network.start_mock()
    return network


def test_remove_reports_a_hosts_file_that_it_cannot_write(mocked: Network) -> None:
    """The command remove names the lines that it cannot remove from /etc/hosts, and exits with 125 until it can."""
    mocked.success("true", MOCK_ENDPOINTS="gcp")
    mocked.remount_hosts("ro")
    for stdout in ("legacy iptables: 6 rules removed\n", ""):
        refused = mocked.ctl("remove")
        assert (refused.returncode, refused.stderr, refused.stdout) == (125, f"imds-detour: {HOSTS_ERROR}\n", stdout)
    assert (mocked.detour_rules(), MARK in mocked.hosts()) == ("", True)
    mocked.remount_hosts("rw")  # the control
    done = mocked.app.run(CTL, "remove")
    assert done.stdout == "/etc/hosts: lines of imds-detour removed\n"
    assert MARK not in mocked.hosts()
    mocked.remount_hosts("ro")  # a file without lines of imds-detour need not be writable
    done = mocked.app.run(CTL, "remove")
    assert (done.stdout, done.stderr) == ("nothing to remove\n", "")


def test_remove_reports_a_route_that_the_kernel_keeps(routed: Network) -> None:
    """The command remove gives the kernel's reason for a route that stays, and exits with 125 until it is gone."""
    routed.success("true")
    prefix = refuse(routed, DELETE_ROUTE, CTL, "remove")
    assert routed.detour_routes() == ""
    routed.success("true")
    refused = routed.app.run(*prefix, CTL, "remove", check=False)
    assert (refused.returncode, refused.stdout) == (
        125,
        "legacy iptables: 6 rules removed\nnftables: 4 rules removed\n",
    )
    remedy = "add NET_ADMIN; `ip route show proto 169` lists the routes that remain"
    assert refused.stderr == f"imds-detour: {ROUTE_REASON}; {remedy}\n"
    assert METADATA in routed.detour_routes()
    done = routed.app.run(CTL, "remove")  # the control
    assert (done.stdout, routed.detour_routes()) == ("routes: 1 route removed\n", "")


def test_remove_reports_a_guard_that_the_kernel_keeps(mocked: Network) -> None:
    """The command remove gives the kernel's reason for a guard that stays, and exits with 125 until it is gone."""
    mocked.success("true", MOCK_BACKEND="nft")
    prefix = refuse(mocked, BATCH, CTL, "remove", nth=1)
    assert listed(mocked) == ""
    mocked.success("true", MOCK_BACKEND="nft")
    refused = mocked.app.run(*prefix, CTL, "remove", check=False)
    assert (refused.returncode, refused.stdout) == (125, "nftables: 1 rule removed\n")
    assert "another program owns the table imds_detour" in refused.stderr  # what EPERM means with NET_ADMIN
    assert ("dnat" in listed(mocked), "reject" in listed(mocked)) == (False, True)
    assert mocked.app.run(CTL, "remove").stdout.endswith("rules removed\n")  # the control
    assert listed(mocked) == ""


def test_remove_keeps_routes_in_other_tables(routed: Network) -> None:
    """The command remove neither removes nor counts a route with imds-detour's protocol outside the main table."""
    foreign = ("route", "add", METADATA, "dev", "lo", "proto", "169", "src", "127.0.0.1", "table", "100")
    routed.app.ip(*foreign)
    assert routed.app.run(CTL, "remove").stdout == "nothing to remove\n"
    assert "table 100" in routed.detour_routes()


def test_sidecar_reports_lines_that_it_cannot_remove(mocked: Network, sidecars: Sidecars) -> None:
    """A stopped sidecar exits with 125 when it cannot write /etc/hosts. With a writable file it exits with 0."""
    for mode, status in (("ro", 125), ("rw", 0)):
        sidecar = sidecars.start(MOCK_ENDPOINTS="gcp")
        mocked.remount_hosts(mode)
        sidecar.process.terminate()
        if status:
            assert sidecar.says("cannot write") == f"imds-detour: {HOSTS_ERROR}\n"
        assert sidecar.ends() == status
        assert (MARK in mocked.hosts()) is bool(status)


def test_refused_undo_of_a_route_is_a_warning(routed: Network) -> None:
    """A failed start reports the route that it cannot remove, and then the error that it failed with."""
    environ = routed.settings(None, MOCK_ENDPOINTS="gcp", MOCK_PROBE="off")
    routed.remount_hosts("ro")  # the start fails after its route is added
    prefix = refuse(routed, DELETE_ROUTE, DETOUR, "true", environ=environ)
    assert routed.detour_routes() == ""  # the control: this undo worked
    failed = routed.app.run(*prefix, DETOUR, "true", environ=environ, check=False)
    assert failed.returncode == 125
    *_, warning, error = failed.stderr.splitlines()
    assert warning == f"imds-detour: a change could not be undone: {ROUTE_REASON}"
    assert "cannot write /etc/hosts, and SDKs use the name metadata.google.internal" in error
    assert METADATA in routed.detour_routes()


def test_refused_undo_of_the_hosts_file_is_a_warning(mocked: Network) -> None:
    """A failed start names the lines that it cannot remove from /etc/hosts, and then the error that it failed with."""
    mocked.start_faulty("GET=body:other", port="8081")
    mocked.divert(MOCK, "8081")
    start = mocked.popen_detour("true", MOCK_ENDPOINTS="gcp", MOCK_TIMEOUT="2", MOCK_LOG="debug")
    read_until(start, "/etc/hosts: metadata.google.internal")
    mocked.remount_hosts("ro")
    *_, error = lines = start.communicate(timeout=20)[1].splitlines()
    reason = HOSTS_ERROR.partition("; ")[0]
    assert any(line.endswith(f"a change could not be undone: {reason}") for line in lines)
    assert (start.returncode, "cannot write" in error, mocked.detour_redirects()) == (125, False, "")


@pytest.mark.parametrize("helper", first_quick(["killed", "alive"]))
def test_failed_legacy_roll_back_is_added_to_the_first_error(network: Network, helper: str) -> None:
    """When IPv6's helper hangs and IPv4's is killed before its roll-back, the error has both reasons."""
    script = (sys.executable, "-c", ROLL_BACK)
    client = network.app.popen(*script, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert client.stdin is not None
    version_4, version_6 = map(int, read_line(client).split())
    kill(version_6, signal.SIGSTOP)
    client.stdin.write("\n")
    client.stdin.flush()
    assert read_line(client) == "committed\n"
    assert "REJECT" in network.detour_rules()
    if helper == "killed":
        kill(version_4, signal.SIGKILL)
    output, _ = client.communicate(timeout=20)
    undone = "; the change for IPv4 could not be undone: the firewall helper ended early"
    remaining = undone if helper == "killed" else ""
    assert output.removeprefix("committed\n") == f"the firewall helper did not answer within 1.65 s{remaining}\n"
    assert ("REJECT" in network.detour_rules()) is (helper == "killed")
