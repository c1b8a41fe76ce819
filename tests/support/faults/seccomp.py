"""Run a command as container engines do: ``python tests/support/faults/seccomp.py COMMAND...``.

A seccomp filter refuses with EPERM what Docker's default profile (moby: profiles/seccomp) refuses to a container that
has no more than NET_ADMIN: mounts, namespaces, tracing, keys, modules, clocks, and what loads code into the kernel.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys

# asm/unistd_64.h and asm-generic/unistd.h
X86_64 = {
    *(
        101,
        103,
        134,
        135,
        136,
        139,
        153,
        154,
        155,
        156,
        159,
        161,
        163,
        164,
        165,
        166,
        167,
        168,
        169,
        170,
        171,
        172,
        173,
    ),
    *(
        174,
        175,
        176,
        177,
        178,
        179,
        180,
        212,
        227,
        237,
        238,
        239,
        246,
        248,
        249,
        250,
        256,
        272,
        279,
        298,
        303,
        304,
        305,
    ),
    *(308, 310, 311, 312, 313, 320, 321, 323, 425, 426, 427, 428, 429, 430, 431, 432, 433, 442),
}
AARCH64 = {
    *(39, 40, 41, 42, 51, 58, 60, 89, 97, 104, 105, 106, 112, 116, 117, 142, 161, 162, 170, 171, 217, 218, 219, 224),
    *(
        225,
        235,
        236,
        237,
        238,
        239,
        241,
        264,
        265,
        266,
        268,
        270,
        271,
        272,
        273,
        280,
        282,
        294,
        425,
        426,
        427,
        428,
        429,
    ),
    *(430, 431, 432, 433, 442),
}
REFUSED = {"x86_64": X86_64, "aarch64": AARCH64}
# linux/bpf_common.h and linux/seccomp.h
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def main() -> None:
    """Install the filter, as an engine does that is root, and become the command."""
    code = struct.pack("=HBBI", LOAD, 0, 0, 0)
    for number in sorted(REFUSED[os.uname().machine]):
        code += struct.pack("=HBBI", JUMP_IF_EQUAL, 0, 1, number)
        code += struct.pack("=HBBI", RETURN, 0, 0, ERRNO | errno.EPERM)
    code += struct.pack("=HBBI", RETURN, 0, 0, ALLOW)
    libc = ctypes.CDLL(None, use_errno=True)
    program = _Program(len(code) // 8, code)
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0):
        sys.exit(f"no seccomp filter: {os.strerror(ctypes.get_errno())}")
    os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606  (to become the command is the point)


main()
