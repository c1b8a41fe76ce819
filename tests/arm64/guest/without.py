"""Run a command as root without some capabilities: without.py NUMBER[,NUMBER...] COMMAND [ARG...].

The numbers are those of linux/capability.h. At an exec, root gets the capabilities of the bounding set.
"""

import ctypes
import os
import sys

PR_CAPBSET_DROP = 24  # linux/prctl.h
for number in sys.argv[1].split(","):
    assert ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, int(number), 0, 0, 0) == 0
os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606  (no shell)
