"""Firewall backends: each one module, imported when chosen, able to say why it cannot work here."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Protocol

from imds_detour.errors import DetourError

NO_NET_ADMIN = "no NET_ADMIN capability"
ADD_NET_ADMIN = "add it: in Compose `cap_add: [NET_ADMIN]`, with docker run `--cap-add NET_ADMIN`"
TWO_WAYS_OUT = (
    "start as root with `cap_add: [NET_ADMIN]` (no `USER` in the Dockerfile, no `user:` in Compose) and let MOCK_USER="
    "{uid} make the app that user; or use the sidecar, which needs no change to the app"
)
"""What a user other than root can do: a container engine gives added capabilities to root only."""

if TYPE_CHECKING:
    from collections.abc import Callable

    from imds_detour.backends.nft import NftFirewall
    from imds_detour.rules import Installed, Layout, Rule


class Firewall(Protocol):
    """What the way through needs of a firewall.

    Every method raises DetourError with step ``firewall`` when the kernel or a library refuses.
    """

    name: str
    """How messages call it."""
    because: str
    """Why it was taken."""
    layout: Layout
    """Where it keeps our rules."""

    def apply(self, table: str, rules: tuple[Rule, ...], patience: float) -> tuple[Rule, ...]:
        """Make these the rules of ours in a table, all or nothing, read them back, and return those that stood before.

        Without rules, nothing of ours stays in the table. Other people's rules stay as they are. ``patience`` is for
        how many seconds to wait while somebody else writes.
        """

    def installed(self) -> tuple[Installed, ...]:
        """Return the rules of ours as the kernel holds them."""

    def close(self) -> None:
        """End the firewall's helper process, if any; the rules stay."""


def start(choice: str, versions: tuple[int, ...], left: Callable[[], float] = lambda: inf) -> Firewall:
    """Return the firewall for this namespace: the one chosen, or for ``auto`` the first that can work here.

    ``versions`` are the IP versions that it must handle, 4 and perhaps 6. ``left`` says how many seconds are left
    before the deadline of the whole start.

    Call it before the first thread is started: it forks.

    Raises:
        DetourError: when none can, with what is missing and the line that adds it.

    """
    # A backend is imported when chosen. Python-iptables loads in the background while nftables is looked at.
    legacy, no_helper = None, None
    if choice != "nft":
        from imds_detour.backends.legacy import LegacyFirewall  # noqa: PLC0415  (see above)

        try:
            legacy = LegacyFirewall(versions, left)
        except DetourError as error:
            if choice == "legacy":
                raise
            no_helper = error
    from imds_detour.backends.nft import NftFirewall  # noqa: PLC0415  (see above)

    nft = NftFirewall()
    if no_helper is not None:
        return _instead(nft, no_helper)
    if legacy is None:
        nft.require()
        return nft
    if nft.stands():
        # Its rules come before those of legacy iptables: a redirect there would never be used.
        refusal = DetourError("firewall", "rules of ours stand in nftables since an earlier start", _NFT_STANDS)
    else:
        try:
            legacy.require()
        except DetourError as error:
            refusal = error
        else:
            return legacy
    legacy.close()
    if choice == "legacy":
        raise refusal
    return _instead(nft, refusal)


def no_net_admin(uid: int) -> DetourError:
    """Return what to tell a user without the capability."""
    if uid == 0:
        return DetourError("firewall", NO_NET_ADMIN, ADD_NET_ADMIN)
    return DetourError("firewall", f"{NO_NET_ADMIN} (uid {uid} is not root)", TWO_WAYS_OUT.format(uid=uid))


def _instead(nft: NftFirewall, refusal: DetourError) -> Firewall:
    try:
        nft.require()
    except DetourError as error:
        if error.reason == refusal.reason:
            raise DetourError(refusal.step, refusal.reason, f"{refusal.remedy}; {_WITHOUT}") from None
        raise DetourError("firewall", f"{refusal.reason}; {error.reason}", error.remedy) from None
    nft.because = refusal.reason
    return nft


_WITHOUT = "where none can be had: MOCK_BACKEND=env leads SDKs by the variables that some of them honour"
_NFT_STANDS = "MOCK_BACKEND=nft, or take them out: `nft delete table ip imds_detour`"
