"""The control path: a test asks the running mock for an event or a fault."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from urllib.parse import parse_qsl

from imds_detour_mock.clouds.credentials import Rotation
from imds_detour_mock.clouds.messages import Reply, refuse, text_reply
from imds_detour_mock.clouds.notices import Notices
from imds_detour_mock.clouds.tokens import parse_seconds
from imds_detour_mock.faults import ERRORS, Failures

USAGE = "POST or DELETE /interrupt, /rebalance, /fail; POST /rotate"

_LOOPBACK = re.compile(r"(localhost|127(\.[0-9]{1,3}){3}|\[::1\])(:[0-9]*)?", re.IGNORECASE)
_MAX = 10**6  # of seconds and of requests
_REQUESTS: dict[str, set[str]] = {
    "POST /interrupt": {"in"},
    "POST /rebalance": {"in"},
    "POST /fail": {"count", "status"},
    "POST /rotate": set(),
    **{f"DELETE {path}": set() for path in ("/interrupt", "/rebalance", "/fail")},
}
"""The requests, and the variables of their queries."""


@dataclass(frozen=True, slots=True)
class Control:
    """Changes the mock's state on request."""

    notices: Notices  # EC2's notices
    rotation: Rotation  # the credentials
    failures: Failures  # the requests that fail
    rotate: Callable[[], None] = lambda: None  # renews the credentials that do not come from `rotation`

    def answer(self, method: str, target: str, headers: Mapping[str, str], now: float) -> Reply:
        """Answer one request, as an `Answer`."""
        path, _, query = target.partition("?")
        names = _REQUESTS.get(f"{method} {path}")
        # A web page in the user's browser has an Origin, or by DNS rebinding a domain as its Host.
        if "origin" in headers or not _LOOPBACK.fullmatch(headers.get("host", "localhost")):
            reply = refuse(403, "the control path answers to 127.0.0.1 and localhost, and to no web page")
        elif names is None:
            reply = refuse(404, USAGE)
        elif (values := _values(query, names)) is None or headers.get("content-length", "0") != "0":
            reply = refuse(400, "write whole numbers: /interrupt?in=60, /rebalance?in=60, /fail?count=3&status=503")
        else:
            self._apply(path, None if method == "DELETE" else values, now)
            reply = text_reply("done\n")
        return replace(reply, cloud="control")

    def _apply(self, path: str, values: dict[str, int] | None, now: float) -> None:
        """Change the state as a path says; without values, withdraw a change."""
        time = None if values is None else now + values.get("in", 0)
        if path == "/interrupt":
            self.notices.spot = time
        elif path == "/rebalance":
            self.notices.rebalance = time
        elif path == "/rotate":
            self.rotation.rotate(now)
            self.rotate()
        else:
            self.failures.status = (values or {}).get("status", 503)
            self.failures.left = 0 if values is None else values.get("count", 1)


def _values(query: str, names: set[str]) -> dict[str, int] | None:
    """Return the numbers of a query, or None if it has other names or values."""
    values: dict[str, int] = {}
    for name, text in parse_qsl(query, keep_blank_values=True):
        number = 0 if text == "0" else parse_seconds(text, _MAX)
        if number is None or name not in names or (name == "status" and number not in ERRORS):
            return None
        values[name] = number
    return values
