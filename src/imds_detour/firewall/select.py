"""Which firewall to use: python-iptables first, and nftables where that cannot work.

The entrypoint, the sidecar, and the verbs of imds-detourctl all ask here. A firewall is one package, imported when it
is needed, and says why it cannot work.
"""

from __future__ import annotations

from imds_detour.deadline import FOREVER
from imds_detour.errors import DetourError
from imds_detour.system import namespaces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Self

    from imds_detour.firewall.base import Firewall
    from imds_detour.firewall.change import AddGuard
    from imds_detour.firewall.iptables.backend import LegacyFirewall
    from imds_detour.firewall.nftables.backend import NftFirewall
    from imds_detour.log import Log

WITHOUT_FIREWALL = "without NET_ADMIN: MOCK_BACKEND=env sets the variables that some SDKs follow"
NFT_FIRST = DetourError(
    "firewall",
    "imds-detour's redirects from an earlier start are in nftables, and come before those of legacy iptables",
    "MOCK_BACKEND=nft, or remove them: `imds-detourctl remove`",
)


class RefusedError(DetourError):
    """Legacy iptables cannot be used for one of the IP versions."""


class FirewallSelector:
    """The firewalls of this network namespace, and why one is chosen. Closing it ends the helper processes."""

    def __init__(
        self, choice: str, versions: tuple[int, ...], remaining: Callable[[], float] = lambda: FOREVER
    ) -> None:
        """Prepare to choose by MOCK_BACKEND for these IP versions; ``remaining`` is seconds before the deadline."""
        self._choice, self.versions, self._remaining = choice, versions, remaining
        self._nft: NftFirewall | None = None
        self._legacy: LegacyFirewall | DetourError | None = None
        self._rest: LegacyFirewall | None = None
        self._refusals: dict[str, DetourError | None] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    @property
    def nft(self) -> NftFirewall:
        """The nftables of this network namespace."""
        if self._nft is None:
            from imds_detour.firewall.nftables.backend import NftFirewall  # noqa: PLC0415  (helpers load meanwhile)

            self._nft = NftFirewall()
        return self._nft

    def start(self) -> None:
        """Let the helpers of legacy iptables load, if the choice may fall on it."""
        if self._choice != "nft":
            self.start_helpers()

    def begin(self, guard: AddGuard) -> None:
        """Let the helpers of legacy iptables guard as soon as they have loaded, if the choice may fall on it."""
        if not isinstance(self._legacy, DetourError | None) and not self.nft.has_redirects():
            self._legacy.begin(guard)

    def start_helpers(self) -> LegacyFirewall | DetourError:
        """Fork the helpers of legacy iptables unless they run, before any thread; return it, or why they cannot."""
        if self._legacy is None:
            try:
                self._legacy = start_legacy(self.versions, self._remaining)
            except DetourError as error:
                self._legacy = error
        return self._legacy

    def nft_refusal(self) -> DetourError | None:
        """Return why nftables cannot be used, None when it can."""
        return self.refusal(self.nft)

    def refusal(self, firewall: LegacyFirewall | NftFirewall | DetourError) -> DetourError | None:
        """Return why a firewall cannot be used, None when it can; the kernel is asked once."""
        if isinstance(firewall, DetourError):
            return firewall
        if firewall.name not in self._refusals:
            self._refusals[firewall.name] = None
            try:
                firewall.require()
            except DetourError as error:
                self._refusals[firewall.name] = error
        return self._refusals[firewall.name]

    def choose(self, *, nft_first: bool = False) -> tuple[Firewall, str]:
        """Return the firewall to use, and the reason for it.

        ``nft_first`` is for a caller that would have to keep the helpers of legacy iptables for long.
        """
        if self._choice == "nft" or (nft_first and self._choice == "auto" and self.nft_refusal() is None):
            if nft_refusal := self.nft_refusal():
                raise nft_refusal
            return self.nft, "MOCK_BACKEND=nft" if self._choice == "nft" else "it needs no helper process"
        legacy = self.start_helpers()
        if isinstance(legacy, DetourError):
            refusal = legacy
        elif self.nft.has_redirects():  # they come before legacy iptables: a redirect there would never be used
            refusal = NFT_FIRST
        elif refused := self.refusal(legacy):
            refusal = refused
        else:
            return legacy, "MOCK_BACKEND=legacy" if self._choice == "legacy" else "it works here"
        if self._choice == "legacy":
            raise refusal
        if (nft_refusal := self.nft_refusal()) is None:
            return self.nft, refusal.reason
        if refusal.reason == nft_refusal.reason:
            raise DetourError(refusal.step, refusal.reason, f"{refusal.remedy}; {WITHOUT_FIREWALL}")
        raise DetourError("firewall", f"{refusal.reason}; {nft_refusal.reason}", nft_refusal.remedy)

    def refuse_nft(self, refusal: DetourError) -> None:
        """Remember why nftables cannot be used, which its first use has shown."""
        self._refusals[self.nft.name] = refusal

    def can_use_nftables_instead_of(self, firewall: Firewall) -> bool:
        """Return whether the choice allows nftables in place of this firewall, and nftables works."""
        return self._choice == "auto" and firewall is not self.nft and self.nft_refusal() is None

    def early_guard(self, versions: Iterable[int]) -> tuple[Firewall, tuple[int, ...]] | None:
        """Return nftables, and those of the IP versions that it guards whichever firewall redirects.

        It can guard them while the helpers load. None if each has a helper, nftables is chosen, or cannot be used.
        """
        rest = tuple(version for version in versions if version not in self.versions)
        return (self.nft, rest) if rest and self._choice != "nft" and self.nft_refusal() is None else None

    def guards(self, firewall: Firewall, versions: Iterable[int], log: Log) -> list[tuple[Firewall, tuple[int, ...]]]:
        """Return the firewalls that guard these IP versions when this firewall redirects, and the versions of each.

        A start has a helper of legacy iptables for IPv4. nftables needs no helper, so it guards IPv6, also where this
        network namespace has none, for the case that it gets an address later. Without nftables, another helper does.
        """
        guards = [(firewall, firewall.versions)]
        if not (rest := tuple(version for version in versions if version not in firewall.versions)):
            return guards
        if self.nft_refusal() is None:
            return [*guards, (self.nft, rest)]
        try:
            return [*guards, (self._start_rest(rest), rest)]
        except RefusedError as error:
            if 6 in namespaces.ip_versions():
                refusal = self.nft_refusal()
                also = f"; {refusal.reason}" if refusal else ""
                raise DetourError(error.step, f"IPv6 cannot be guarded: {error.reason}{also}", error.remedy) from None
            log.warning(f"IPv6 is not guarded, should this network namespace get it: {error.reason}")
        return guards

    def extend(self, firewall: Firewall, versions: Iterable[int]) -> Firewall:
        """Return the firewall with a helper for each of these IP versions; RefusedError if it cannot work for one."""
        rest = tuple(version for version in versions if version not in firewall.versions)
        if not rest or isinstance(self._legacy, DetourError | None):
            return firewall
        return self._legacy.joined(self._start_rest(rest))

    def _start_rest(self, versions: tuple[int, ...]) -> LegacyFirewall:
        # Forked while other threads wait in a system call or hold the interpreter's lock, as in a sidecar.
        try:
            if self._rest is None:
                self._rest = start_legacy(versions, self._remaining)
            self._rest.require()
        except DetourError as error:
            raise RefusedError(error.step, error.reason, error.remedy) from None
        return self._rest

    def close(self, keep: Firewall | None = None) -> None:
        """End the helpers, but not those of a firewall that the caller closes; the rules stay."""
        if self._legacy not in (None, keep) and not isinstance(self._legacy, DetourError):
            self._legacy.close()
        if self._rest is not None:
            self._rest.close()


def start_legacy(versions: Sequence[int], remaining: Callable[[], float] = lambda: FOREVER) -> LegacyFirewall:
    """Fork a helper for each IP version, for one process can build one version's rules only. Fork before any thread."""
    # Not for MOCK_BACKEND=nft. What the helpers need too is loaded before the fork, once.
    from imds_detour.firewall import lock  # noqa: F401, PLC0415  (see above)
    from imds_detour.firewall.iptables import helper, preflight  # noqa: PLC0415  (see above)
    from imds_detour.firewall.iptables.backend import LegacyFirewall  # noqa: PLC0415  (see above)

    preflight.require_capabilities()  # without them, no helper could do anything
    helpers: dict[int, helper.Helper] = {}
    try:
        for version in versions:
            helpers[version] = helper.start_helper(version)
    except BaseException:
        LegacyFirewall(helpers, remaining).close()
        raise
    return LegacyFirewall(helpers, remaining)
