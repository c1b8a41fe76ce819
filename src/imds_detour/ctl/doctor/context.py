"""The context of the checks: settings, namespace, firewalls, and the answers so far."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property

from imds_detour.config.presets import GUARDED_ADDRESSES
from imds_detour.config.services import Service
from imds_detour.config.settings import Settings, parse
from imds_detour.ctl.installed import summarize
from imds_detour.deadline import Deadline
from imds_detour.discovery.dns.lookup import Lookup, Resolution
from imds_detour.discovery.probe import Question
from imds_detour.endpoint import Address, Endpoint
from imds_detour.errors import DetourError
from imds_detour.firewall.select import FirewallSelector
from imds_detour.system import capabilities, namespaces
from imds_detour.system.namespaces import NamespaceInfo

TIMEOUT = 3.0
"""Seconds for each look-up, connection and request: there are many of them, and a person waits."""
NOT_ASKED = "not asked for in the host's own network namespace: asking makes its tables"


@dataclass
class DoctorContext:
    """The context of the checks; open_context() makes it."""

    environ: Mapping[str, str]  # the environment, flags included
    settings: Settings  # the settings in it; the defaults, without services, when they are not valid
    error: DetourError | None  # why they are not valid
    versions: tuple[int, ...]  # the IP versions of this network namespace
    selector: FirewallSelector  # the firewalls of this network namespace
    _resolutions: dict[str | Address, Resolution | DetourError] = field(init=False, default_factory=dict)

    @cached_property
    def namespace(self) -> NamespaceInfo:
        """The signs of the host's network namespace."""
        return namespaces.read_namespace_info()

    @cached_property
    def on_the_host(self) -> bool:
        """Whether this is the host's own network namespace, where nothing may be touched."""
        return namespaces.is_host_netns(self.namespace)

    @cached_property
    def capabilities(self) -> int | DetourError:
        """The effective set, or why it is unknown."""
        try:
            return capabilities.effective()
        except DetourError as error:
            return error

    @property
    def legacy_refusal(self) -> DetourError | None:
        """Why legacy iptables cannot be used, or is not asked on the host: asking creates its tables."""
        if self.on_the_host:
            return DetourError("firewall", NOT_ASKED)
        return self.selector.refusal(self.selector.start_helpers())

    @cached_property
    def mocks(self) -> dict[Endpoint, Endpoint]:
        """Where redirects of imds-detour lead, in the firewalls that can be read."""
        mocks: dict[Endpoint, Endpoint] = {}
        for firewall, refusal in (
            (self.selector.start_helpers(), self.legacy_refusal),
            (self.selector.nft, self.selector.nft_refusal()),
        ):
            if refusal is None and not isinstance(firewall, DetourError):
                with suppress(DetourError):  # other checks say what cannot be read
                    rules = summarize(firewall.name, firewall.layout, firewall.installed())
                    mocks |= {active.redirect.endpoint: active.redirect.mock for active in rules.redirects}
        return mocks

    def resolve(self, host: str | Address) -> Resolution:
        """Return the addresses of a host; it is looked up once. DetourError if there is no usable answer."""
        if host not in self._resolutions:
            try:
                self._resolutions[host] = Lookup(host).attempt(Deadline(TIMEOUT))
            except DetourError as error:
                self._resolutions[host] = error
        resolution = self._resolutions[host]
        if isinstance(resolution, DetourError):
            raise resolution
        return resolution

    def is_metadata(self, address: Address) -> bool:
        """Return whether an address is a metadata address: there, the real service could answer."""
        own = (endpoint.address for service in self.settings.services for endpoint in service.preset.endpoints)
        return address in GUARDED_ADDRESSES or address in own

    def mock(self, service: Service) -> tuple[Endpoint, Question] | None:
        """Return a service's mock and the question to it; None without an address that may be asked."""
        try:
            addresses = self.resolve(service.mock.host).addresses
        except DetourError:
            return None
        at = {endpoint.address.version: endpoint for endpoint in service.preset.endpoints}
        for address in addresses:
            if address.version in at and address.version in self.versions and not self.is_metadata(address):
                question = Question(service.preset.name, at[address.version].host, service.proof)
                return Endpoint(address, service.mock.port), question
        return None


@contextmanager
def open_context(environ: Mapping[str, str]) -> Iterator[DoctorContext]:
    """Give the context of a run in this environment. Helpers of legacy iptables are forked; so start threads later."""
    error = None
    try:
        settings = parse(environ)
    except DetourError as invalid:
        settings, error = parse({"MOCK_HOSTNAME": "mock"}).replace(services=()), invalid
    versions = namespaces.ip_versions()
    choice = "auto" if settings.backend == "env" else settings.backend
    with FirewallSelector(choice, (4,)) as selector:  # as a start
        selector.start_helpers()
        yield DoctorContext(environ, settings, error, versions, selector)
