"""The checks of the virtual machine: a shell script on the app's host for each, and what it must print.

The commands get, without, in_mock, until_says and load_modules are in guest/. The mock answers at 10.99.0.3 and
fd99::3, port 1338. Without imds-detour the app reaches the "real" service: i-0real at each metadata address.
"""

import os
from typing import NamedTuple

MOCKS, REAL = "i-1234567890abcdef0", "i-0real"
"""The instance ids of the mock and of the real service."""
PAGE_SIZE = {"4K": 4096, "16K": 16384}[os.environ.get("PAGES", "4K")]


class Case(NamedTuple):
    """A check: its name, its script, patterns that its output must have, one that it must not have, its exit status."""

    name: str
    script: str
    says: tuple[str, ...]
    never: str = "Traceback|internal|Segmentation"
    status: int = 0


NAMED = "MOCK_HOSTNAME=mock_metadata"
ALL_ADDRESSES = "get; get fd00:ec2::254; get 169.254.169.254 8080; get 169.254.170.2; get fd00:ec2::254 8080"
WAITING = (
    ": >/run/names; export MOCK_HOSTNAME=mock_metadata;"
    " imds-detour echo started 2>/tmp/log & until_says /tmp/log waiting;"
)
"""Start imds-detour in the background, and go on when it waits for the mock's name."""
SHOW = "; wait $! || echo status $?; cat /tmp/log"


def each_firewall(backend: str, name: str) -> tuple[Case, ...]:
    """Return the checks of one firewall: MOCK_BACKEND's word, and its name in the log line."""
    own = f"export MOCK_BACKEND={backend}; "
    verified = rf", {name}, verified IMDSv2 {MOCKS}"
    return (
        Case(f"{backend} redirects IPv4", f"{own}imds-detour get", (rf"^{MOCKS}$", verified)),
        Case(
            f"{backend} redirects IPv6 of a dual-stack mock",
            f"{own}{NAMED} imds-detour sh -c 'get; get fd00:ec2::254'",
            (rf"^{MOCKS}\n{MOCKS}$", r"\[fd00:ec2::254\]:80 -> mock_metadata \(10\.99\.0\.3:1338, \[fd99::3\]:1338\)"),
            never=REAL,
        ),
        Case(
            f"{backend} guards other ports, other addresses and IPv6",
            f"{own}imds-detour sh -c '{ALL_ADDRESSES}'",
            (rf"^{MOCKS}\n(refused\n){{4}}",),
            never=REAL,
        ),
        Case(
            f"{backend} guard stays after a failed start",
            f"{own}MOCK_TIMEOUT=3 MOCK_PORT=1 imds-detour echo started || echo status $?; get",
            (r"^status 125\nrefused$", r"^imds-detour: .*10\.99\.0\.3:1"),
            never=f"{REAL}|started",
        ),
        Case(
            f"{backend} second start changes nothing",
            f"{own}imds-detour true; imds-detourctl status >/tmp/1; imds-detour true; imds-detourctl status >/tmp/2;"
            "sed -i 's/ *[0-9]*$//' /tmp/1 /tmp/2; diff /tmp/1 /tmp/2 && imds-detourctl status --json",
            (rf'"mock": "10\.99\.0\.3:1338", "backend": "{name}", "connections": 4}}\]', r'"faults": \[\]'),
        ),
        Case(
            f"{backend} init, status and check",
            f"{own}imds-detourctl init; imds-detourctl status; imds-detourctl check",
            (r"169\.254\.169\.254", r"10\.99\.0\.3:1338", name),
        ),
        Case(
            f"{backend} remove leaves no rule",
            f"{own}imds-detourctl init; get; imds-detourctl remove; imds-detourctl status || true; get",
            (
                rf"^{MOCKS}$",
                rf"^{name}: \d+ rules removed$",
                "no imds-detour rules in this network namespace",
                rf"^{REAL}$",
            ),
        ),
        Case(
            f"{backend} check sees a missing rule",
            f"{own}imds-detourctl init; imds-detourctl remove >/dev/null; imds-detourctl check || echo status $?",
            (r"^status 1$",),
        ),
        Case(
            f"{backend} app of MOCK_USER is that user without capabilities",
            f"{own}MOCK_USER=app imds-detour sh -c 'id -u; grep -E \"Cap(Prm|Eff|Inh|Amb)\" /proc/self/status; get'",
            (rf"^1000\n(Cap\w+:\t0+\n){{4}}{MOCKS}$",),
        ),
        Case(
            f"{backend} mock that moves is followed by the sidecar",
            f"{own}{NAMED} imds-detourctl sidecar --every 1 2>/tmp/log & until_says /tmp/log verified; get;"
            "in_mock imds-detourctl mock --listen 10.99.0.4:1338 --data /guest/second.json >/tmp/second 2>&1 &"
            "until_says /tmp/second listening; echo mock_metadata 10.99.0.4 >/run/names;"
            "until_says /tmp/log i-0000000000second; get; kill %1; wait %1 && echo status 0 || echo status $?;"
            "get; kill %2; cat /tmp/log",
            (rf"^{MOCKS}\ni-0000000000second\nstatus \d+\nrefused$", r"10\.99\.0\.4:1338"),
            never=REAL,
        ),
    )


