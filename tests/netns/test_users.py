"""MOCK_USER makes the app another user for good, as USER in the image's Dockerfile would."""

import json
import os
import pty
import stat
import subprocess
import sys
from collections.abc import Iterator

import pytest

from imds_detour.discovery import mock
from imds_detour.system.capabilities import NET_ADMIN
from tests.support.faults.capabilities import only
from tests.support.faults.injection import Injection, strace
from tests.support.hosts.network import DETOUR, SETTINGS, Network

pytestmark = pytest.mark.usefixtures("other_users")

ACCOUNTS = """\
root:x:0:0:root:/root:/bin/sh
app:x:1000:1000::/home/app:/bin/sh
joiner:x:1001:1001::/home/joiner:/bin/sh
"""
GROUP = """\
root:x:0:
app:x:1000:
joiner:x:1001:
staff:x:50:other,app
audio:x:29:app
""" + "".join(f"group{number}:x:{number}:joiner\n" for number in range(2000, 2300))
LOOK = ("cat", "/proc/self/status")
CHOWN, SETGID, SETUID = 1 << 0, 1 << 6, 1 << 7
"""linux/capability.h."""


@pytest.fixture(scope="module")
def running() -> Iterator[Network]:
    """Give a network with a mock and accounts, and a set-uid root program that shows its own process."""
    with Network() as network:
        network.start_mock()
        network.app.run("install", "-m", "4755", "/bin/cat", "/run/root-cat")
        for name, text in (("passwd", ACCOUNTS), ("group", GROUP)):
            network.app.run("sh", "-euc", f"cat > /run/{name} <<'E'\n{text}E\nmount --bind /run/{name} /etc/{name}")
        yield network


