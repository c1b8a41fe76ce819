"""Parse the settings in an environment."""

from __future__ import annotations

from imds_detour.config import mock_address, services
from imds_detour.config.mock_address import BadValueError, MockAddress
from imds_detour.config.variables import BY_NAME, known
from imds_detour.text import DIGITS, is_made_of, is_path
from imds_detour.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeVar

    from imds_detour.config.services import Service
    from imds_detour.config.user import UserSpec

    Chosen = TypeVar("Chosen")

MAX_TIMEOUT = 86_400
"""Seconds. 0 means no limit."""
INJECTED = ("tcp://", "udp://", "sctp://")
"""How Kubernetes and Docker's --link begin the variable NAME_PORT of a service or container."""


class Settings(Value):
    """A run's settings, all of them valid."""

    services: tuple[Service, ...]  # the metadata services to redirect, with their mocks
    timeout: float  # seconds for the whole start; may be infinite
    backend: str  # ``auto``, ``legacy``, ``nft`` or ``env``
    probe: bool  # whether to prove that the mock answers
    guard: str  # what to reject unless it is redirected: ``on`` (all metadata addresses), ``chosen`` or ``off``
    user: UserSpec | None  # the app's user; None for the current one
    keep_net_admin: bool  # whether the app keeps NET_ADMIN
    no_proxy: bool  # whether to keep metadata requests away from HTTP proxies
    log: str  # ``text``, ``json``, ``quiet`` or ``debug``


def parse(environ: Mapping[str, str]) -> Settings:
    """Return the settings in an environment; DetourError for the first value that is not valid."""
    probe = _read(environ, "MOCK_PROBE", lambda text: text if is_path(text) else known(text, ("on", "off")))
    path = probe if probe.startswith("/") else None
    return Settings(
        services=tuple(services.with_proof_path(service, path, environ) for service in _services(environ)),
        timeout=_read(environ, "MOCK_TIMEOUT", _timeout),
        backend=_read(environ, "MOCK_BACKEND", _choice("auto", "legacy", "nft", "env")),
        probe=probe != "off",
        guard=_read(environ, "MOCK_GUARD", _choice("on", "chosen", "off")),
        user=_read(environ, "MOCK_USER", _user) if environ.get("MOCK_USER") else None,
        keep_net_admin=_read(environ, "MOCK_KEEP_NET_ADMIN", _choice("0", "1")) == "1",
        no_proxy=_read(environ, "MOCK_NO_PROXY", _choice("extend", "keep")) == "extend",
        log=log_of(environ),
    )


def _services(environ: Mapping[str, str]) -> tuple[Service, ...]:
    """Return the services with their mocks; MOCK_HOSTNAME is optional if MOCK_ENDPOINTS names every mock."""
    given = _read(environ, "MOCK_PORT", mock_address.parse_port)
    port = given if _given(environ, "MOCK_PORT") else None

    def mock() -> MockAddress:
        return _read(environ, "MOCK_HOSTNAME", lambda text: mock_address.parse_mock_address(text, port))

    if environ.get("MOCK_HOSTNAME"):
        mock()  # a value that is not valid is an error, even if no service needs it
    return _read(environ, "MOCK_ENDPOINTS", lambda text: services.parse_services(text, mock))


def log_of(environ: Mapping[str, str]) -> str:
    """Return MOCK_LOG, which decides how errors in other settings are reported; DetourError if it is not valid."""
    return _read(environ, "MOCK_LOG", _choice("text", "json", "quiet", "debug"))


def unknown(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the MOCK_* variables that are not settings.

    Variables that a platform derives do not count: for a Service mock-metadata, every pod in its namespace gets
    MOCK_METADATA_SERVICE_HOST, MOCK_METADATA_PORT_1338_TCP_ADDR and more (Kubernetes documentation, "Accessing the
    Service"), and ``--link`` sets MOCK_METADATA_NAME=/app/mock_metadata and more (Docker's, "Legacy container links").
    """
    names = [name for name in environ if name.startswith("MOCK_") and name not in BY_NAME]
    prefixes = [name.removesuffix("_SERVICE_HOST") for name in names if name.endswith("_SERVICE_HOST")]
    prefixes += [name[:-5] for name in names if name.endswith("_NAME") and environ[name].startswith("/")]
    derived = tuple(f"{prefix}_{kind}" for prefix in prefixes for kind in ("SERVICE_", "PORT", "NAME", "ENV_"))
    return tuple(sorted(name for name in names if not name.startswith(derived)))


def _read(environ: Mapping[str, str], name: str, convert: Callable[[str], Chosen | None]) -> Chosen:
    """Return a setting; its default if it is empty.

    ``convert`` returns None, or raises BadValueError with a reason, for a value that is wrong.
    """
    detail = ""
    try:
        if (chosen := convert(_given(environ, name) or BY_NAME[name].default)) is not None:
            return chosen
    except BadValueError as error:
        detail = str(error)
    from imds_detour.advice import values  # noqa: PLC0415  (only a start that fails needs it)

    raise values.refused(BY_NAME[name], environ, detail, convert)


def _given(environ: Mapping[str, str], name: str) -> str:
    """Return a variable's value; empty if a platform has set it, as MOCK_PORT for a Service that is called mock."""
    value = environ.get(name, "")
    if value.startswith(INJECTED) and any(environ[other] == value for other in environ if other.startswith(f"{name}_")):
        return ""  # they set NAME_PORT_80_TCP to the same
    return value


def _choice(*values: str) -> Callable[[str], str | None]:
    return lambda text: known(text, values)


def _timeout(text: str) -> float | None:
    parts = text.lower().removesuffix("s").split(".")
    if len(parts) > 2 or not all(is_made_of(DIGITS, part, 99) for part in parts):
        return None
    seconds = float(".".join(parts))
    return (seconds or float("inf")) if seconds <= MAX_TIMEOUT else None


def _user(text: str) -> UserSpec:
    from imds_detour.config import user  # noqa: PLC0415  (only MOCK_USER needs it)

    return user.parse(text)
