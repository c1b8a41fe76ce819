"""Faults around a start, as data: each case describes a fault, and the contract judges how the start ends."""

import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from imds_detour.config import settings
from tests.support import SUPPORT
from tests.support.hosts.network import INSTANCE, MOCK, NAME

OTHER = "10.88.0.4"  # a second address of the mock's host
UNUSED = "10.88.0.77"  # in the network; no host has it
RIGHT = f"{NAME}={MOCK}"
SECCOMP = f"{SUPPORT}/faults/seccomp.py"
SILENT, UNREADABLE = "sends no proper reply", "/etc/resolv.conf cannot be read"


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


def _long(*, starts: bool | None = True, **how: Any) -> Case:  # noqa: ANN401  (fields of Case)
    """Return a case whose start has the time to succeed."""
    return Case(starts=starts, settings=LONGER, **how)


def _search(count: int) -> str:
    """Return a resolv.conf with a search list of this length."""
    return f"search {' '.join(f's{number}.test' for number in range(count))}\nnameserver {MOCK}\n"


def _sh(script: str) -> tuple[str, ...]:
    """Return a command that runs a script in its own mount namespace, and then the start."""
    return ("unshare", "--mount", "sh", "-euc", f'{script}\nexec "$@"', "sh")


_ETC = (
    "umount /etc/resolv.conf /etc/hosts; rm -rf /run/etc-copy; cp -a /etc /run/etc-copy 2>/dev/null || true; "
    "mount --bind /run/etc-copy /etc; "
)
_NO_RESOLV_CONF = f"{_ETC}rm /etc/resolv.conf"

DNS = {
    "silent": Case(says=SILENT, dns=("silent",)),
    "slow": _long(dns=(f"late:{RIGHT}",)),
    "slower than one server's share": _long(dns=(f"too-late:{RIGHT}",)),
    "slower than the deadline": Case(says=SILENT, dns=(f"too-late:{RIGHT}",)),
    "wrong id": Case(says=SILENT, dns=(f"wrong-id:{RIGHT}",)),
    "wrong question": Case(says=SILENT, dns=(f"wrong-question:{RIGHT}",)),
    "garbage": Case(says=SILENT, dns=("garbage",)),
    "truncated without TCP": Case(says="over TCP without a reply", dns=("truncated",)),
    "truncated, whole over TCP": _long(dns=(f"truncated:{RIGHT}",)),
    "a stream with garbage after the answer": _long(dns=(f"trailing:{RIGHT}",)),
    "a stream shorter than its length says": Case(says="closes the connection over TCP", dns=(f"overstated:{RIGHT}",)),
    "a datagram of 64 KiB": _long(dns=(f"padded:{RIGHT}",)),
    "CNAME loop": Case(says="ChainTooLong", dns=("loop",)),
    "CNAME to a missing name": Case(says="empty answer", dns=("dangling",)),
    "64 KiB, thousands of addresses": _long(dns=(f"huge:{RIGHT}",)),
    "64 KiB, only unused addresses": Case(
        dns=(f"huge:{NAME}={UNUSED}",), says="and [0-9]+ more|within|no route", settings={"MOCK_TIMEOUT": "3"}
    ),
    "SERVFAIL, then right": _long(dns=("SERVFAIL*3", RIGHT)),
    "NXDOMAIN, then right": _long(dns=("NXDOMAIN*3", RIGHT)),
    "REFUSED": Case(says="REFUSED", dns=("REFUSED",)),
    "flips between the mock and an unused address": _long(dns=(f"flip:{NAME}={MOCK},{UNUSED}",)),
    "flips between two different mocks": _long(
        dns=(f"flip:{NAME}={MOCK},{OTHER}",), http=("GET=ok",), second=("GET=ok",)
    ),
    "flips between the mock and a metadata address": _long(starts=None, dns=(f"flip:{NAME}={MOCK},169.254.169.254",)),
    "the metadata address itself": Case(says="no mock can be there", dns=(f"{NAME}=169.254.169.254",)),
    "first server dead": _long(resolv=f"nameserver {UNUSED}\nnameserver {MOCK}\n"),
    "three servers, one right": _long(resolv=f"nameserver {UNUSED}\nnameserver {OTHER}\nnameserver {MOCK}\n"),
    "resolv.conf missing": Case(says=f"{UNREADABLE}|127.0.0.1", prefix=_sh(_NO_RESOLV_CONF), slack=1),
    "resolv.conf a folder": Case(says=UNREADABLE, prefix=_sh(f"{_NO_RESOLV_CONF}; mkdir /etc/resolv.conf"), slack=1),
    "resolv.conf empty": Case(says="names no DNS server", resolv=""),
    "resolv.conf garbage": Case(says="names no DNS server", resolv="\0\xff nameserver\nnameserver x\noptions\n" * 40),
    "resolv.conf of 2 MB, right line first": _long(resolv=f"nameserver {MOCK}\n" + "# nothing\n" * 200_000),
    "resolv.conf of 2 MB, dead servers": Case(says=SILENT, resolv=f"nameserver {UNUSED}\n" * 100_000),
    # glibc fails an assertion in getaddrinfo, in any program: SIGABRT, and the guard remains.
    "one line of 2 MB": Case(resolv="search " + "a" * 2_000_000 + "\n", starts=None, signals=(signal.SIGABRT,)),
    "search list of 6": _long(resolv=_search(6)),
    "search list of 6, only the last has the name": _long(dns=(f"{NAME}.s5.test={MOCK}",), resolv=_search(6)),
    "search list of 40, silent": Case(says=SILENT, dns=("silent",), resolv=_search(40)),
    "ndots 15": _long(resolv=f"search a.test b.test\noptions ndots:15\nnameserver {MOCK}\n"),
    "all options": _long(
        resolv=f"options ndots:2 timeout:1 attempts:9 rotate no-check-names inet6 edns0 single-request debug"
        f" single-request-reopen no-tld-query use-vc no-reload trust-ad nonsense:1 timeout:0"
        f" ndots:99\nnameserver {MOCK}\n",
    ),
    "invalid options": _long(resolv=f"options ndots:-1 timeout:x attempts: :\nsortlist 1/2\nnameserver {MOCK}\n"),
}

