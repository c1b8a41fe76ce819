"""What every start promises, whatever happens to it: one function that judges how a start ended."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.support.hosts.ip_version import V4, V6
from tests.support.hosts.network import DETOUR, ID_URL, METADATA
from tests.support.judges import rules_listing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from imds_detour.ctl.lab.hosts import Host
    from tests.chaos.cases import Case
    from tests.support.hosts.cloud import Cloud, Seen

PROMISE = 0.5
"""Seconds behind the deadline by which all is over."""
APP = f"""\
import http.client
wire = http.client.HTTPConnection("{METADATA}", timeout=20)
wire.request("GET", "/latest/meta-data/instance-id")
print("app", wire.getresponse().read().decode().strip(), flush=True)
"""
"""An app that says who answered it. Without verification, that could be the real service: then it says R."""
ANY_USERS_APP = ("sh", "-c", f'id=$(curl -sS --http0.9 --max-time 20 {ID_URL}) && echo "app $id"')
"""The same for whoever may not execute this Python."""
PLAYS = 4
LATE, MUTE = "over too late", "the final line does not say"
NEVER = re.compile(
    "Traceback|Exception ignored|Fatal Python error|please report it|Error in sys.excepthook|^  File ", re.MULTILINE
)
"""What no user must see."""
OURS = re.compile("imds[-_]detour(: |/.*[.]py)")
"""Signs that our first line has been reached."""
BEFORE_THE_END = re.compile(
    r"waiting: |NET_ADMIN is dropped by no_new_privs|the guard drops instead of rejecting|"
    r"a change could not be undone|the firewall rules of this start stay|.* is not a setting of imds-detour"
)
"""Lines that may come before the final one."""
LISTED = """
ip route show table all proto 169; ip -6 route show table all proto 169
cat /etc/hosts | grep imds-detour
"""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a start ended, and what it left.

    Attributes:
        status: its exit status.
        out: what the app, if it ran, has said.
        err: what we have said.
        seconds: how long it took.
        left: the routes, rules and lines of ours that stand now, as the system's own commands list them.
        leaked: whether anything has reached the fake real service.
        alive: the processes that it has left.
        limit: its MOCK_TIMEOUT in seconds.

    """

    status: int
    out: str
    err: str
    seconds: float
    left: str = ""
    leaked: bool = False
    alive: tuple[str, ...] = ()
    limit: float = 30.0


def broken(
    end: Ended,
    *,
    start_up: float = 0.0,
    slack: float = 0.0,
    says: str = "",
    deaf: bool = False,
    bare: bool = False,
    refused: bool = False,
    signals: Iterable[int] = (),
) -> list[str]:
    """Return what of the contract an end breaks; empty when it keeps all of it.

    Args:
        end: the end.
        start_up: seconds that a start needs on this machine before its deadline runs, and to end.
        slack: seconds that the case itself adds (strace, a slow app).
        says: a regular expression for what the final line must say.
        bare: whether the interpreter may have failed before our first line ran.
        deaf: whether no line can be heard, so that the status alone tells.
        refused: whether the command's file may be what is refused.
        signals: the signals that may end it; a crash of ours is none of them.

    """
    stopped = {number for each in signals for number in (-each, 128 + each)}
    if bare and end.status not in (0, 125) and not OURS.search(end.err):
        crashed = end.status < 0 and end.status not in stopped
        found = {"out": end.out, "left": end.left, "leaked": end.leaked, f"status {end.status}": crashed}
        return [what for what, bad in found.items() if bad]
    lines = end.err.splitlines()
    final = lines[-1] if lines else ""
    guarded = not rules_listing.unguarded(end.left)
    checks = {
        "a traceback, or words that no user must see": not NEVER.search(end.err),
        "something reached the real service": not end.leaked,
        "a process is left": not end.alive,
        "a redirect stands without a guard": guarded,
    }
    if end.status == 0:
        checks |= {
            "started, and no line says that it was verified": deaf or ", verified " in final,
            "started, and it is not the mock that answered": end.out.startswith("app ") and end.out != "app R\n",
            "started, and no redirect stands": bool(rules_listing.redirected(end.left)),
        }
    else:
        checks |= {
            f"status {end.status}": end.status == 125
            or end.status in stopped
            or (refused and end.status in (126, 127)),
            "the app ran": not end.out,
            LATE: end.seconds <= end.limit + PROMISE + start_up + slack,
        }
    if end.status == 125 and not deaf:
        ours = [line for line in lines if line.startswith("imds-detour: ")]
        finals = [line for line in ours if not BEFORE_THE_END.match(line.removeprefix("imds-detour: "))]
        if len(finals) > 1 and "; exec " in finals[0]:
            del finals[0]  # what only the step behind the success line can reveal
        spoken_of = re.search("rules of this start stay|could not be undone|firewall helper", end.err)
        taken_out = not end.left or spoken_of is not None
        checks |= {
            f"{len(finals)} final lines": len(finals) == 1 and finals == lines[-1:],
            "a line that is not ours": ours == lines,
            "failed, and something is left that no line speaks of": taken_out,
            "failed, and a redirect is left": guarded,
        }
    if says and not deaf:
        checks[f"{MUTE} {says!r}"] = bool(re.search(says, final))
    return [what for what, kept in checks.items() if not kept]


