"""The app cannot undo the redirect or regain NET_ADMIN, and it loses nothing else."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from imds_detour.advice.failure import MORE
from imds_detour.system.capabilities import NET_ADMIN
from tests.support.faults.capabilities import DOCKER, PODMAN, only, without
from tests.support.faults.injection import Injection, calls_made, strace
from tests.support.hosts.network import DETOUR, METADATA, SETTINGS, Network

SETPCAP = 1 << 8
"""linux/capability.h: CAP_SETPCAP."""
SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
AS_ROOT = ()
WITHOUT_SETPCAP = ("setpriv", "--bounding-set", "-setpcap")
WITH_INHERITABLE_AND_AMBIENT = ("setpriv", "--inh-caps", "+net_admin,+net_raw", "--ambient-caps", "+net_admin,+net_raw")
AMBIENT_ALONE = (
    *("setpriv", "--securebits", "+noroot,+noroot_locked"),
    *("--inh-caps", "-all,+net_admin,+net_raw", "--ambient-caps", "-all,+net_admin,+net_raw"),
)
"""Capabilities of a user other than root: the ambient set gives them, and uid 0 gives none."""


@pytest.fixture(scope="module")
def running() -> Iterator[Network]:
    """Give a network with a mock, and a set-uid root program that shows its own process."""
    with Network() as network:
        network.start_mock()
        network.app.run("install", "-m", "4755", "/bin/cat", "/run/root-cat")
        yield network


def status(network: Network, *start: str, **settings: str) -> dict[str, str]:
    """Return the fields of /proc/self/status in a process that this command starts."""
    done = network.raw(*start, environ={**SETTINGS, **settings})
    assert done.returncode == 0, done.stderr
    fields = (line.partition(":\t") for line in done.stdout.decode().splitlines())
    return {name: value for name, _, value in fields if name in (*SETS, "Uid", "NoNewPrivs")}


def capabilities(fields: dict[str, str]) -> dict[str, int]:
    """Return the five sets as bit masks."""
    return {name: int(fields[name], 16) for name in SETS}


LOOK = ("cat", "/proc/self/status")
BY_SETPCAP = pytest.mark.parametrize("start", [AS_ROOT, WITHOUT_SETPCAP], ids=["root", "without SETPCAP"])


def look(network: Network, *start: str) -> tuple[dict[str, int], dict[str, int], str]:
    """Return the sets of a process without imds-detour and of an app, and the app's NoNewPrivs."""
    before, after = status(network, *start, *LOOK), status(network, *start, DETOUR, *LOOK)
    return capabilities(before), capabilities(after), after["NoNewPrivs"]


def without_net_admin(sets: dict[str, int], *, bounded: bool) -> dict[str, int]:
    """Return the sets without NET_ADMIN, which only SETPCAP can remove from the bounding set."""
    return {name: mask if name == "CapBnd" and not bounded else mask & ~NET_ADMIN for name, mask in sets.items()}


def test_no_new_privs_replaces_setpcap(running: Network) -> None:
    """Without SETPCAP the bounding set keeps NET_ADMIN, no_new_privs blocks it, and one line says so."""
    before, after, no_new_privs = look(running, *WITHOUT_SETPCAP)
    assert not before["CapPrm"] & SETPCAP
    assert (after, no_new_privs) == (without_net_admin(before, bounded=False), "1")
    warning, _ = running.raw(*WITHOUT_SETPCAP, DETOUR, *LOOK, environ=SETTINGS).stderr.decode().splitlines()
    assert warning == (
        "imds-detour: NET_ADMIN is dropped by no_new_privs, without SETPCAP: set-uid programs have no effect"
    )


def with_ineffective_call(
    network: Network, start: tuple[str, ...], call: str, when: str = "1+"
) -> subprocess.CompletedProcess[bytes]:
    """Start an app where a system call reports success and has no effect; with an empty ``when`` it has its effect."""
    lies = (Injection(call, "retval=0", when),) if when else ()
    traced = strace(*lies, log="/run/calls", calls=[call], children=True)
    return network.raw(*start, *traced, DETOUR, "echo", "started", environ=SETTINGS)


STILL = (
    "imds-detour: NET_ADMIN is still in {} after dropping it; add SETPCAP (Compose `cap_add: [NET_ADMIN, SETPCAP]`),"
    f" or MOCK_KEEP_NET_ADMIN=1 to let the app keep NET_ADMIN; {MORE}\n"
)


