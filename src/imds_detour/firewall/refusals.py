"""What both firewalls say when the process may not change rules."""

from __future__ import annotations

from imds_detour.errors import DetourError

NO_NET_ADMIN = "no NET_ADMIN capability"
ADD_NET_ADMIN = "add it: in Compose `cap_add: [NET_ADMIN]`, with docker run `--cap-add NET_ADMIN`"
TWO_WAYS_OUT = (
    "start as root with `cap_add: [NET_ADMIN]` (no `USER` in the Dockerfile, no `user:` in Compose) and let MOCK_USER="
    "{uid} make the app that user; or use the sidecar, which needs no change to the app"
)
"""What a user other than root can do: a container engine gives added capabilities to root only."""


def no_net_admin(uid: int) -> DetourError:
    """Return what to tell a user without the capability."""
    if uid == 0:
        return DetourError("firewall", NO_NET_ADMIN, ADD_NET_ADMIN)
    return DetourError("firewall", f"{NO_NET_ADMIN} (uid {uid} is not root)", TWO_WAYS_OUT.format(uid=uid))
