"""imds-detourctl where /proc is hidden, in whole or in part, or no routes are listed: what it says is true."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support import SUPPORT
from tests.support.hosts.network import CTL, INSTANCE

if TYPE_CHECKING:
    import subprocess

    from tests.support.hosts.network import Network

HIDDEN = """
mount -t tmpfs tmpfs /proc
exec "$@"
"""
WITHOUT_UID_MAP = """
mkdir -p /run/proc
mount --rbind /proc /run/proc
mount -t tmpfs tmpfs /proc
mkdir /proc/self
for each in /run/proc/* /run/proc/self/*; do
    [ $each = /run/proc/self ] || ln -s $each /proc/${each#/run/proc/}
done
rm /proc/self/uid_map
exec "$@"
"""
"""As on a kernel without CONFIG_USER_NS: all of /proc is there by links, but for one file."""
WITHOUT = f"{SUPPORT}/faults/seccomp.py"
CAPABILITIES = "cannot see this process's capabilities: /proc/self/status: no such file or directory"
STATUS = {"doctor": 1, "check": 1, "status": 0, "remove": 0}
"""How each verb ends behind a redirect where /proc is hidden."""


def run(network: Network, script: str, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run imds-detourctl on the app's host behind a script that changes what it sees of /proc."""
    command = ("unshare", "--mount", "sh", "-euc", script, "sh", CTL, *words)
    return network.app.run(*command, environ=network.settings(None, **settings), check=False)


@pytest.fixture
def ready(network: Network) -> Network:
    """Give a network in which a redirect of ours stands, in nftables: it can be seen without /proc."""
    network.start_dns()
    network.start_mock("--quiet")
    assert network.detour("true", MOCK_BACKEND="nft").returncode == 0
    return network


@pytest.mark.slow
@pytest.mark.parametrize("verb", STATUS)
def test_where_proc_is_hidden_each_verb_says_so(ready: Network, verb: str) -> None:
    """With the exit status that its --help promises; what has been done by then is done."""
    done = run(ready, HIDDEN, verb)
    said = done.stdout + done.stderr
    assert (done.returncode, CAPABILITIES in said) == (STATUS[verb], True), said
    for untrue in ("Traceback", "cannot write to stdout", "unexpected"):
        assert untrue not in said
    assert (ready.app.run(CTL, "status", check=False).returncode == 1) is (verb == "remove")


def test_the_doctor_tells_what_cannot_be_told_from_what_is_missing(ready: Network) -> None:
    """Without /proc nobody knows what this process may do; the kernel is asked all the same, and /proc is to change."""
    said = json.loads(run(ready, HIDDEN, "doctor", "--json").stdout)
    findings = {finding["name"]: finding for finding in said["findings"]}
    for name in ("network namespace", "user namespace", "NET_RAW", "SETPCAP"):
        assert findings[name]["state"] == "skip"
        assert findings[name]["seen"].startswith("cannot be told: ")
    assert (findings["NET_ADMIN"]["state"], findings["NET_ADMIN"]["seen"]) == ("fail", CAPABILITIES)
    assert (findings["nftables"]["state"], findings["redirect"]["state"]) == ("ok", "ok")
    assert said["change"] == "give the container its own /proc"


def test_what_the_doctor_says_of_a_hidden_proc_holds(ready: Network) -> None:
    """No app starts there, for the reason that it names; one that may keep NET_ADMIN does, and nothing is to change."""
    for settings, status in (({}, 125), ({"MOCK_KEEP_NET_ADMIN": "1"}, 0)):
        command = ("unshare", "--mount", "sh", "-euc", HIDDEN, "sh", CTL.removesuffix("ctl"), "true")
        started = ready.app.run(*command, environ=ready.settings(None, **settings), check=False)
        assert (started.returncode, CAPABILITIES in started.stderr) == (status, bool(status)), started.stderr
        assert run(ready, HIDDEN, "doctor", **settings).returncode == bool(status)


@pytest.mark.slow
@pytest.mark.parametrize("verb", STATUS)
def test_a_kernel_without_user_namespaces_has_no_uid_map(ready: Network, verb: str) -> None:
    """The doctor says what it cannot tell, and nothing else is amiss."""
    done = run(ready, WITHOUT_UID_MAP, verb)
    assert (done.returncode, done.stderr) == (0, "")
    line = f"\nskip  {'user namespace':27}cannot be told: /proc/self/uid_map: no such file or directory\n"
    assert (line in done.stdout) is (verb == "doctor")
    if verb == "check":
        assert INSTANCE in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["status", "remove"])
def test_routes_that_the_kernel_does_not_list_are_one_line(ready: Network, verb: str) -> None:
    """What confines a container may keep netlink from it; that is said, and it is not about stdout."""
    done = ready.app.run(sys.executable, WITHOUT, "routes", CTL, verb, check=False)
    assert (done.returncode, done.stderr) == (125, "imds-detour: cannot list the routes: protocol not supported\n")