@pytest.mark.parametrize(
    ("start", "call", "left"),
    [
        (AS_ROOT, "capset", "CapPrm, CapEff"),
        (AS_ROOT, "prctl", "CapBnd"),
        (AS_ROOT, "prctl,capset", "CapPrm, CapEff, CapBnd"),
        (WITH_INHERITABLE_AND_AMBIENT, "capset", "CapInh, CapPrm, CapEff"),
        (WITHOUT_SETPCAP, "prctl", "CapBnd"),
    ],
)
def test_ineffective_call_is_detected(running: Network, start: tuple[str, ...], call: str, left: str) -> None:
    """If a call drops NET_ADMIN without an effect, the app does not start, and one line names the sets."""
    honest = with_ineffective_call(running, start, call, "")
    assert (honest.returncode, honest.stdout) == (0, b"started\n")  # the control: traced alike, and let through
    done = with_ineffective_call(running, start, call)
    assert (done.returncode, done.stdout) == (125, b""), done.stderr
    assert done.stderr.decode() == STILL.format(left)


def test_ineffective_no_new_privs_is_detected(running: Network) -> None:
    """Without SETPCAP, an ineffective no_new_privs prevents the app."""
    assert with_ineffective_call(running, WITHOUT_SETPCAP, "prctl", "").returncode == 0
    first, *calls = calls_made(running.app.run("cat", "/run/calls").stdout)
    own = [call for call in (first, *calls) if call.process == first.process]
    (number,) = [call.number for call in own if "PR_SET_NO_NEW_PRIVS" in call.line]
    done = with_ineffective_call(running, WITHOUT_SETPCAP, "prctl", str(number))
    assert (done.returncode, done.stdout) == (125, b""), done.stderr
    assert done.stderr.decode() == STILL.format("CapBnd")


UNDO = {
    "rules": "iptables-legacy -t nat -F",
    "guard": "iptables-legacy -F IMDS_DETOUR_GUARD",
    "route": f"ip route add {METADATA}/32 dev eth0",
    "device": "ip link set eth0 down",
}


@BY_SETPCAP
@pytest.mark.parametrize("what", UNDO)
def test_app_as_root_cannot_undo_the_redirect(running: Network, what: str, start: tuple[str, ...]) -> None:
    """Neither the app as root nor its programs can change rules, routes or devices. Control: root alone can."""
    assert running.raw(*start, DETOUR, "true", environ=SETTINGS).returncode == 0
    rules = running.detour_rules()
    assert "DNAT" in rules
    done = running.raw(*start, DETOUR, "sh", "-c", f"{UNDO[what]} && echo undone; exit 0", environ=SETTINGS)
    assert (done.returncode, done.stdout) == (0, b""), done.stderr
    assert running.detour_rules() == rules
    assert running.raw(*start, "sh", "-c", UNDO["rules"], environ=SETTINGS).returncode == 0


OTHER_USER = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
NOBODY_RUNS_ROOTS = (*OTHER_USER, "/run/root-cat", "/proc/self/status")


@pytest.mark.usefixtures("other_users")
def test_set_uid_root_program_does_not_regain_net_admin(running: Network) -> None:
    """If the app becomes another user and runs a set-uid root program, that has no NET_ADMIN."""
    plain, dropped = status(running, *NOBODY_RUNS_ROOTS), status(running, DETOUR, *NOBODY_RUNS_ROOTS)
    assert plain["Uid"].split() == dropped["Uid"].split() == ["65534", "0", "0", "0"]
    assert capabilities(plain)["CapEff"] & NET_ADMIN
    assert capabilities(dropped)["CapEff"] == capabilities(plain)["CapEff"] & ~NET_ADMIN


NAIVE = """
import ctypes, os, sys
from imds_detour.process import privileges
privileges._lower(ctypes.CDLL(None), ~privileges.NET_ADMIN, 3)
os.execvp(sys.argv[1], sys.argv[1:])
"""
"""capset(2) without a change of the bounding set."""


@pytest.mark.usefixtures("other_users")
def test_capset_alone_does_not_drop_net_admin(running: Network) -> None:
    """Negative control: after capset alone, a set-uid root program regains NET_ADMIN, and for root any program does."""
    naive = (sys.executable, "-c", NAIVE)
    given_up = "import sys; from imds_detour.system.capabilities import *; sys.exit(bool(effective() & NET_ADMIN))"
    lowered = NAIVE.replace("os.execvp(sys.argv[1], sys.argv[1:])", given_up)
    assert running.raw(sys.executable, "-c", lowered, environ=SETTINGS).returncode == 0  # it was lowered
    for command in (NOBODY_RUNS_ROOTS, LOOK):
        assert capabilities(status(running, *naive, *command))["CapEff"] & NET_ADMIN


