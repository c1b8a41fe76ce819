"""What the preconditions are looked at with: settings, namespace, and what has been found out so far."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Self

from imds_detour.config import settings
from imds_detour.deadline import Deadline
from imds_detour.discovery.dns.lookup import Lookup
from imds_detour.discovery.probe import Question
from imds_detour.endpoint import Endpoint
from imds_detour.errors import DetourError
from imds_detour.firewall.iptables import helpers
from imds_detour.firewall.iptables.backend import LegacyFirewall
from imds_detour.firewall.nftables.backend import NftFirewall
from imds_detour.system import capabilities, ip_versions, namespaces

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from imds_detour.config.services import Service
    from imds_detour.config.settings import Settings
    from imds_detour.ctl.doctor.result import Finding
    from imds_detour.discovery.dns.lookup import Resolution
    from imds_detour.endpoint import Address
    from imds_detour.firewall.rules import Installed
    from imds_detour.system.namespaces import NamespaceInfo

TIMEOUT = 3.0
"""Seconds for each look-up, connection and request: twenty of them are looked at in a row, and a person waits."""
NOT_ASKED = "not asked for in the host's own network namespace: asking makes its tables"


@dataclass
class Case:
    """One visit at the doctor's.

    Attributes:
        environ: the environment, flags included.
        settings: what it says; None when it makes no sense.
        error: why it makes no sense.

    """

    environ: Mapping[str, str]
    settings: Settings | None = field(init=False, default=None)
    error: DetourError | None = field(init=False, default=None)
    _found: dict[tuple[object, Service], Finding] = field(init=False, default_factory=dict)
    _resolutions: dict[str | Address, Resolution | DetourError] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        try:
            self.settings = settings.parse(self.environ)
        except DetourError as error:
            self.error = error
        self.versions = ip_versions.here()
        # Forked now, for it has to be before the first thread; what it says is asked for later.
        self.legacy: LegacyFirewall | DetourError
        try:
            self.legacy = LegacyFirewall(helpers.start(self.versions))
        except DetourError as error:  # no process to be had; nftables needs none
            self.legacy = error
        self.nft = NftFirewall()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        if isinstance(self.legacy, LegacyFirewall):
            self.legacy.close()

    @property
    def services(self) -> tuple[Service, ...]:
        """What is to be redirected, as far as the settings make sense."""
        return self.settings.services if self.settings else ()

    @property
    def backend(self) -> str:
        """MOCK_BACKEND, or its default."""
        return self.settings.backend if self.settings else "auto"

    @cached_property
    def signs(self) -> NamespaceInfo:
        """Whose network namespace this is."""
        return namespaces.look()

    @cached_property
    def on_the_host(self) -> bool:
        """Whether this is the host's own network namespace, where nothing is to be so much as touched."""
        return namespaces.is_host_netns(self.signs)

    @cached_property
    def capabilities(self) -> int:
        """The effective set; empty where it cannot be told."""
        return 0 if isinstance(self._capabilities, DetourError) else self._capabilities

    @property
    def untold(self) -> DetourError | None:
        """Why it cannot be told what this process may do; None where it can."""
        return self._capabilities if isinstance(self._capabilities, DetourError) else None

    @cached_property
    def _capabilities(self) -> int | DetourError:
        try:
            return capabilities.effective()
        except DetourError as error:
            return error

    @cached_property
    def legacy_refusal(self) -> DetourError | None:
        """Why legacy iptables cannot be used, or is not asked: asking makes its tables, empty as they are."""
        if self.on_the_host:
            return DetourError("firewall", NOT_ASKED)
        return refusal(self.legacy)

    @cached_property
    def nft_refusal(self) -> DetourError | None:
        """Why nftables cannot be used."""
        return refusal(self.nft)

    @cached_property
    def installed(self) -> tuple[Installed, ...]:
        """The rules of ours that stand, in whichever firewall can be looked at."""
        found: tuple[Installed, ...] = ()
        for firewall, why_not in ((self.legacy, self.legacy_refusal), (self.nft, self.nft_refusal)):
            if why_not is None and not isinstance(firewall, DetourError):
                with suppress(DetourError):  # the doctor says what he could not see, and goes on
                    found += firewall.installed()
        return found

    def resolve(self, host: str | Address) -> Resolution:
        """Return where a host is; asked once.

        Raises:
            DetourError: when nobody has an answer, or no mock can be there.

        """
        if host not in self._resolutions:
            try:
                self._resolutions[host] = Lookup(host).attempt(Deadline(TIMEOUT))
            except DetourError as error:
                self._resolutions[host] = error
        found = self._resolutions[host]
        if isinstance(found, DetourError):
            raise found
        return found

    def once(self, check: Callable[[Case, Service], Finding], service: Service) -> Finding:
        """Return what a check finds; it is made once, however often it is asked for."""
        if (check, service) not in self._found:
            self._found[check, service] = check(self, service)
        return self._found[check, service]

    def mock(self, service: Service) -> tuple[Endpoint, Question] | None:
        """Return where a service's mock is to be asked, and what; None when it is not known, or of no use here."""
        try:
            addresses = self.resolve(service.mock.host).addresses
        except DetourError:
            return None
        at = {endpoint.address.version: endpoint for endpoint in service.preset.endpoints}
        for address in addresses:
            if address.version in at and address.version in self.versions:
                question = Question(service.preset.name, at[address.version].host, service.proof)
                return Endpoint(address, service.mock.port), question
        return None


def refusal(firewall: LegacyFirewall | NftFirewall | DetourError) -> DetourError | None:
    """Return why a firewall cannot be used here, or cannot even be asked; None when it can be used."""
    if isinstance(firewall, DetourError):
        return firewall
    try:
        firewall.require()
    except DetourError as error:
        return error
    return None
