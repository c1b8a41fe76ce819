"""Run a command on a kernel that lacks something: ``python tests/support/faults/kernel_without.py LACKS COMMAND...``.

LACKS is ``legacy``, ``nftables``, ``both``, ``routes`` or ``processes``. A seccomp filter gives the very errno that
such a kernel gives: ENOPROTOOPT for getsockopt(IPT_SO_GET_INFO), which is how iptables asks for a table,
EPROTONOSUPPORT for a netlink socket of the netfilter family, or of that for routes, and EAGAIN for a fork beyond the
limit on processes.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys

# asm/unistd_64.h and asm-generic/unistd.h: the numbers of getsockopt(2), socket(2) and clone(2), by which libc forks
SYSCALLS = {"x86_64": (55, 41, 56), "aarch64": (209, 198, 220)}
IPT_SO_GET_INFO, AF_NETLINK, NETLINK_NETFILTER, NETLINK_ROUTE = 64, 16, 12, 0
# linux/bpf_common.h and linux/seccomp.h
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
NUMBER, ARGUMENTS = 0, 16  # offsets in struct seccomp_data; an argument is 8 bytes, its low half first


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def _refuse(syscall: int, wanted: dict[int, int], number: int) -> bytes:
    """Return the instructions that make a syscall with these arguments fail; all others go on behind them."""
    checks = [(NUMBER, syscall), *((ARGUMENTS + 8 * place, value) for place, value in wanted.items())]
    code = b""
    for position, (offset, value) in enumerate(checks):
        rest = 2 * (len(checks) - position - 1) + 1  # to the end of this block
        code += struct.pack("=HBBI", LOAD, 0, 0, offset) + struct.pack("=HBBI", JUMP_IF_EQUAL, 0, rest, value)
    return code + struct.pack("=HBBI", RETURN, 0, 0, ERRNO | number)


def main() -> None:
    """Install the filter and become the command."""
    getsockopt, socket, clone = SYSCALLS[os.uname().machine]
    code = b""
    if sys.argv[1] in ("legacy", "both"):
        code += _refuse(getsockopt, {2: IPT_SO_GET_INFO}, errno.ENOPROTOOPT)
    if sys.argv[1] in ("nftables", "both"):
        code += _refuse(socket, {0: AF_NETLINK, 2: NETLINK_NETFILTER}, errno.EPROTONOSUPPORT)
    if sys.argv[1] == "routes":
        code += _refuse(socket, {0: AF_NETLINK, 2: NETLINK_ROUTE}, errno.EPROTONOSUPPORT)
    if sys.argv[1] == "processes":
        code += _refuse(clone, {}, errno.EAGAIN)
    code += struct.pack("=HBBI", RETURN, 0, 0, ALLOW)
    libc = ctypes.CDLL(None, use_errno=True)
    program = _Program(len(code) // 8, code)
    for arguments in (
        (PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0),
    ):
        if libc.prctl(*arguments):
            sys.exit(f"no seccomp filter: {os.strerror(ctypes.get_errno())}")
    os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606  (to become the command is the point)


main()