@pytest.mark.usefixtures("other_users")
def test_set_uid_root_program_stays_a_user_without_setpcap(running: Network) -> None:
    """Under no_new_privs a set-uid root program does not become root."""
    dropped = status(running, *WITHOUT_SETPCAP, DETOUR, *NOBODY_RUNS_ROOTS)
    assert (dropped["Uid"].split(), capabilities(dropped)["CapPrm"]) == (["65534"] * 4, 0)


CAPABLE = "/run/nft-with-net-admin"
"""A copy of nft with ``cap_net_admin+ep``, which gives NET_ADMIN to any user if the bounding set has it.

A copy of ip does not work, because ip drops its capabilities for users other than root.
"""


@pytest.fixture(scope="module")
def capable(running: Network) -> Network:
    """Give a network with the file CAPABLE."""
    running.app.run("sh", "-euc", f"cp $(command -v nft) {CAPABLE}")
    running.app.run("setcap", "cap_net_admin+ep", CAPABLE)
    return running


@pytest.mark.usefixtures("other_users")
@pytest.mark.parametrize("user", [None, "65534:65534"])
@BY_SETPCAP
def test_file_capabilities_do_not_regain_net_admin(capable: Network, start: tuple[str, ...], user: str | None) -> None:
    """The kernel does not execute such a file, or executes it without NET_ADMIN, for root and for another user."""
    environ = {**SETTINGS, **({"MOCK_USER": user} if user else {})}
    done = capable.raw(*start, DETOUR, CAPABLE, "add", "table", "ip", "foreign", environ=environ)
    assert done.returncode not in (0, 125), done
    assert b"not permitted" in done.stderr.lower(), done.stderr
    assert "foreign" not in capable.app.run("nft", "list", "ruleset").stdout


@pytest.mark.usefixtures("other_users")
@pytest.mark.parametrize(
    ("start", "file", "reason"),
    [
        ((), CAPABLE, b"because the file gives itself NET_ADMIN, which imds-detour drops; "),
        (without("sys_time"), "/run/clock", b"that this container lacks; "),
    ],
)
def test_file_with_a_forbidden_capability_gets_a_remedy(
    capable: Network, start: tuple[str, ...], file: str, reason: bytes
) -> None:
    """The kernel refuses a file whose capability is out of bounds; the line names the cause and `setcap -r`."""
    capable.app.run("sh", "-euc", "cp /bin/true /run/clock; setcap cap_sys_time+ep /run/clock")
    done = capable.raw(*start, DETOUR, file, environ=SETTINGS)
    assert (done.returncode, reason in done.stderr, b"`setcap -r /run/" in done.stderr) == (126, True, True), done
    assert capable.raw("/run/clock", environ=SETTINGS).returncode == 0  # the control


@pytest.mark.usefixtures("other_users")
def test_file_with_capabilities_works_without_imds_detour(capable: Network) -> None:
    """Negative control: without imds-detour the file gives NET_ADMIN to any user, and a plain copy does not."""
    for user in ((), OTHER_USER):
        for verb in ("add", "delete"):
            assert capable.raw(*user, CAPABLE, verb, "table", "ip", "foreign", environ=SETTINGS).returncode == 0
    assert capable.raw(*OTHER_USER, "nft", "add", "table", "ip", "foreign", environ=SETTINGS).returncode != 0


OWN_USERS = ("unshare", "--user", "--map-root-user")
UNDO_IN_NAMESPACE = {**UNDO, "all of nftables": "nft flush ruleset", "table": "nft add table ip foreign"}


@BY_SETPCAP
@pytest.mark.parametrize("what", UNDO_IN_NAMESPACE)
def test_new_user_namespace_does_not_regain_net_admin(running: Network, what: str, start: tuple[str, ...]) -> None:
    """In a new user namespace the app has every capability, but none over the network of the redirect."""
    assert running.raw(*start, DETOUR, "true", environ=SETTINGS).returncode == 0
    before = running.rules(), running.app.run("nft", "list", "ruleset").stdout
    script = f"{UNDO_IN_NAMESPACE[what]} && echo undone; grep CapEff /proc/self/status"
    done = running.raw(*start, DETOUR, *OWN_USERS, "sh", "-c", script, environ=SETTINGS)
    assert b"undone" not in done.stdout, done
    assert int(done.stdout.split()[-1], 16) & NET_ADMIN  # it has NET_ADMIN, so the kernel refused
    assert (running.rules(), running.app.run("nft", "list", "ruleset").stdout) == before
    assert ",UP" in running.app.ip("link", "show", "eth0")


