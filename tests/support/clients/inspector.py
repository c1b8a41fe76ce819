"""A program that prints all that a process can see of itself, as JSON: python -I -S inspector.py [WORD...]."""

import ctypes
import json
import os
import resource
import signal
import sys
import termios

STATUS = (
    *("Umask", "PPid", "TracerPid", "Uid", "Gid", "Groups", "Kthread", "Threads", "SigPnd", "ShdPnd", "SigBlk"),
    *("SigIgn", "SigCgt", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp"),
    *("Seccomp_filters", "Cpus_allowed", "Mems_allowed", "THP_enabled", "CoreDumping"),
)
FILES = (
    *("oom_score_adj", "coredump_filter", "timers", "mountinfo", "cgroup", "loginuid", "sessionid", "limits"),
    *("timerslack_ns", "attr/current"),
)
GETTERS = {"dumpable": 3, "keepcaps": 7, "tsc": 25, "securebits": 27, "timerslack": 30, "no_new_privs": 39, "thp": 42}
"""linux/prctl.h: options whose value prctl(2) returns."""
POINTERS = {"pdeathsig": 2, "subreaper": 37}
"""linux/prctl.h: options whose value prctl(2) writes to an address."""
SYS_IOPRIO_GET = 252 if os.uname().machine == "x86_64" else 31


def text(path: str) -> str | None:
    """Return a file of /proc/self, or the name of the error."""
    try:
        with open(f"/proc/self/{path}", "rb") as file:
            return file.read().decode("latin-1")
    except OSError as error:
        return type(error).__name__


def descriptors() -> dict[str, list[str]]:
    """Return target, flags and position of each descriptor, without the one that lists them."""
    result = {}
    for number in sorted(os.listdir("/proc/self/fd"), key=int):
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
            info = text(f"fdinfo/{number}") or ""
        except FileNotFoundError:
            continue
        kind = target if target.startswith("/") else target.partition(":")[0]  # a pipe is another one each time
        result[number] = [kind, *(line for line in info.splitlines() if line.startswith(("pos", "flags")))]
    return result


def children() -> str:
    """Return whether there is a child process, running or ended."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return "none"
    return "some"


def controlling() -> dict[str, object]:
    """Return device, foreground group (proc(5), stat) and settings of the controlling terminal."""
    fields = (text("stat") or "").rpartition(")")[2].split()
    try:
        own = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError as error:
        return {"device": fields[4], "foreground": fields[5], "opened": type(error).__name__}
    result = {
        "device": fields[4],
        "foreground": os.tcgetpgrp(own) == os.getpgrp(),
        "settings": [str(item) for item in termios.tcgetattr(own)],
        "size": list(os.get_terminal_size(own)),
    }
    os.close(own)
    return result


def seen() -> dict[str, object]:
    """Return everything."""
    libc = ctypes.CDLL(None)
    at = ctypes.c_int()
    pointers = {name: (libc.prctl(option, ctypes.byref(at), 0, 0, 0), at.value)[1] for name, option in POINTERS.items()}
    status = dict(line.split(":", 1) for line in (text("status") or "").splitlines())
    timers = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
    return {
        "argv": (text("cmdline") or "").split("\0"),
        "environ": (text("environ") or "").split("\0"),
        "status": {name: status.get(name) for name in STATUS},
        "files": {name: text(name) for name in FILES},
        "descriptors": descriptors(),
        "children": children(),
        "prctl": {name: libc.prctl(option, 0, 0, 0, 0) for name, option in GETTERS.items()} | pointers,
        "personality": libc.personality(0xFFFFFFFF),
        "timers": [signal.getitimer(which)[0] > 0 for which in timers],
        "limits": {name: resource.getrlimit(getattr(resource, name)) for name in dir(resource) if "RLIMIT" in name},
        "scheduling": [os.nice(0), os.sched_getscheduler(0), sorted(os.sched_getaffinity(0))],
        "ioprio": libc.syscall(SYS_IOPRIO_GET, 1, 0),
        "group": [os.getpgrp() == os.getpid(), os.getsid(0) == os.getpid(), os.getppid()],
        "terminal": [os.isatty(number) and os.tcgetpgrp(number) == os.getpgrp() for number in (0, 1, 2)],
        "controlling": controlling(),
        "namespaces": {name: os.readlink(f"/proc/self/ns/{name}") for name in sorted(os.listdir("/proc/self/ns"))},
        "folders": [os.getcwd(), os.readlink("/proc/self/root")],
        "mapped": sorted({line.split(None, 5)[5] for line in (text("maps") or "").splitlines() if "/" in line}),
    }


if __name__ == "__main__":
    json.dump(seen(), sys.stdout)
