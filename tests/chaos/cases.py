"""Faults around a start, as data: each case describes a fault, and the contract judges how the start ends."""

import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

from imds_detour.config import settings
from tests.support import SUPPORT
from tests.support.hosts.network import INSTANCE, MOCK, NAME

OTHER = "10.88.0.4"  # a second address of the mock's host
UNUSED = "10.88.0.77"  # in the network; no host has it
RIGHT = f"{NAME}={MOCK}"
SECCOMP = f"{SUPPORT}/faults/seccomp.py"
SILENT = "sends no proper reply"


@dataclass(frozen=True, slots=True)
class Case:
    """A fault around a start.

    Attributes:
        starts: whether the app must start; None if both outcomes are right.
        says: a regular expression that the final line must match.
        dns: the plan of the DNS server (tests/support/servers/faulty_dns.py).
        http: the plan of the mock (tests/support/servers/faulty_http.py); None for the development mock; empty for
            no mock.
        second: the plan of a second mock, at OTHER.
        resolv: /etc/resolv.conf.
        prefix: a command that runs the start.
        settings: additional MOCK_* variables.
        slack: seconds that the fault adds.
        bare: whether the interpreter may fail before the first line of imds-detour runs.
        muted: whether stderr is closed or full, so that no line can be expected.
        refused: whether the start may end with 126 or 127, because the command cannot be executed.
        signals: the signals that may end the start.

    """

    starts: bool | None = False
    says: str = ""
    dns: tuple[str, ...] = (RIGHT,)
    http: tuple[str, ...] | None = None
    second: tuple[str, ...] = ()
    resolv: str = f"nameserver {MOCK}\n"
    prefix: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    slack: float = 0.0
    muted: bool = False
    bare: bool = False
    refused: bool = False
    signals: tuple[int, ...] = ()


LONGER = {"MOCK_TIMEOUT": "8"}
"""For starts that must succeed."""


def _sh(script: str) -> tuple[str, ...]:
    """Return a command that runs a script in its own mount namespace, and then the start."""
    return ("unshare", "--mount", "sh", "-euc", f'{script}\nexec "$@"', "sh")


_ETC = (
    "umount /etc/resolv.conf /etc/hosts; rm -rf /run/etc-copy; cp -a /etc /run/etc-copy 2>/dev/null || true; "
    "mount --bind /run/etc-copy /etc; "
)

