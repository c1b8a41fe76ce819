"""The settings: what each variable may be, its default, and the value that the whole run works from."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import TYPE_CHECKING, TypeVar

from imds_detour.endpoints import PRESETS, Address, Preset, unfit_for_mock
from imds_detour.errors import DetourError
from imds_detour.report import quoted
from imds_detour.variables import BY_NAME, VARIABLES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Value = TypeVar("Value")

LONGEST_TIMEOUT = 86_400
"""Seconds. Whoever wants to wait more than a day wants to wait for ever, and says 0."""


@dataclass(frozen=True, slots=True)
class Settings:
    """A run's settings, all of them valid.

    Attributes:
        host: the mock's name, or its address where the user gave one.
        port: the mock's TCP port.
        presets: the metadata services to redirect.
        timeout: seconds for the whole of it; infinite when the user waits for ever.
        backend: ``auto``, ``legacy`` or ``nft``.
        probe: whether to prove that the mock answers.
        path: what the probe asks for; None for the preset's own, whose answer has a known shape.
        guard: whether to reject what is not redirected.
        keep_net_admin: whether the app keeps NET_ADMIN.
        log: ``text``, ``json``, ``quiet`` or ``debug``.

    """

    host: str | Address
    port: int
    presets: tuple[Preset, ...]
    timeout: float
    backend: str
    probe: bool
    path: str | None
    guard: bool
    keep_net_admin: bool
    log: str


class _BadValueError(ValueError):
    """A value is not allowed; the text says more where the table's words do not suffice."""


def parse(environ: Mapping[str, str]) -> Settings:
    """Return the settings in an environment.

    Raises:
        DetourError: for the first bad value, naming the variable, the value and what is allowed.

    """
    for variable in VARIABLES:
        if not variable.ready and variable.name in environ:
            raise DetourError(
                "settings",
                f"{variable.name} is not implemented in this version",
                "unset it; it is refused because ignoring it would surprise you later",
            )
    host, port_of_host = _read(environ, "MOCK_HOSTNAME", _host)
    port = _read(environ, "MOCK_PORT", _port)
    probe = _read(environ, "MOCK_PROBE", _probe)
    return Settings(
        host=host,
        port=port if port_of_host is None else port_of_host,
        presets=_read(environ, "MOCK_ENDPOINTS", _presets),
        timeout=_read(environ, "MOCK_TIMEOUT", _timeout),
        backend=_read(environ, "MOCK_BACKEND", _one_of("auto", "legacy", "nft")),
        probe=probe != "off",
        path=probe if probe.startswith("/") else None,
        guard=_read(environ, "MOCK_GUARD", _one_of("on", "off")) == "on",
        keep_net_admin=_read(environ, "MOCK_KEEP_NET_ADMIN", _one_of("0", "1")) == "1",
        log=log_of(environ),
    )


def log_of(environ: Mapping[str, str]) -> str:
    """Return MOCK_LOG alone: it also says how to report a bad value of another variable.

    Raises:
        DetourError: when it is not one of the known words.

    """
    return _read(environ, "MOCK_LOG", _one_of("text", "json", "quiet", "debug"))


def unknown(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names of MOCK_* variables that mean nothing here: typos, or somebody else's."""
    return tuple(sorted(name for name in environ if name.startswith("MOCK_") and name not in BY_NAME))


def similar(name: str) -> str:
    """Return a hint at the setting that an unknown name may stand for, or an empty string."""
    import difflib  # noqa: PLC0415  (5 ms that only a typo pays)

    close = difflib.get_close_matches(name, BY_NAME, n=1, cutoff=0.8)
    return f" (did you mean {close[0]}?)" if close else ""


def _read(environ: Mapping[str, str], name: str, convert: Callable[[str], Value]) -> Value:
    variable = BY_NAME[name]
    text = environ.get(name)
    if text is None and not variable.default:
        raise DetourError(
            "settings",
            f"{name} is not set",
            f"set it to {variable.allowed}; in Compose: `environment: {{{name}: mock_metadata}}`",
        )
    value = variable.default if text is None else text
    try:
        return convert(value)
    except _BadValueError as error:
        detail = f" ({error})" if str(error) else ""
        raise DetourError(
            "settings", f"{name}={quoted(value)} is not valid{detail}", f"allowed: {variable.allowed}"
        ) from None


def _one_of(*words: str) -> Callable[[str], str]:
    def convert(text: str) -> str:
        if text not in words:
            raise _BadValueError
        return text

    return convert


def _port(text: str) -> int:
    # int() would also take "+80", " 80", "8_0" and other scripts' digits.
    if not re.fullmatch("[0-9]{1,5}", text) or not 1 <= int(text) <= 65535:
        raise _BadValueError
    return int(text)


def _timeout(text: str) -> float:
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) or float(text) > LONGEST_TIMEOUT:
        raise _BadValueError
    return float(text) or math.inf


def _probe(text: str) -> str:
    # Printable ASCII only: the path goes into a request line as it is.
    if text not in ("on", "off") and not re.fullmatch("/[!-~]*", text):
        raise _BadValueError
    return text


def _presets(text: str) -> tuple[Preset, ...]:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in PRESETS:
            raise _BadValueError(f"{quoted(name)} is not implemented in this version" if name else "an empty entry")
    return tuple(PRESETS[name] for name in dict.fromkeys(names))


def _host(text: str) -> tuple[str | Address, int | None]:
    """Split ``name``, ``name:port``, ``IPv4[:port]``, ``IPv6`` or ``[IPv6][:port]``."""
    bracketed = re.fullmatch(r"\[([^]]*)\](?::(.*))?", text)
    if bracketed:
        host: str | Address = _ipv6(bracketed[1])
        port = bracketed[2]
    elif text.count(":") > 1:
        host, port = _ipv6(text), None
    else:
        name, colon, port = text.partition(":")
        host, port = _name(name), port if colon else None
    if not isinstance(host, str) and (why := unfit_for_mock(host)):
        raise _BadValueError(why)
    try:
        return host, None if port is None else _port(port)
    except _BadValueError:
        raise _BadValueError(f"the port {quoted(port or '')} is not 1 to 65535") from None


def _ipv6(text: str) -> IPv6Address:
    try:
        address = IPv6Address(text)
    except AddressValueError as error:
        raise _BadValueError(str(error)) from None
    if address.scope_id:
        raise _BadValueError("an IPv6 zone (%) means something on one machine only")
    return address


def _name(text: str) -> str | IPv4Address:
    # A last label of digits (or 0x...) is an IPv4 address or a mistake, never a name: libc would read "127.1" or
    # "0x7f000001" as numbers where DNS would not. The URL standard ("ends in a number") draws the same line.
    if re.search(r"(^|\.)([0-9]+|0[xX][0-9a-fA-F]*)\.?$", text):
        try:
            return IPv4Address(text)
        except AddressValueError as error:
            raise _BadValueError(str(error)) from None
    # RFC 1123 labels, and the underscore that Compose service names carry.
    label = "[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
    if len(text) > 253 or not re.fullmatch(rf"{label}(\.{label})*\.?", text):  # 253: RFC 1035 section 3.1, as text
        raise _BadValueError
    return text
