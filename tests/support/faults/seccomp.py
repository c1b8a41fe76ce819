"""Run a command with system calls that fail, by a seccomp filter: ``python seccomp.py WHAT COMMAND...``.

WHAT is ``legacy``, ``legacy IPv6``, ``nftables``, ``both``, ``routes``, ``ipv6`` or ``processes``. The errno is that of
a kernel without the feature: ENOPROTOOPT for getsockopt(IPT_SO_GET_INFO), by which iptables asks for a table,
EPROTONOSUPPORT for a netlink socket of netfilter or of routes, EAFNOSUPPORT for one of IPv6, EAGAIN for a fork beyond
the limit on processes. ``container`` gives EPERM for the calls that Docker's default profile (moby: profiles/seccomp)
refuses to a container with only NET_ADMIN: mounts, namespaces, tracing, keys, modules, clocks, and loading code into
the kernel.
"""

import ctypes
import errno
import os
import struct
import sys

# asm/unistd_64.h and asm-generic/unistd.h: getsockopt(2), socket(2) and clone(2), by which libc forks
SYSCALLS = {"x86_64": (55, 41, 56), "aarch64": (209, 198, 220)}
# The same; what moby refuses, as ranges.
REFUSED = {
    "x86_64": "101 103 134-136 139 153-156 159 161 163-180 212 227 237-239 246 248-250 256 272 279 298 303-305 308"
    " 310-313 320 321 323 425-433 442",
    "aarch64": "39-42 51 58 60 89 97 104-106 112 116 117 142 161 162 170 171 217-219 224 225 235-239 241 264-266 268"
    " 270-273 280 282 294 425-433 442",
}
IPT_SO_GET_INFO, SOL_IPV6, AF_INET6, AF_NETLINK, NETLINK_NETFILTER, NETLINK_ROUTE = 64, 41, 10, 16, 12, 0
# linux/bpf_common.h and linux/seccomp.h
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
NUMBER, ARGUMENTS = 0, 16  # offsets in struct seccomp_data; an argument is 8 bytes, its low half first


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def refuse(syscall: int, number: int, arguments: dict[int, int] | None = None) -> bytes:
    """Return the instructions that make a system call fail with this errno, if it has these arguments."""
    checks = [(NUMBER, syscall), *((ARGUMENTS + 8 * place, value) for place, value in (arguments or {}).items())]
    code = b""
    for position, (offset, value) in enumerate(checks):
        rest = 2 * (len(checks) - position - 1) + 1  # to the end of this block
        code += struct.pack("=HBBI", LOAD, 0, 0, offset) + struct.pack("=HBBI", JUMP_IF_EQUAL, 0, rest, value)
    return code + struct.pack("=HBBI", RETURN, 0, 0, ERRNO | number)


def container() -> bytes:
    """Return the instructions that make the calls fail that an engine refuses."""
    code = b""
    for part in REFUSED[os.uname().machine].split():
        first, _, last = part.partition("-")
        code += b"".join(refuse(syscall, errno.EPERM) for syscall in range(int(first), int(last or first) + 1))
    return code


def kernel_without(what: str) -> tuple[str, ...]:
    """Return a command that runs another one as on a kernel without a feature."""
    return (sys.executable, os.path.abspath(__file__), what)


def main() -> None:
    """Install the filter and execute the command."""
    getsockopt, socket, clone = SYSCALLS[os.uname().machine]
    lacks_legacy = refuse(getsockopt, errno.ENOPROTOOPT, {2: IPT_SO_GET_INFO})
    lacks_nftables = refuse(socket, errno.EPROTONOSUPPORT, {0: AF_NETLINK, 2: NETLINK_NETFILTER})
    code = {
        "legacy": lacks_legacy,
        "legacy IPv6": refuse(getsockopt, errno.ENOPROTOOPT, {1: SOL_IPV6, 2: IPT_SO_GET_INFO}),
        "nftables": lacks_nftables,
        "both": lacks_legacy + lacks_nftables,
        "routes": refuse(socket, errno.EPROTONOSUPPORT, {0: AF_NETLINK, 2: NETLINK_ROUTE}),
        "ipv6": refuse(socket, errno.EAFNOSUPPORT, {0: AF_INET6}),
        "processes": refuse(clone, errno.EAGAIN),
        "container": container(),
    }[sys.argv[1]]
    code += struct.pack("=HBBI", RETURN, 0, 0, ALLOW)
    libc = ctypes.CDLL(None, use_errno=True)
    program = _Program(len(code) // 8, code)
    # An engine is root and needs no PR_SET_NO_NEW_PRIVS, which the command would inherit.
    if sys.argv[1] != "container" and libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        sys.exit(f"no_new_privs cannot be set: {os.strerror(ctypes.get_errno())}")
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0):
        sys.exit(f"no seccomp filter: {os.strerror(ctypes.get_errno())}")
    os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606  (to become the command is the point)


if __name__ == "__main__":
    main()