DNS = {
    "silent": Case(says=SILENT, dns=("silent",)),
    "slow": Case(starts=True, dns=(f"late:{RIGHT}",), settings=LONGER),
    "slower than one server's share": Case(starts=True, dns=(f"too-late:{RIGHT}",), settings=LONGER),
    "slower than the deadline": Case(says=SILENT, dns=(f"too-late:{RIGHT}",)),
    "wrong id": Case(says=SILENT, dns=(f"wrong-id:{RIGHT}",)),
    "wrong question": Case(says=SILENT, dns=(f"wrong-question:{RIGHT}",)),
    "garbage": Case(says=SILENT, dns=("garbage",)),
    "truncated without TCP": Case(says="over TCP without a reply", dns=("truncated",)),
    "truncated, whole over TCP": Case(starts=True, dns=(f"truncated:{RIGHT}",), settings=LONGER),
    "a stream with garbage behind the answer": Case(starts=True, dns=(f"trailing:{RIGHT}",), settings=LONGER),
    "a stream that says more than it sends": Case(says="closes the connection over TCP", dns=(f"overstated:{RIGHT}",)),
    "a datagram of 64 KiB": Case(starts=True, dns=(f"padded:{RIGHT}",), settings=LONGER),
    "CNAME loop": Case(says="ChainTooLong", dns=("loop",)),
    "CNAME to nowhere": Case(says="empty answer", dns=("dangling",)),
    "64 KiB, thousands of addresses": Case(starts=True, dns=(f"huge:{RIGHT}",), settings=LONGER),
    "64 KiB, only unused addresses": Case(
        dns=(f"huge:{NAME}={UNUSED}",), says="and [0-9]+ more|within|no route", settings={"MOCK_TIMEOUT": "3"}
    ),
    "SERVFAIL, then right": Case(starts=True, dns=("SERVFAIL*3", RIGHT), settings=LONGER),
    "NXDOMAIN, then right": Case(starts=True, dns=("NXDOMAIN*3", RIGHT), settings=LONGER),
    "REFUSED": Case(says="REFUSED", dns=("REFUSED",)),
    "flips between the mock and an unused address": Case(
        starts=True, dns=(f"flip:{NAME}={MOCK},{UNUSED}",), settings=LONGER
    ),
    "flips between two that differ": Case(
        starts=True, dns=(f"flip:{NAME}={MOCK},{OTHER}",), http=("GET=ok",), second=("GET=ok",), settings=LONGER
    ),
    "flips between the mock and a metadata address": Case(
        starts=None, dns=(f"flip:{NAME}={MOCK},169.254.169.254",), settings=LONGER
    ),
    "the metadata address itself": Case(says="no mock can be there", dns=(f"{NAME}=169.254.169.254",)),
    "first server dead": Case(starts=True, resolv=f"nameserver {UNUSED}\nnameserver {MOCK}\n", settings=LONGER),
    "three servers, one right": Case(
        starts=True, resolv=f"nameserver {UNUSED}\nnameserver {OTHER}\nnameserver {MOCK}\n", settings=LONGER
    ),
    "resolv.conf missing": Case(
        says="/etc/resolv.conf cannot be read|127.0.0.1", prefix=_sh(f"{_ETC}rm /etc/resolv.conf"), slack=1
    ),
    "resolv.conf a folder": Case(
        says="/etc/resolv.conf cannot be read",
        prefix=_sh(f"{_ETC}rm /etc/resolv.conf; mkdir /etc/resolv.conf"),
        slack=1,
    ),
    "resolv.conf empty": Case(says="names no DNS server", resolv=""),
    "resolv.conf garbage": Case(says="names no DNS server", resolv="\0\xff nameserver\nnameserver x\noptions\n" * 40),
    "resolv.conf of 2 MB, right line first": Case(
        starts=True, resolv=f"nameserver {MOCK}\n" + "# nothing\n" * 200_000, settings=LONGER
    ),
    "resolv.conf of 2 MB, dead servers": Case(says=SILENT, resolv=f"nameserver {UNUSED}\n" * 100_000),
    # glibc fails an assertion in getaddrinfo, in any program: SIGABRT, and the guard remains.
    "one line of 2 MB": Case(resolv="search " + "a" * 2_000_000 + "\n", starts=None, signals=(signal.SIGABRT,)),
    "search list of 6": Case(
        starts=True,
        resolv=f"search {' '.join(f's{number}.test' for number in range(6))}\nnameserver {MOCK}\n",
        settings=LONGER,
    ),
    "search list of 6, only the last has the name": Case(
        starts=True,
        dns=(f"{NAME}.s5.test={MOCK}",),
        resolv=f"search {' '.join(f's{number}.test' for number in range(6))}\nnameserver {MOCK}\n",
        settings=LONGER,
    ),
    "search list of 40, silent": Case(
        says=SILENT,
        dns=("silent",),
        resolv=f"search {' '.join(f's{number}.test' for number in range(40))}\nnameserver {MOCK}\n",
    ),
    "ndots 15": Case(
        starts=True, resolv=f"search a.test b.test\noptions ndots:15\nnameserver {MOCK}\n", settings=LONGER
    ),
    "options of every kind": Case(
        starts=True,
        resolv=f"options ndots:2 timeout:1 attempts:9 rotate no-check-names inet6 edns0 single-request debug"
        f" single-request-reopen no-tld-query use-vc no-reload trust-ad nonsense:1 timeout:0"
        f" ndots:99\nnameserver {MOCK}\n",
        settings=LONGER,
    ),
    "options that make no sense": Case(
        starts=True,
        resolv=f"options ndots:-1 timeout:x attempts: :\nsortlist 1/2\nnameserver {MOCK}\n",
        settings=LONGER,
    ),
}