def test_new_network_namespace_is_open_to_the_app(running: Network) -> None:
    """Negative control: in a new network namespace the same commands work, without effect on the old one."""
    script = "ip link set lo up && iptables-legacy -t nat -F && nft add table ip foreign && echo done"
    done = running.raw(DETOUR, *OWN_USERS, "--net", "sh", "-c", script, environ=SETTINGS)
    assert done.stdout == b"done\n", done.stderr
    assert "foreign" not in running.app.run("nft", "list", "ruleset").stdout


def as_other_user(names: str) -> tuple[str, ...]:
    """Return a command that starts as another user, with these capabilities in the ambient set."""
    sets = f"-all,+{names.replace(',', ',+')}"
    return (*OTHER_USER, "--inh-caps", sets, "--ambient-caps", sets)


MATRIX = {
    "everything": AS_ROOT,
    "everything, inheritable and ambient": WITH_INHERITABLE_AND_AMBIENT,
    "ambient alone": AMBIENT_ALONE,
    "Docker's and NET_ADMIN": only(f"{DOCKER},net_admin"),
    "Podman's and NET_ADMIN": only(f"{PODMAN},net_admin"),
    "NET_ADMIN alone": only("net_admin"),
    "NET_ADMIN and NET_RAW": only("net_admin,net_raw"),
    "NET_ADMIN and SETPCAP": only("net_admin,setpcap"),
    "NET_ADMIN, NET_RAW and SETPCAP": only("net_admin,net_raw,setpcap"),
    "Docker's and NET_ADMIN, no new privileges": (*only(f"{DOCKER},net_admin"), "--nnp"),
    "NET_ADMIN alone, no new privileges": (*only("net_admin"), "--nnp"),
    "another user, ambient NET_ADMIN": as_other_user("net_admin"),
    "another user, ambient NET_ADMIN and NET_RAW": as_other_user("net_admin,net_raw"),
    "another user, ambient NET_ADMIN and SETPCAP": as_other_user("net_admin,setpcap,kill"),
}


@pytest.mark.parametrize("row", MATRIX)
def test_every_start_loses_net_admin_only(running: Network, row: str, request: pytest.FixtureRequest) -> None:
    """Every set loses NET_ADMIN only. If the bounding set cannot, no_new_privs blocks it."""
    if "another user" in row:
        request.getfixturevalue("other_users")
    start = MATRIX[row]
    before, after = status(running, *start, *LOOK), status(running, *start, DETOUR, *LOOK)
    assert capabilities(before)["CapEff"] & NET_ADMIN
    # Negative control: without imds-detour the start can set a link up, which needs NET_ADMIN.
    assert running.raw(*start, "ip", "link", "set", "lo", "up", environ=SETTINGS).returncode == 0
    bounded = capabilities(before)["CapEff"] & SETPCAP
    wanted = without_net_admin(capabilities(before), bounded=bool(bounded))
    assert (capabilities(after), after["Uid"]) == (wanted, before["Uid"])
    assert after["NoNewPrivs"] == ("0" if bounded and before["NoNewPrivs"] == "0" else "1")
    # A set-uid root program that the app runs has its usual capabilities without NET_ADMIN.
    plain, dropped = (status(running, *start, *wrap, "/run/root-cat", "/proc/self/status") for wrap in ((), (DETOUR,)))
    assert not capabilities(dropped)["CapEff"] & NET_ADMIN
    if bounded:
        assert capabilities(dropped)["CapEff"] == capabilities(plain)["CapEff"] & ~NET_ADMIN
    for what in UNDO.values():
        assert running.raw(*start, DETOUR, "sh", "-c", what, environ=SETTINGS).returncode not in (0, 125), what


@BY_SETPCAP
def test_app_cannot_raise_net_admin_again(running: Network, start: tuple[str, ...]) -> None:
    """The app cannot raise NET_ADMIN in its inheritable and ambient sets."""
    raise_it = ("setpriv", "--inh-caps", "+net_admin", "--ambient-caps", "+net_admin", *LOOK)
    done = running.raw(*start, DETOUR, *raise_it, environ=SETTINGS)
    assert (done.returncode != 0, done.stdout) == (True, b"")


@BY_SETPCAP
def test_mock_keep_net_admin_changes_no_set(running: Network, start: tuple[str, ...]) -> None:
    """With MOCK_KEEP_NET_ADMIN=1 every set stays, and no_new_privs is not set."""
    before = status(running, *start, *LOOK)
    assert status(running, *start, DETOUR, *LOOK, MOCK_KEEP_NET_ADMIN="1") == before
    status(running, *start, DETOUR, "ip", "link", "set", "lo", "up", MOCK_KEEP_NET_ADMIN="1")  # it succeeds
