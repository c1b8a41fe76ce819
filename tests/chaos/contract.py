"""The contract that every start keeps under any fault: one function judges how a start ended."""

import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.chaos.cases import Case
from tests.support.hosts.cloud import Cloud, Seen
from tests.support.hosts.ip_version import V4, V6
from tests.support.hosts.network import DETOUR, ID_URL, METADATA
from tests.support.judges import rules_listing
from tests.support.judges.processes import processes_in

PROMISE = 0.5
"""Seconds after the deadline by which a start has ended."""
APP = f"""\
import http.client
wire = http.client.HTTPConnection("{METADATA}", timeout=20)
wire.request("GET", "/latest/meta-data/instance-id")
print("app", wire.getresponse().read().decode().strip(), flush=True)
"""
"""An app that prints the answer to its request. The real service answers R."""
ANY_USERS_APP = ("sh", "-c", f'id=$(curl -sS --http0.9 --max-time 20 {ID_URL}) && echo "app $id"')
"""The same for users that may not execute this Python."""
PLAIN = Case()
PLAYS = 4
LATE, MUTE = "over too late", "the final line does not say"
NEVER = re.compile(
    "Traceback|Exception ignored|Fatal Python error|please report it|Error in sys.excepthook|^  File ", re.MULTILINE
)
"""Output that no user must see."""
FIRST_LINE_RAN = re.compile("imds[-_]detour(: |/.*[.]py)")
"""Output that imds-detour's first line has run."""
BEFORE_THE_END = re.compile(
    r"waiting: |NET_ADMIN is dropped by no_new_privs|the guard drops instead of rejecting|"
    r"a change could not be undone|the firewall rules of this start stay|.* is not a setting of imds-detour|"
    r".* answers over IPv[46] only: |IPv6 is not guarded, should this network namespace get it: "
)
"""Lines that may precede the final one."""
LISTED = """
ip route show table all proto 169; ip -6 route show table all proto 169
cat /etc/hosts | grep imds-detour
"""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a start ended, and what remains of it.

    Attributes:
        out: the app's output, if it ran.
        err: the output of imds-detour.
        left: the routes, rules and host names of imds-detour that remain, as the system's own commands list them.
        leaked: whether a packet has reached the real service.
        alive: the processes that remain.
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


def violations(end: Ended, case: Case = PLAIN, *, start_up: float = 0.0) -> list[str]:
    """Return the broken parts of the contract; ``start_up``: seconds before the deadline runs, and to end."""
    stopped = {status for number in case.signals for status in (-number, 128 + number)}
    if case.bare and end.status not in (0, 125) and not FIRST_LINE_RAN.search(end.err):
        crashed = end.status < 0 and end.status not in stopped
        faults = {"out": end.out, "left": end.left, "leaked": end.leaked, f"status {end.status}": crashed}
        return [fault for fault, happened in faults.items() if happened]
    lines = end.err.splitlines()
    final = lines[-1] if lines else ""
    guarded = not rules_listing.unguarded(end.left)
    checks = {
        "a traceback, or output that no user must see": not NEVER.search(end.err),
        "something reached the real service": not end.leaked,
        "a process is left": not end.alive,
        "a redirect without a guard": guarded,
    }
    if end.status == 0:
        checks |= {
            "started, and no line reports a verification": case.muted or ", verified " in final,
            "started, and the mock did not answer": end.out.startswith("app ") and end.out != "app R\n",
            "started, and there is no redirect": bool(rules_listing.redirected(end.left)),
        }
    else:
        checks |= {
            f"status {end.status}": end.status == 125
            or end.status in stopped
            or (case.refused and end.status in (126, 127)),
            "the app ran": not end.out,
            LATE: end.seconds <= end.limit + PROMISE + start_up + case.slack,
        }
    if end.status == 125 and not case.muted:
        own = [line for line in lines if line.startswith("imds-detour: ")]
        finals = [line for line in own if not BEFORE_THE_END.match(line.removeprefix("imds-detour: "))]
        if len(finals) > 1 and "; exec " in finals[0]:
            del finals[0]  # a failure after the success line
        reported = re.search("rules of this start stay|could not be undone|firewall helper", end.err)
        removed = not rules_listing.besides_guard(end.left) or reported is not None
        checks |= {
            f"{len(finals)} final lines": len(finals) == 1 and finals == lines[-1:],
            "a line that is not imds-detour's": own == lines,
            "failed, and more than the guard remains that no line reports": removed,
        }
    if case.says and not case.muted:
        checks[f"{MUTE} {case.says!r}"] = bool(re.search(case.says, final))
    return [what for what, until_kept in checks.items() if not until_kept]


def start_up() -> float:
    """Return the seconds that a start needs before its deadline begins and after it: twice the longest of three."""
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

    def until_kept(self, play: Callable[[float], Ended], case: Case, what: str = "") -> Ended:
        """Play a case until its end keeps the contract, and return that end.

        A busy machine may end it late, or at its deadline before it saw the fault: the case is played again, with a
        longer deadline and a new measurement of `start_up`. ``play`` gets the factor for its timeout.
        """
        for attempt in range(PLAYS):
            end = play(2.0**attempt)
            faults = violations(end, case, start_up=self.start_up)
            if not all(fault.startswith((LATE, MUTE)) for fault in faults) or not faults:
                break
            self.start_up = max(self.start_up, start_up())
        assert not faults, f"{what} {faults} {end}"
        return end

    def clean(self) -> None:
        """Remove rules, routes and host names from the app's host, as in a new container."""
        script = "ip route flush table main proto 169; ip -6 route flush table main proto 169"
        for ip in (V4, V6):
            script += f"\nnft delete table {ip.nft} imds_detour 2>/dev/null"
            script += f"\nfor t in nat filter; do {ip.iptables} -w -t $t -F; {ip.iptables} -w -t $t -X; done"
        self.cloud.app.run("sh", "-c", script, check=False)
        self.cloud.app.write("resolv.conf", f"nameserver {V4.mock}\n")
        self.cloud.app.write("hosts", "127.0.0.1 localhost\n")

    def start(self, *prefix: str, **settings: str) -> Ended:
        """Start the app under imds-detour, run by the command of a case, and return how the start ended."""
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
        """Return how a start ended, with all that remains of it."""
        left = self.cloud.app.run("sh", "-c", LISTED + rules_listing.LISTED).stdout
        leaked, self.seen = self.seen, self.cloud.seen()
        return Ended(status, out, err, seconds, left, leaked != self.seen, self._alive(), limit)

    def _alive(self) -> tuple[str, ...]:
        """Return the processes that remain on the app's host after at most a second: a helper ends after its parent."""
        end = time.monotonic() + 1
        while (commands := processes_in(self.cloud.app)) and time.monotonic() < end:
            time.sleep(0.01)
        return commands