ANSWERS_NOT = "it answers [0-9]+|it answers GET"
HTTP = {
    "refuses": Case(says="connection refused", http=()),
    "accepts and stalls": Case(says="sends nothing within", http=("GET=ok", "PUT=stall")),
    "a byte a second": Case(says="not complete within", http=("GET=slow", "PUT=slow")),
    "reset in the head": Case(says="reset by peer", http=("GET=reset",)),
    "10 GB announced and sent": Case(says="larger than 65536 bytes", http=("GET=length:10000000000",)),
    "no end": Case(says="larger than 65536 bytes", http=("GET=endless-body",)),
    "1,000,000 headers": Case(says="larger than 65536 bytes|not complete", http=("GET=headers:1000000",)),
    "1,000 headers": Case(says="more than 256 headers", http=("GET=headers:1000",)),
    "90 headers": Case(starts=True, http=("GET=headers:90",), settings=LONGER),
    "chunks of one byte without an end": Case(says="larger than 65536|not complete", http=("GET=dribble",)),
    "100 Continue without an end": Case(says="its status line is not valid", http=("GET=early",)),
    **{f"redirects, {code}": Case(says=f"{code} .to .http", http=(f"GET={code}",)) for code in (301, 302, 307, 308)},
    **{
        f"says {code}": Case(says=f"it answers {code}", http=(f"GET={code}",))
        for code in (401, 403, 404, 429, 500, 503)
    },
    "wrong content": Case(says="which is no instance id", http=("GET=body:<html>",)),
    "empty": Case(says="with nothing", http=("GET=body:",)),
    "right every second time, else 500": Case(starts=True, http=("GET=turns:ok|500",), settings=LONGER),
    "right every second time, else another id": Case(
        starts=None,
        http=("GET=turns:ok|body:i-another",),
        says=f"another service answers|differently each time|{INSTANCE}",
    ),
    "something new each time": Case(says="differently each time", http=("GET=count",)),
    "HTTP/1.0": Case(starts=True, http=("GET=http10",), settings=LONGER),
    "chunked": Case(starts=True, http=("GET=chunked",), settings=LONGER),
    "HTTP/2": Case(says="does not speak HTTP", http=("GET=http2", "PUT=http2")),
    "gzip, unasked": Case(says="which is no instance id", http=("GET=gzip",)),
    "TLS on the port": Case(says="does not speak HTTP", http=("GET=tls", "PUT=tls")),
    "bytes": Case(says="does not speak HTTP", http=("GET=garbage", "PUT=garbage")),
    "two mocks behind one name that differ": Case(
        starts=True, dns=(f"{NAME}={MOCK},{OTHER}",), http=("GET=ok",), second=("GET=body:i-other",), settings=LONGER
    ),
    "two mocks, the first broken": Case(
        starts=True, dns=(f"{NAME}={MOCK},{OTHER}",), http=("GET=stall",), second=("GET=ok",), settings=LONGER
    ),
    "JSON without an end of depth": Case(starts=None, http=("GET=deep",), settings={"MOCK_ENDPOINTS": "oci"}),
    "JSON with half a surrogate pair": Case(
        starts=None, http=("GET=half-pair",), settings={"MOCK_ENDPOINTS": "oci"}, says="verified oci"
    ),
    "right at first, then gone": Case(says="not through", http=("GET=ok", "GET=404")),
    "the token is the fault": Case(starts=True, http=("GET=ok", r"PUT=body:a\r\nX: y"), settings=LONGER),
}

_LESS_PROC = {
    "hidepid": "mount -t proc -o hidepid=2 proc /proc",
    "its net masked": "mount -t tmpfs tmpfs /proc/$$/net",
    "its sys read-only": "mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys",
}
_NO_PROC = {
    "masked": "mount -t tmpfs tmpfs /proc",
    "an empty folder": "mkdir -p /run/empty; mount --bind /run/empty /proc",
}


def _limited_user(uid: int) -> tuple[str, ...]:
    """Return a command that becomes a user with a start's capabilities. Limits on processes bind it, unlike root."""
    user = ("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups")
    capabilities = "+net_admin,+net_raw,+dac_read_search"  # the last reads this Python wherever it is installed
    return (*user, f"--inh-caps={capabilities}", f"--ambient-caps={capabilities}")


