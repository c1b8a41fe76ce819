"""imds-detourctl with a hidden or incomplete /proc, or without a list of routes: its messages are correct."""

import json

import pytest

from tests.support.faults.seccomp import kernel_without
from tests.support.hosts.network import CTL, INSTANCE, Network

CHANGED = ("unshare", "--mount", "sh", "-euc")
HIDDEN = (*CHANGED, 'mount -t tmpfs tmpfs /proc; exec "$@"', "sh")
LINKS = """
mkdir -p /run/proc
mount --rbind /proc /run/proc
mount -t tmpfs tmpfs /proc
mkdir /proc/self
for entry in /run/proc/* /run/proc/self/*; do
    [ $entry = /run/proc/self ] || ln -s $entry /proc/${entry#/run/proc/}
done
rm /proc/self/uid_map
exec "$@"
"""
WITHOUT_UID_MAP = (*CHANGED, LINKS, "sh")
"""As on a kernel without CONFIG_USER_NS: /proc contains links to everything except uid_map."""
CAPABILITIES = "cannot see this process's capabilities: /proc/self/status: no such file or directory"
ALL = {"doctor": ("--all",)}
STATUS = {"doctor": 1, "check": 1, "status": 0, "remove": 0}
"""Exit status of each verb with a redirect installed and /proc hidden."""


@pytest.fixture
def redirected(ready: Network) -> Network:
    """Give a network with a redirect in nftables, whose rules are readable without /proc."""
    ready.success("true", MOCK_BACKEND="nft")
    return ready


@pytest.mark.slow
@pytest.mark.parametrize("verb", STATUS)
def test_verbs_report_a_hidden_proc(redirected: Network, verb: str) -> None:
    """With /proc hidden each verb reports it, exits as its --help says, and remove still removes the rules."""
    done = redirected.ctl(verb, prefix=HIDDEN)
    output = done.stdout + done.stderr
    assert (done.returncode, CAPABILITIES in output) == (STATUS[verb], True), output
    for wrong in ("Traceback", "cannot write to stdout", "unexpected"):
        assert wrong not in output
    assert (redirected.app.run(CTL, "status", check=False).returncode == 1) is (verb == "remove")


def test_doctor_skips_unreadable_checks(redirected: Network) -> None:
    """With /proc hidden the doctor skips checks that need it, runs the others, and suggests a separate /proc."""
    report = json.loads(redirected.ctl("doctor", "--json", prefix=HIDDEN).stdout)
    findings = {finding["name"]: finding for finding in report["findings"]}
    for name in ("network namespace", "user namespace", "NET_RAW", "SETPCAP"):
        assert findings[name]["state"] == "skip"
        assert findings[name]["seen"].startswith("cannot be told: ")
    assert (findings["NET_ADMIN"]["state"], findings["NET_ADMIN"]["seen"]) == ("fail", CAPABILITIES)
    assert (findings["nftables"]["state"], findings["redirect"]["state"]) == ("ok", "ok")
    assert report["change"] == "give the container its own /proc"


def test_doctor_predicts_a_start_with_a_hidden_proc(redirected: Network) -> None:
    """With /proc hidden the doctor fails exactly when a start does: always, except with MOCK_KEEP_NET_ADMIN=1."""
    for kept, status in (("unset", 125), ("1", 0)):
        started = redirected.detour("true", prefix=HIDDEN, MOCK_KEEP_NET_ADMIN=kept)
        assert (started.returncode, CAPABILITIES in started.stderr) == (status, bool(status)), started.stderr
        assert redirected.ctl("doctor", prefix=HIDDEN, MOCK_KEEP_NET_ADMIN=kept).returncode == bool(status)


@pytest.mark.slow
@pytest.mark.parametrize("verb", STATUS)
def test_verbs_work_without_a_uid_map(redirected: Network, verb: str) -> None:
    """On a kernel without user namespaces each verb succeeds, and the doctor skips that check."""
    done = redirected.ctl(verb, *ALL.get(verb, ()), prefix=WITHOUT_UID_MAP)
    assert (done.returncode, done.stderr) == (0, "")
    line = f"\nskip  {'user namespace':27}cannot be told: /proc/self/uid_map: no such file or directory\n"
    assert (line in done.stdout) is (verb == "doctor")
    if verb == "check":
        assert INSTANCE in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["status", "remove"])
def test_verbs_report_unlisted_routes(redirected: Network, verb: str) -> None:
    """When the kernel refuses to list routes, status and remove exit with 125 and one line."""
    done = redirected.ctl(verb, prefix=kernel_without("routes"))
    assert (done.returncode, done.stderr) == (125, "imds-detour: cannot list the routes: protocol not supported\n")
