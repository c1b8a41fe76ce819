"""Why this process may not change the firewall of its network namespace, and how it may."""

from __future__ import annotations

import errno
import fcntl
import os

from imds_detour.errors import DetourError
from imds_detour.text import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

NS_GET_USERNS = 0xB701
"""linux/nsfs.h: _IO(0xb7, 1), the user namespace that owns another namespace."""
BUILD_FOR_MACHINE = "this image is emulated (QEMU has no firewall): build or pull it for this machine's architecture"
NO_FIREWALL = "gVisor's kernel has no firewall: set MOCK_BACKEND=env, or use the sidecar with `runtime: runc`"
NO_ROUTE = "put the app and the mock on a common network: in Compose the same entry under both services' `networks:`"
NOT_STARTED = (
    "start the container's command behind imds-detour; where ENTRYPOINT is replaced (GitHub `container:` jobs, dev"
    " containers, `--entrypoint`), run `imds-detourctl init` as the first step"
)
DROPPED = (
    "imds-detour drops it on purpose when it starts the app: use `docker exec --user root`, in Compose `docker compose"
    " exec --user root SERVICE ...`, which has it"
)


def host_namespace() -> DetourError:
    """Return the error for the host's own network namespace."""
    reason = "this is the host's own network namespace: a redirect here would hold for the whole machine"
    remedy = (
        "give the container a network of its own: no `network_mode: host` in Compose, no `--network host`; or, if the"
        " whole machine is meant, `imds-detourctl init --host`"
    )
    return DetourError("namespace", reason, remedy)


def other_user_namespace() -> DetourError | None:
    """Return the error for capabilities that have no effect in this network namespace, None if they have."""
    number: int | None = None
    try:
        with open("/proc/self/ns/net", "rb") as net:
            os.close(fcntl.ioctl(net, NS_GET_USERNS))
    except OSError as error:
        number = error.errno
    if number != errno.EPERM:  # ioctl_ns(2): the owner is in scope, so capabilities have effect
        return None
    reason = "the network namespace belongs to another user namespace, where this process has no capabilities"
    remedy = "start it as the container's own process, not below another `unshare --user`; no `userns_mode:` in Compose"
    return DetourError("firewall", reason, remedy)


def no_net_admin(uid: int) -> DetourError:
    """Return the error for a process of this user without NET_ADMIN."""
    reason = "no NET_ADMIN capability"
    remedy = "add it: in Compose `cap_add: [NET_ADMIN]`, with docker run `--cap-add NET_ADMIN`"
    if uid != 0:  # container engines give added capabilities to root only
        reason += f" (uid {uid} is not root)"
        remedy = (
            "start as root with `cap_add: [NET_ADMIN]` (no `USER` in the Dockerfile, no `user:` in Compose) and let"
            f" MOCK_USER={uid} make the app that user; or use the sidecar, which needs no change to the app"
        )
    return DetourError("firewall", reason, remedy)


def as_root(words: Sequence[str]) -> str:
    """Return how to run a verb of imds-detourctl with NET_ADMIN: a laptop's user has sudo, a container's has not."""
    keeping = " -E" if words[:1] in (["init"], ["sidecar"]) else ""  # they read MOCK_*, which sudo(8) would clear
    command = printable(" ".join(words))
    return f"run it as root: `sudo{keeping} imds-detourctl {command}`; in a container `docker exec --user root`"


def is_emulated() -> bool:
    """Whether QEMU's user mode runs this process: it shows itself as the program in /proc/self/exe, and there alone."""
    try:
        return os.readlink("/proc/self/exe") != os.readlink("/proc/thread-self/exe")
    except OSError:
        return False
