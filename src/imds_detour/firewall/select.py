"""Firewall backends: each one module, imported when chosen, able to say why it cannot work here."""

from __future__ import annotations

from math import inf

from imds_detour.errors import DetourError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from imds_detour.firewall.base import Firewall
    from imds_detour.firewall.iptables.backend import LegacyFirewall
    from imds_detour.firewall.iptables.helper import Child
    from imds_detour.firewall.nftables.backend import NftFirewall


class Candidates:
    """The firewalls that may be the one for this namespace, getting ready: python-iptables loads in the background."""

    def __init__(
        self, choice: str, helpers: Callable[[], dict[int, Child]], left: Callable[[], float] = lambda: inf
    ) -> None:
        """Set out for the one chosen, or for ``auto`` the first that can work here.

        ``helpers`` gives those of legacy iptables, by IP version; ``left`` says how many seconds are left before the
        deadline of the whole start.

        Raises:
            DetourError: when legacy iptables is the user's choice and its helper cannot start.

        """
        self._choice = choice
        self._legacy: LegacyFirewall | None = None
        self._no_helper: DetourError | None = None
        if choice != "nft":
            from imds_detour.firewall.iptables.backend import LegacyFirewall  # noqa: PLC0415  (imported when chosen)

            try:
                self._legacy = LegacyFirewall(helpers(), left)
            except DetourError as error:
                if choice == "legacy":
                    raise
                self._no_helper = error

    def first_that_works(self) -> Firewall:
        """Return the firewall; once, for the others are closed.

        Raises:
            DetourError: when none can work, with what is missing and the line that adds it.

        """
        from imds_detour.firewall.nftables.backend import NftFirewall  # noqa: PLC0415  (python-iptables loads meanwhile)

        nft = NftFirewall()
        if self._no_helper is not None:
            return _instead(nft, self._no_helper)
        if self._legacy is None:
            nft.require()
            return nft
        if nft.stands():
            # Its rules come before those of legacy iptables: a redirect there would never be used.
            refusal = DetourError("firewall", "rules of ours stand in nftables since an earlier start", _NFT_STANDS)
        else:
            try:
                self._legacy.require()
            except DetourError as error:
                refusal = error
            else:
                if self._choice == "legacy":
                    self._legacy.reason = "MOCK_BACKEND=legacy"
                return self._legacy
        self._legacy.close()
        if self._choice == "legacy":
            raise refusal
        return _instead(nft, refusal)


def forking(versions: tuple[int, ...]) -> Callable[[], dict[int, Child]]:
    """Return what forks the helpers of legacy iptables for these IP versions; before the first thread is started."""

    def fork() -> dict[int, Child]:
        from imds_detour.firewall.iptables import helpers  # noqa: PLC0415  (imported when chosen)

        return helpers.start(versions)

    return fork


def start(choice: str, versions: tuple[int, ...]) -> Firewall:
    """Return the firewall for this namespace, as Candidates do, without anything to do meanwhile."""
    return Candidates(choice, forking(versions)).first_that_works()


def _instead(nft: NftFirewall, refusal: DetourError) -> Firewall:
    try:
        nft.require()
    except DetourError as error:
        if error.reason == refusal.reason:
            raise DetourError(refusal.step, refusal.reason, f"{refusal.remedy}; {_WITHOUT}") from None
        raise DetourError("firewall", f"{refusal.reason}; {error.reason}", error.remedy) from None
    nft.reason = refusal.reason
    return nft


_WITHOUT = "where none can be had: MOCK_BACKEND=env leads SDKs by the variables that some of them honour"
_NFT_STANDS = "MOCK_BACKEND=nft, or take them out: `imds-detourctl remove`"