TOO_LARGE = "larger than [0-9]+ bytes|not complete within"
ANSWERS_NOT = "it answers [0-9]+|it answers GET"
HTTP = {
    "refuses": Case(says="connection refused", http=()),
    "accepts and stalls": Case(says="sends nothing within", http=("GET=stall", "PUT=stall")),
    "stalls when asked for a token": _long(http=("GET=ok", "PUT=stall")),
    "a byte a second": Case(says="not complete within", http=("GET=slow", "PUT=slow")),
    "reset in the head": Case(says="reset by peer", http=("GET=reset",)),
    "10 GB announced and sent": Case(says=TOO_LARGE, http=("GET=length:10000000000",)),
    "no end": Case(says=TOO_LARGE, http=("GET=endless-body",)),
    "1,000,000 headers": Case(says=TOO_LARGE, http=("GET=headers:1000000",)),
    "90 headers": _long(http=("GET=headers:90",)),
    "chunks of one byte without an end": Case(says=TOO_LARGE, http=("GET=dribble",)),
    "100 Continue without an end": Case(says="it sends 10 interim replies", http=("GET=early",)),
    **{f"says {n}": _long(http=(f"GET={n}",)) for n in (301, 302, 307, 308, 401, 403, 404, 429)},
    **{f"fails with {n}": Case(says=f"it answers {n}", http=(f"GET={n}",)) for n in (500, 503)},
    "a web page": _long(http=("GET=body:<html>",)),
    "empty": _long(http=("GET=body:",)),
    "right every second time, else 500": _long(http=("GET=turns:ok|500",)),
    "right every second time, else another id": Case(
        starts=None,
        http=("GET=turns:ok|body:i-another",),
        says=f"another service answers|differently each time|{INSTANCE}",
    ),
    "another id each time": _long(http=("GET=count",)),
    "another answer each time at a path of the user": Case(
        says="differently each time", http=("GET=count",), settings={"MOCK_PROBE": "/time"}
    ),
    "HTTP/1.0": _long(http=("GET=http10",)),
    "chunked": _long(http=("GET=chunked",)),
    "HTTP/2": Case(says="does not speak HTTP", http=("GET=http2", "PUT=http2")),
    "TLS on the port": Case(says="does not speak HTTP", http=("GET=tls", "PUT=tls")),
    "random bytes": Case(says="does not speak HTTP", http=("GET=garbage", "PUT=garbage")),
    "two different mocks for one name": _long(
        dns=(f"{NAME}={MOCK},{OTHER}",), http=("GET=ok",), second=("GET=body:i-other",)
    ),
    "two mocks, the first broken": _long(dns=(f"{NAME}={MOCK},{OTHER}",), http=("GET=stall",), second=("GET=ok",)),
    "JSON nested too deeply": Case(starts=None, http=("GET=deep",), settings={"MOCK_ENDPOINTS": "oci"}),
    "JSON with half a surrogate pair": Case(
        starts=None, http=("GET=half-pair",), settings={"MOCK_ENDPOINTS": "oci"}, says="verified oci"
    ),
    "right at first, then gone": Case(says="not through", http=("GET=ok", "GET=404")),
    "a token with a line break": _long(http=("GET=ok", r"PUT=body:a\r\nX: y")),
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
    "/etc/hosts missing": Case(
        says="cannot write /etc/hosts",
        settings=GCP,
        prefix=_sh(f"{_ETC}cat /run/etc/resolv.conf >/etc/resolv.conf; rm /etc/hosts"),
        slack=1,
    ),
    "/run read-only": _long(prefix=_sh(_BIND_RO.format("/run"))),
    "everything read-only": _long(
        prefix=_sh("; ".join(_BIND_RO.format(at) for at in ("/run", "/tmp", "/"))),  # noqa: S108  (made read-only)
    ),
    **{f"/proc: {how}": _long(prefix=_sh(do)) for how, do in _LESS_PROC.items()},
    **{f"/proc {how}": Case(says="/proc/self/status", prefix=_sh(do)) for how, do in _NO_PROC.items()},
    "stdin closed": _long(prefix=_sh("exec <&-")),
    "stdout closed": Case(http=(), says="connection refused", prefix=_sh("exec >&-")),
    "stdin and stdout closed": Case(http=(), says="connection refused", prefix=_sh("exec <&- >&-")),
    "stderr closed": Case(http=(), prefix=_sh("exec 2>&-"), muted=True),
    "stderr full": Case(http=(), prefix=_sh("exec 2>/dev/full"), muted=True),
    "all closed": Case(http=(), prefix=_sh("exec <&- >&- 2>&-"), muted=True),
    **{
        f"{number} processes at most": _long(
            starts=None, prefix=("prlimit", f"--nproc={number}", *_limited_user(64_000 + number))
        )
        for number in (1, 2, 3, 4)
    },
    **{
        f"{number} open files at most": _long(starts=None, prefix=("prlimit", f"--nofile={number}"), bare=True)
        for number in (4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 32)
    },
    **{
        f"{megabytes} MB of addresses": _long(starts=None, prefix=("prlimit", f"--as={megabytes << 20}"), bare=True)
        for megabytes in (32, 40, 48, 56, 64, 80, 96, 128, 256)
    },
    "1 processes at most, automatic firewall": Case(
        starts=None,
        says="nftables, verified",
        prefix=("prlimit", "--nproc=1", *_limited_user(64_100)),
        settings={"MOCK_BACKEND": "auto", **LONGER},
    ),
    "a module of imds-detour is broken": Case(
        says="cannot start: SyntaxError: .*is it installed whole",
        prefix=_sh(f"mount --bind /etc/passwd {settings.__file__}"),
    ),
    "no files may grow": _long(starts=None, prefix=("prlimit", "--fsize=0")),
    "no memory may be locked": _long(prefix=("prlimit", "--memlock=0")),
    "the clock thirty years later": _long(
        prefix=("unshare", "--time", "--fork", "--monotonic=946080000", "--boottime=946080000")
    ),
    "a small stack": _long(starts=None, prefix=("prlimit", "--stack=262144")),
    "seccomp, as containers have it": _long(prefix=(sys.executable, SECCOMP, "container")),
}