def as_user(network: Network, user: str, *command: str, **settings: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command as an app with MOCK_USER."""
    done = network.raw(DETOUR, *command, environ={**SETTINGS, "MOCK_USER": user, **settings})
    assert done.returncode == 0, done.stderr
    return done


def look(network: Network, user: str = "app", *prefix: str, **settings: str) -> dict[str, str]:
    """Return the fields of an app's /proc/self/status."""
    done = network.raw(*prefix, DETOUR, *LOOK, environ={**SETTINGS, "MOCK_USER": user, **settings})
    assert done.returncode == 0, done.stderr
    return fields(done.stdout)


def fields(status: bytes) -> dict[str, str]:
    """Return the fields of a /proc/pid/status by name."""
    pairs = (line.partition(":") for line in status.decode().splitlines())
    return {name: " ".join(value.split()) for name, _, value in pairs}


@pytest.mark.parametrize(
    ("user", "uid", "gid", "groups"),
    [
        ("app", 1000, 1000, [29, 50, 1000]),
        ("1000", 1000, 1000, [29, 50, 1000]),
        ("app:staff", 1000, 50, [50]),
        ("app:50", 1000, 50, [50]),
        ("1000:1000", 1000, 1000, [1000]),
        ("4711", 4711, 0, [0]),
        ("4711:4712", 4711, 4712, [4712]),
        ("joiner", 1001, 1001, [1001, *range(2000, 2300)]),
        ("4294967294:4294967294", 4294967294, 4294967294, [4294967294]),
    ],
)
def test_app_has_the_users_ids_and_groups(running: Network, user: str, uid: int, gid: int, groups: list[int]) -> None:
    """The app has the user's real, effective, saved and file system ids and groups, and no capability."""
    seen = look(running, user)
    assert (seen["Uid"], seen["Gid"]) == (" ".join([str(uid)] * 4), " ".join([str(gid)] * 4))
    assert sorted(map(int, seen["Groups"].split())) == groups
    assert [int(seen[name], 16) for name in ("CapPrm", "CapEff", "CapAmb")] == [0, 0, 0]


def test_groups_are_those_of_the_system(running: Network) -> None:
    """The app has the groups that `id -G` shows, by the C library."""
    for name in ("app", "joiner", "root"):
        groups = as_user(running, name, "id", "-G").stdout.split()
        assert sorted(groups) == sorted(running.app.run("id", "-G", name).stdout.encode().split())


@pytest.mark.parametrize("user", ["root", "0", "root:root", "0:0"])
def test_root_by_name_is_root_without_net_admin(running: Network, user: str) -> None:
    """An app with MOCK_USER=root is root without NET_ADMIN, and keeps every other capability."""
    plain, seen = fields(running.raw(*LOOK, environ=SETTINGS).stdout), look(running, user)
    assert (seen["Uid"], int(seen["CapEff"], 16)) == ("0 0 0 0", int(plain["CapEff"], 16) & ~NET_ADMIN)


@pytest.mark.parametrize(
    ("user", "reason"),
    [
        ("unknown", "no user 'unknown' in /etc/passwd"),
        ("App", "no user 'App' in /etc/passwd"),
        ("root:unknown", "no group 'unknown' in /etc/group"),
        ("unknown:0", "no user 'unknown' in /etc/passwd"),
    ],
)
def test_unknown_user_fails_before_any_change(network: Network, user: str, reason: str) -> None:
    """An unknown user or group ends the start before it looks for a mock, and never means root."""
    done = network.raw(DETOUR, "echo", "started", environ={**SETTINGS, "MOCK_USER": user})
    assert (done.returncode, done.stdout, network.detour_rules()) == (125, b"", "")
    assert done.stderr.decode().startswith(f"imds-detour: MOCK_USER: {reason}; add it to the image")
    assert done.stderr.count(b"\n") == 1


NAIVE = """
import os, pwd
try:
    os.setuid(pwd.getpwnam(os.environ["MOCK_USER"]).pw_uid)
except KeyError:
    pass
os.execv("/bin/sh", ["sh", "-c", "id -u"])
"""


def test_naive_wrapper_makes_an_unknown_user_root(running: Network) -> None:
    """Negative control: a wrapper that ignores a missing account starts the app as root."""
    for name, uid in (("app", b"1000\n"), ("unknown", b"0\n")):
        done = running.raw(sys.executable, "-c", NAIVE, environ={**SETTINGS, "MOCK_USER": name})
        assert done.stdout == uid, done.stderr


EMPTY_ETC = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs tmpfs /etc && exec "$@"', "sh")


def test_image_without_passwd_takes_numbers(running: Network) -> None:
    """An image without /etc/passwd takes numbers; a name fails, and the message suggests numbers."""
    environ = {**SETTINGS, "HOME": "/root"}
    script = "id -u; id -g; echo $HOME"
    numbers = running.raw(*EMPTY_ETC, DETOUR, "sh", "-c", script, environ=environ | {"MOCK_USER": "7:8"})
    assert numbers.stdout == b"7\n8\n/\n", numbers.stderr
    name = running.raw(*EMPTY_ETC, DETOUR, "echo", "started", environ=environ | {"MOCK_USER": "app"})
    assert (name.returncode, name.stdout) == (125, b"")
    assert name.stderr == (
        b"imds-detour: MOCK_USER: no user 'app': there is no /etc/passwd;"
        b" give numbers, which need no entry: MOCK_USER=uid:gid\n"
    )


@pytest.mark.parametrize(
    ("user", "before", "after"),
    [
        ("app", "/root", "/home/app"),
        ("app", "/srv", "/srv"),
        ("app", None, None),
        ("app", "", ""),
        ("4711", "/root", "/"),
        ("root", "/root", "/root"),
    ],
)
def test_roots_home_becomes_the_users(running: Network, user: str, before: str | None, after: str | None) -> None:
    """HOME becomes the user's if it was root's, and no other variable changes."""
    environ = {**SETTINGS, "MOCK_USER": user, **({} if before is None else {"HOME": before})}
    shown = running.raw(DETOUR, "cat", "/proc/self/environ", environ=environ).stdout
    expected = environ | ({} if after is None else {"HOME": after})
    assert dict(entry.split("=", 1) for entry in shown.decode().split("\0")[:-1]) == expected


QUIET = {**SETTINGS, "MOCK_USER": "app", "MOCK_LOG": "quiet"}
OPEN_STREAMS = "echo 1 > /dev/stdout; echo 2 > /proc/self/fd/1; echo 3 > /dev/stderr; read l < /dev/stdin; echo $l"
ROOTS_STREAMS = ("setpriv", "--reuid", "1000", "--regid", "1000", "--clear-groups")
"""Negative control: a change of user that leaves the streams to root."""


def test_user_can_open_its_standard_streams(running: Network) -> None:
    """The user can open /dev/stdout and the like; a pipe that belongs to root would refuse it."""
    done = running.raw(DETOUR, "sh", "-c", OPEN_STREAMS, environ=QUIET, stdin=b"4\n")
    assert (done.stdout, done.stderr) == (b"1\n2\n4\n", b"3\n")
    naive = running.raw(*ROOTS_STREAMS, "sh", "-c", OPEN_STREAMS, environ=SETTINGS, stdin=b"4\n")
    assert b"1\n" not in naive.stdout
    assert b"denied" in naive.stderr


def test_terminal_belongs_to_the_user(running: Network) -> None:
    """As with docker run -t, the terminal belongs to the user, keeps its group, and can be opened by name."""
    controller, terminal = pty.openpty()
    os.fchown(terminal, 0, 5)
    streams = {"stdin": terminal, "stdout": terminal, "stderr": terminal}
    with running.app.popen(DETOUR, "sh", "-c", "echo said > /dev/stdout", environ=QUIET, **streams) as app:
        assert (os.read(controller, 100), app.wait()) == (b"said\r\n", 0)
    status = os.fstat(terminal)
    assert (status.st_uid, status.st_gid) == (1000, 5)
    os.close(controller)
    os.close(terminal)


def test_files_devices_and_foreign_pipes_keep_their_owners(running: Network, tmp_path: str) -> None:
    """Files, devices and pipes of other users keep their owners, and the app can write to them."""
    path, pipe = f"{tmp_path}/log", os.pipe()
    os.fchown(pipe[1], 7, 7)
    null = running.app.run("stat", "-c", "%u:%g", "/dev/null").stdout
    with open(path, "wb") as log, open("/dev/null", "rb") as nothing:
        streams = {"stdin": nothing, "stdout": log, "stderr": pipe[1]}
        with running.app.popen(DETOUR, "sh", "-c", "echo out; echo err >&2", environ=QUIET, **streams) as app:
            assert app.wait() == 0
    with open(path) as log:
        assert log.read() == "out\n"
    assert (os.read(pipe[0], 100), os.stat(path).st_uid, os.fstat(pipe[0]).st_uid) == (b"err\n", 0, 7)
    assert running.app.run("stat", "-c", "%u:%g", "/dev/null").stdout == null
    assert stat.S_ISFIFO(os.fstat(pipe[0]).st_mode)
    for end in pipe:
        os.close(end)


def test_app_cannot_become_root_again(running: Network) -> None:
    """The app cannot change its ids, groups or capabilities. Negative control: an app as root can."""
    for attempt in (
        ("--reuid", "0"),
        ("--regid", "0", "--keep-groups"),
        ("--groups", "0"),
        ("--inh-caps", "+setuid", "--ambient-caps", "+setuid"),
    ):
        command = ("setpriv", *attempt, "true")
        done = running.raw(DETOUR, *command, environ={**SETTINGS, "MOCK_USER": "app"})
        assert done.returncode not in (0, 125), attempt
        assert as_user(running, "root", *command).returncode == 0  # negative control: root itself may


NO_FIXUP = ("setpriv", "--securebits", "+no_setuid_fixup")
"""A process keeps its capabilities when it changes its user."""


@pytest.mark.parametrize(
    ("start", "call", "wrong"),
    [
        ((), "setgroups", "groups"),
        ((), "setresgid", "groups"),
        ((), "setresuid", "user, can become root again"),
        ((), "setgroups,setresgid,setresuid", "user, groups, can become root again"),
        (NO_FIXUP, "capset", "user, capabilities, can become root again"),
    ],
)
def test_ineffective_change_is_detected(running: Network, start: tuple[str, ...], call: str, wrong: str) -> None:
    """If a system call reports success and has no effect, the app does not start, and the line says what is wrong."""
    environ = {**SETTINGS, "MOCK_USER": "app", "MOCK_KEEP_NET_ADMIN": "1"}
    honest = running.raw(*start, *strace(calls=[call], children=True), DETOUR, "id", "-u", environ=environ)
    assert (honest.returncode, honest.stdout) == (0, b"1000\n")  # the control: traced alike, and let through
    lie = strace(Injection(call, "retval=0"), children=True)
    done = running.raw(*start, *lie, DETOUR, "id", "-u", environ=environ)
    assert (done.returncode, done.stdout) == (125, b""), done.stderr
    assert done.stderr.decode() == (
        "imds-detour: the firewall rules of this start stay in this network namespace\n"
        f"imds-detour: wrong after becoming 1000:1000: {wrong}; please report it\n"
    )


def test_set_uid_root_program_is_root_without_net_admin(running: Network) -> None:
    """A set-uid root program like sudo has the bounding set's capabilities without NET_ADMIN, unless that is kept."""
    plain = fields(running.raw(*ROOTS_STREAMS, "/run/root-cat", "/proc/self/status", environ=SETTINGS).stdout)
    dropped = fields(as_user(running, "app", "/run/root-cat", "/proc/self/status").stdout)
    assert dropped["Uid"] == "1000 0 0 0"
    for name in ("CapEff", "CapBnd"):
        assert int(dropped[name], 16) == int(plain[name], 16) & ~NET_ADMIN
    kept = look(running, MOCK_KEEP_NET_ADMIN="1")
    assert (int(kept["CapEff"], 16), int(kept["CapBnd"], 16) & NET_ADMIN) == (0, NET_ADMIN)
    root = fields(as_user(running, "app", "/run/root-cat", "/proc/self/status", MOCK_KEEP_NET_ADMIN="1").stdout)
    assert int(root["CapEff"], 16) & NET_ADMIN


def test_missing_setuid_and_setgid_fail_before_any_change(network: Network) -> None:
    """Without SETUID or SETGID, the start fails before it looks for a mock, and the line says how to add them."""
    for start in (only("net_admin", "setuid"), only("net_admin", "setgid")):
        done = network.raw(*start, DETOUR, "echo", "started", environ={**SETTINGS, "MOCK_USER": "1:1"})
        assert (done.returncode, done.stdout, network.detour_rules()) == (125, b"", "")
        assert done.stderr == (
            b"imds-detour: MOCK_USER=1:1: this process may not become 1:1;"
            b" add SETUID and SETGID: in Compose `cap_add: [NET_ADMIN, SETGID, SETUID]`, and start as root\n"
        )


@pytest.mark.parametrize("names", [("setuid", "setgid"), ("setuid", "setgid", "chown", "setpcap")])
def test_net_admin_setuid_and_setgid_are_enough(running: Network, names: tuple[str, ...]) -> None:
    """MOCK_USER needs NET_ADMIN, SETUID and SETGID; without CHOWN, a warning for each stream says that it is root's."""
    done = running.raw(*only("net_admin", *names), DETOUR, *LOOK, environ={**SETTINGS, "MOCK_USER": "app"})
    assert done.returncode == 0, done.stderr
    seen = fields(done.stdout)
    assert (seen["Uid"], int(seen["CapPrm"], 16)) == ("1000 1000 1000 1000", 0)
    warnings = [line for line in done.stderr.decode().splitlines() if "stays root's" in line]
    assert len(warnings) == (0 if "chown" in names else 3)


def test_ambient_capabilities_do_not_reach_the_user(running: Network) -> None:
    """The user has no capability, with ambient capabilities, securebits that keep them, or no-new-privileges."""
    start = ("setpriv", "--inh-caps", "+net_raw,+net_admin", "--ambient-caps", "+net_raw,+net_admin")
    bits = ("setpriv", "--securebits", "+no_setuid_fixup")
    for before in (start, bits, (*start, *bits), ("setpriv", "--nnp")):
        seen = look(running, "app", *before)
        assert [int(seen[name], 16) for name in ("CapPrm", "CapEff", "CapAmb")] == [0, 0, 0]
        assert (seen["Uid"], seen["NoNewPrivs"]) == ("1000 1000 1000 1000", str(int("--nnp" in before)))


def test_program_for_root_only_ends_with_126(running: Network) -> None:
    """A program that the user may not execute ends with 126; PATH skips a closed folder, as in execvp(3)."""
    script = "mkdir -p -m 700 /run/roots && printf '#!/bin/sh\necho roots\n' > /run/roots/id && chmod 755 /run/roots/id"
    running.app.run("sh", "-c", script)
    environ = {**SETTINGS, "MOCK_USER": "app"}
    done = running.raw(DETOUR, "/run/roots/id", environ=environ)
    assert (done.returncode, done.stdout) == (126, b"")
    assert done.stderr.endswith(b"cannot execute '/run/roots/id': permission denied (as uid 1000)\n")
    path = {"PATH": f"/run/roots:{SETTINGS['PATH']}"}
    assert running.raw(DETOUR, "id", "-u", environ=environ | path).stdout == b"1000\n"
    assert running.raw(DETOUR, "id", "-u", environ=SETTINGS | path).stdout == b"roots\n"


def test_last_line_names_the_user(running: Network) -> None:
    """The last line names the user, in text and JSON, also if the wrapper's files are closed to that user."""
    done = running.raw(DETOUR, "true", environ={**SETTINGS, "MOCK_USER": "app"})
    assert done.stderr.endswith(b"; exec true as 1000:1000\n")
    done = running.raw(DETOUR, "true", environ={**SETTINGS, "MOCK_USER": "app", "MOCK_LOG": "json"})
    assert json.loads(done.stderr)["user"] == "1000:1000"


def test_a_module_that_cannot_be_loaded_is_the_cause(running: Network) -> None:
    """An ImportError is no limit of the container: the line says what cannot be loaded, and to install it again."""
    spoil = ("unshare", "--mount", "sh", "-c", f'mount --bind /dev/null {mock.__file__} && exec "$@"', "sh")
    for wrapper, status in ((spoil, 125), ((), 0)):  # with the control
        done = running.raw(*wrapper, DETOUR, "true", environ=SETTINGS)
        assert done.returncode == status, done.stderr
        reason = b"a module cannot be loaded: No module named 'imds_detour.discovery.mock'"
        assert (reason in done.stderr) is (status == 125)
        assert b"memory" not in done.stderr