_BIND_RO = "mount --bind {0} {0}; mount -o remount,bind,ro {0}"
GCP = {"MOCK_ENDPOINTS": "aws,gcp", "MOCK_TIMEOUT": "8"}
_FULL = """
mkdir -p /run/full; mount -t tmpfs -o size=4k tmpfs /run/full; cp /etc/hosts /run/full/hosts
head -c 4000 /dev/zero | tr '\\0' '#' >>/run/full/hosts; mount --bind /run/full/hosts /etc/hosts
"""
SYSTEM = {
    "/etc/hosts read-only": Case(
        says="cannot write /etc/hosts.*extra_hosts", settings=GCP, prefix=_sh(_BIND_RO.format("/etc/hosts"))
    ),
    "/etc/hosts on a full disk": Case(starts=None, settings=GCP, prefix=_sh(_FULL)),
    "/etc/hosts not there": Case(
        says="cannot write /etc/hosts",
        settings=GCP,
        prefix=_sh(f"{_ETC}cat /run/etc/resolv.conf >/etc/resolv.conf; rm /etc/hosts"),
        slack=1,
    ),
    "/run read-only": Case(starts=True, settings=LONGER, prefix=_sh(_BIND_RO.format("/run"))),
    "everything read-only": Case(
        starts=True,
        settings=LONGER,
        prefix=_sh("; ".join(_BIND_RO.format(at) for at in ("/run", "/tmp", "/"))),  # noqa: S108  (made read-only)
    ),
    **{f"/proc: {how}": Case(starts=True, settings=LONGER, prefix=_sh(do)) for how, do in _LESS_PROC.items()},
    **{f"/proc {how}": Case(says="/proc/self/status", prefix=_sh(do)) for how, do in _NO_PROC.items()},
    "stdin closed": Case(starts=True, settings=LONGER, prefix=_sh("exec <&-")),
    "stdout closed": Case(http=(), says="connection refused", prefix=_sh("exec >&-")),
    "stdin and stdout closed": Case(http=(), says="connection refused", prefix=_sh("exec <&- >&-")),
    "stderr closed": Case(http=(), prefix=_sh("exec 2>&-"), muted=True),
    "stderr full": Case(http=(), prefix=_sh("exec 2>/dev/full"), muted=True),
    "all closed": Case(http=(), prefix=_sh("exec <&- >&- 2>&-"), muted=True),
    **{
        f"{number} processes at most": Case(
            starts=None, prefix=("prlimit", f"--nproc={number}", *_limited_user(64_000 + number)), settings=LONGER
        )
        for number in (1, 2, 3, 4)
    },
    **{
        f"{number} open files at most": Case(
            starts=None, prefix=("prlimit", f"--nofile={number}"), settings=LONGER, bare=True
        )
        for number in (4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 32)
    },
    **{
        f"{megabytes} MB of addresses": Case(
            starts=None, prefix=("prlimit", f"--as={megabytes << 20}"), settings=LONGER, bare=True
        )
        for megabytes in (32, 40, 48, 56, 64, 80, 96, 128, 256)
    },
    "1 of the processes at most, and a choice": Case(
        starts=None,
        says="nftables, verified",
        prefix=("prlimit", "--nproc=1", *_limited_user(64_100)),
        settings={"MOCK_BACKEND": "auto", **LONGER},
    ),
    "a module of imds-detour is broken": Case(
        says="cannot start: SyntaxError: .*is it installed whole",
        prefix=_sh(f"mount --bind /etc/passwd {settings.__file__}"),
    ),
    "no files may grow": Case(starts=None, prefix=("prlimit", "--fsize=0"), settings=LONGER),
    "no memory may be locked": Case(starts=True, prefix=("prlimit", "--memlock=0"), settings=LONGER),
    "the clock thirty years on": Case(
        starts=True,
        settings=LONGER,
        prefix=("unshare", "--time", "--fork", "--monotonic=946080000", "--boottime=946080000"),
    ),
    "no room on the stack": Case(starts=None, prefix=("prlimit", "--stack=262144"), settings=LONGER),
    "seccomp, as containers have it": Case(starts=True, prefix=(sys.executable, SECCOMP, "container"), settings=LONGER),
}
