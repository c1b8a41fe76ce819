"""Another writer that holds the lock of iptables."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from imds_detour.ctl.lab.hosts import Host

HOLD = "touch /run/xtables.lock; exec flock /run/xtables.lock sh -c 'echo held; exec cat'"


@contextmanager
def held_lock(host: Host) -> Iterator[None]:
    """Hold the lock of iptables on a host."""
    with host.popen("sh", "-c", HOLD, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        yield
        holder.communicate()