def start_up() -> float:
    """Return the seconds that a start needs before its deadline begins and after it, twice the longest of three."""
    spent = []
    for _ in range(3):
        began = time.monotonic()
        subprocess.run([DETOUR, "--version"], check=True, capture_output=True)
        spent.append(time.monotonic() - began)
    return 2 * max(spent)


@dataclass(slots=True)
class Judge:
    """Starts in one network, each judged by the contract."""

    cloud: Cloud
    start_up: float
    seen: Seen = field(init=False)

    def __post_init__(self) -> None:
        self.seen = self.cloud.seen()

    def kept(self, play: Callable[[float], Ended], case: Case, what: str = "") -> Ended:
        """Play until an end keeps the contract, and return it.

        A busy machine is no fault: for being late, or too early at its deadline to have seen what it was to see, there
        is another chance, with a longer deadline and what a start takes here and now measured anew. ``play`` is told by
        how much longer.
        """
        for attempt in range(PLAYS):
            end = play(2.0**attempt)
            faults = broken(
                end,
                start_up=self.start_up,
                slack=case.slack,
                says=case.says,
                deaf=case.deaf,
                bare=case.bare,
                refused=case.refused,
                signals=case.signals,
            )
            if not all(fault.startswith((LATE, MUTE)) for fault in faults) or not faults:
                break
            self.start_up = max(self.start_up, start_up())
        assert not faults, f"{what} {faults} {end}"
        return end

    def clean(self) -> None:
        """Make the app's host as a new container has it."""
        script = "ip route flush table main proto 169; ip -6 route flush table main proto 169"
        for ip in (V4, V6):
            script += f"\nnft delete table {ip.nft} imds_detour 2>/dev/null"
            script += f"\nfor t in nat filter; do {ip.iptables} -w -t $t -F; {ip.iptables} -w -t $t -X; done"
        self.cloud.app.run("sh", "-c", script, check=False)
        self.cloud.app.write("resolv.conf", f"nameserver {V4.mock}\n")
        self.cloud.app.write("hosts", "127.0.0.1 localhost\n")

    def start(self, *prefix: str, **settings: str) -> Ended:
        """Start the app behind imds-detour, itself behind a command of the case's, and return how that ended."""
        environ = self.cloud.settings(None, **settings)
        limit = float(environ["MOCK_TIMEOUT"])
        began = time.monotonic()
        try:
            done = self.cloud.app.run(
                *prefix, DETOUR, sys.executable, "-c", APP, environ=environ, check=False, timeout=limit + 60
            )
        except subprocess.TimeoutExpired as hung:
            return Ended(99, "", f"hung: {hung.stderr!r}", limit + 60, limit=limit)
        return self.ended(done.returncode, done.stdout, done.stderr, time.monotonic() - began, limit)

    def ended(self, status: int, out: str, err: str, seconds: float, limit: float) -> Ended:
        """Look at what a start has left."""
        left = self.cloud.app.run("sh", "-c", LISTED + rules_listing.LISTED).stdout
        leaked, self.seen = self.seen, self.cloud.seen()
        return Ended(status, out, err, seconds, left, leaked != self.seen, self._alive(), limit)

    def _alive(self) -> tuple[str, ...]:
        """Return what still lives in the app's host a second later; a helper sees its parent's end within moments."""
        end = time.monotonic() + 1
        while (found := _inhabitants(self.cloud.app)) and time.monotonic() < end:
            time.sleep(0.01)
        return found


def _inhabitants(host: Host) -> tuple[str, ...]:
    """Return the command lines in a host's network namespace, but for the process that holds it."""
    home = os.readlink(f"/proc/{host.pid}/ns/net")
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):  # it has ended
            if os.readlink(f"/proc/{pid}/ns/net") == home and int(pid) != host.pid:
                with open(f"/proc/{pid}/cmdline", "rb") as line:
                    found.append(line.read().replace(b"\0", b" ").decode(errors="replace"))
    return tuple(found)