CASES = (
    Case(
        "machine is arm64 with the pages asked for",
        "uname -m; python -c 'import os; print(os.sysconf(\"SC_PAGE_SIZE\"))'",
        (rf"\Aaarch64\n{PAGE_SIZE}\n",),
    ),
    Case("IPv6 is there", "ip -6 address show dev eth0; get fd99::3 1338", ("fd88::2/64", rf"^{MOCKS}$")),
    Case("without imds-detour the real service answers", ALL_ADDRESSES.rpartition(";")[0], (rf"\A({REAL}\n){{4}}\Z",)),
    Case(
        "no connection leaves the machine", "in_mock ip link; ip link", (r"\blo:", r"\beth0@"), never=r" (eth[1-9]|en)"
    ),
    Case("every module of the bundle can be imported", "python /guest/import_all.py", (r"\A\d{3} modules\n\Z",)),
    Case(
        "version is that of an arm64 bundle",
        "imds-detour --version; imds-detourctl --version; head -1 /opt/imds-detour/NOTICE",
        (r"^imds-detour \d", r"^imds-detourctl \d", "for Linux on aarch64"),
    ),
    Case(
        "legacy is refused without ip_tables",
        "MOCK_BACKEND=legacy imds-detour echo started",
        (r"^imds-detour: the kernel has no legacy iptables.*modprobe",),
        never="started|emulat",
        status=125,
    ),
    Case("auto uses nftables without ip_tables", "imds-detour get", (rf"^{MOCKS}$", ", nftables, verified IMDSv2")),
    *each_firewall("nft", "nftables"),
    Case(
        "ip_tables is loaded",
        "lsmod | grep ip_tables || load_modules legacy && lsmod",
        (r"\A(?!ip_tables).*\n(.*\n)*ip_tables ",),
    ),
    Case("auto uses legacy iptables", "imds-detour get", (rf"^{MOCKS}$", ", legacy iptables, verified IMDSv2")),
    *each_firewall("legacy", "legacy iptables"),
    Case(
        "auto uses nftables without NET_RAW",
        "without 13 imds-detour get",
        (rf"^{MOCKS}$", ", nftables, verified IMDSv2"),
    ),
    Case(
        "legacy is refused without NET_RAW",
        "MOCK_BACKEND=legacy without 13 imds-detour echo started",
        ("NET_RAW",),
        never="started",
        status=125,
    ),
    Case(
        "start without NET_ADMIN fails",
        "without 12 imds-detour echo started",
        ("NET_ADMIN",),
        never="started",
        status=125,
    ),
    Case(
        "app has every capability but NET_ADMIN",
        "grep CapEff /proc/self/status; imds-detour grep -E 'Cap(Eff|Bnd)' /proc/self/status",
        (r"^CapEff:\t(\w+)ffffff\nCapEff:\t\1ffefff\nCapBnd:\t\1ffefff$",),
    ),
    Case(
        "NET_ADMIN is dropped without SETPCAP",
        "without 8 imds-detour sh -c 'grep -E \"CapEff|NoNew\" /proc/self/status; ip link set lo down || echo held'",
        ("^NoNewPrivs:\t1$", r"^CapEff:\t\w+ffeeff$", "^held$", "dropped by no_new_privs, without SETPCAP"),
    ),
    Case(
        "reserved signals stay blocked for the app",
        "python /guest/blocked.py imds-detour grep SigBlk /proc/self/status",
        (r"^SigBlk:\t0000000180000000$",),
    ),
    *(
        Case(f"exit status {status} is the app's", f"imds-detour sh -c '{command}'", (verified,), status=status)
        for command, status, verified in (("exit 7", 7, "verified"), ("kill -9 $$", 137, "verified"))
    ),
    Case("missing program is 127", "imds-detour no-such-program", ("command not found",), status=127),
    Case(
        "x86-64 program is 126",
        "imds-detour /guest/foreign",
        (r"it is not a program for this machine \(aarch64\): was the image built for another platform\?",),
        status=126,
    ),
    Case(
        "TERM ends a wait",
        f"{WAITING} kill -TERM $!{SHOW}",
        (r"^status 143$",),
        never="started",
    ),
    Case(
        "TERM ends a wait of PID 1",
        ": >/run/names; export MOCK_HOSTNAME=mock_metadata; unshare -fp sh -c 'read pid rest </proc/self/stat;"
        "echo $pid >/tmp/pid; exec imds-detour echo started' 2>/tmp/log & until_says /tmp/log waiting;"
        "kill -TERM $(cat /tmp/pid); wait $! || echo status $?; cat /tmp/log",
        (r"^status 143$",),
        never="started",
    ),
    Case(
        "late name is waited for",
        f"{WAITING} echo mock_metadata 10.99.0.3 >/run/names{SHOW}",
        (r"^started$", rf"^imds-detour: .*mock_metadata \(10\.99\.0\.3:1338\).*verified IMDSv2 {MOCKS}"),
    ),
    Case(
        "backend env sets the variables and no rule",
        "MOCK_BACKEND=env imds-detour sh -c 'echo $AWS_EC2_METADATA_SERVICE_ENDPOINT'; imds-detourctl status || true",
        (r"^http://10\.99\.0\.3:1338/?$", "no imds-detour rules"),
    ),
    Case("plan prints the rules", "imds-detourctl plan", (r"-A IMDS_DETOUR .*--to-destination 10\.99\.0\.3:1338",)),
    Case("doctor finds nothing to fix", "imds-detourctl doctor --all", (r"10\.99\.0\.3",), never="Fix|emulat"),
)
