"""The sidecar's HTTP answers: health, readiness, metrics, and a page for people. Values only.

The metrics are written in Prometheus' text format without its client library, which needs more memory than the rest of
the sidecar (bench/NOTES.md). Tests read them with the library's parser.
"""

import json
import os
from collections.abc import Callable, Mapping
from html import escape

from imds_detour import __version__
from imds_detour.ctl.sidecar.state import State
from imds_detour.value import Value

STALE = 30.0
"""Seconds without a heartbeat after which the process counts as stuck; a step takes at most a few."""
TEXT, JSON, HTML = "text/plain; charset=utf-8", "application/json", "text/html; charset=utf-8"
EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"
"""Prometheus' text format ("Exposition formats")."""
with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "page.html"), encoding="utf-8") as file:
    PAGE = file.read()
"""The page for people, for str.format()."""
STATES = ("redirected", "closed", "open")

COUNTS = {
    "probes": "Probes through a metadata address.",
    "probe_failures": "Probes that the mock did not answer.",
    "lookups": "Look-ups of mocks' names.",
    "lookup_failures": "Look-ups without an answer.",
    "swaps": "Redirects that were changed to another address.",
    "closings": "Redirects that were closed because the mock did not answer.",
    "repairs": "Times that another program's change of the firewall rules was undone.",
}

REFUSED = "Packets to a metadata address that the guard refused."


class Page(Value):
    """An HTTP answer."""

    status: int
    kind: str
    body: str

    def encode(self, *, head: bool = False) -> bytes:
        """Return the bytes of the answer; ``head`` leaves the body out."""
        body = self.body.encode()
        reasons = {200: "OK", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}
        lines = (
            f"HTTP/1.1 {self.status} {reasons[self.status]}",
            f"Content-Type: {self.kind}",
            f"Content-Length: {len(body)}",
            "Cache-Control: no-store",
            "Connection: close",
        )
        return "\r\n".join((*lines, "", "")).encode() + (b"" if head else body)


def answer(method: str, path: str, state: State, now: float) -> Page:
    """Answer a request; ``now`` is time.monotonic()."""
    if method not in ("GET", "HEAD"):
        return Page(405, TEXT, "only GET and HEAD\n")
    page = PAGES.get(path.partition("?")[0])
    return page(state, now) if page else Page(404, TEXT, f"there are {', '.join(PAGES)}\n")


def health(state: State, now: float) -> Page:
    """Return whether the sidecar loop runs."""
    silent = now - state.beat
    return Page(200, TEXT, "ok\n") if silent < STALE else Page(503, TEXT, f"nothing done for {silent:.0f} s\n")


def readiness(state: State, _now: float) -> Page:
    """Return whether every redirect is installed and verified."""
    closed = [f"{service.name}: {service.text}\n" for service in state.services if not service.open]
    return Page(503, TEXT, "".join(closed)) if closed else Page(200, TEXT, "ok\n")


def metrics(state: State, now: float) -> Page:
    """Return the metrics."""
    endpoints = {
        f'service="{service.name}",endpoint="{endpoint}",state="{word}"': int(word == seen)
        for service in state.services
        for endpoint, seen in state.endpoints(service).items()
        for word in STATES
    }
    services = {f'service="{service.name}"': service for service in state.services}
    ready = {labels: int(service.open) for labels, service in services.items()}
    probed = {labels: state.epoch + service.probed if service.probed else 0.0 for labels, service in services.items()}
    refused = {f'address="{address}"': packets for address, packets in state.guarded.items()}
    families = [
        _family("build_info", "gauge", "The version of imds-detour.", {f'version="{__version__}"': 1}),
        _family("ready", "gauge", "Whether the redirect is installed and verified, by service.", ready),
        _family("endpoint", "gauge", "1 for the state of each endpoint: redirected, closed or open.", endpoints),
        _family("last_probe_timestamp_seconds", "gauge", "Time of the last probe, by service.", probed),
        _family("refused_packets_total", "counter", f"{REFUSED[:-1]}, by address.", refused),
        *(_family(f"{name}_total", "counter", text, {"": state.counts[name]}) for name, text in COUNTS.items()),
        _family("uptime_seconds", "gauge", "Seconds since the sidecar was started.", {"": now - state.started}),
        _family(
            "process_start_time_seconds", "gauge", "Start time in seconds since 1970.", {"": state.born}, prefix=""
        ),
    ]
    return Page(200, EXPOSITION, "".join(families))


def facts(state: State, now: float) -> Page:
    """Return the state as one JSON object."""
    services = [
        {
            "service": service.name,
            "endpoints": list(map(str, service.service.preset.endpoints)),
            "states": {str(endpoint): seen for endpoint, seen in state.endpoints(service).items()},
            "mock": service.mock,
            "ready": service.open,
            "text": service.text,
            "seconds": round(now - service.since, 3),
        }
        for service in state.services
    ]
    refused = {str(address): packets for address, packets in state.guarded.items()}
    whole = {"ready": state.ready, "backend": state.backend, "services": services, "counts": state.counts}
    whole |= {"refused": refused, "version": __version__}
    return Page(200, JSON, json.dumps(whole) + "\n")


def people(state: State, now: float) -> Page:
    """Return a page for people."""
    rows = "".join(
        f"<tr><td data-of=service>{escape(service.name)}<td data-of=address>{escape(str(endpoint))}"
        f"<td data-of=mock>{escape(service.mock)}<td data-of=state class={seen}>{seen}"
        f"<td data-of=since>{now - service.since:.0f} s<td data-of='last seen'>{escape(service.text)}"
        for service in state.services
        for endpoint, seen in state.endpoints(service).items()
    )
    values = {REFUSED: sum(state.guarded.values()), **{text: state.counts[name] for name, text in COUNTS.items()}}
    counts = "".join(f"<tr><td>{escape(text)}<td class=count>{value}" for text, value in values.items())
    facts = {"backend": escape(state.backend), "version": __version__, "state": "ready" if state.ready else "not ready"}
    return Page(200, HTML, PAGE.format(rows=rows, counts=counts, **facts))


def _family(name: str, kind: str, text: str, samples: Mapping[str, float], prefix: str = "imds_detour_") -> str:
    """Return the lines of a metric; ``samples`` are its values by their labels."""
    labelled = ((f"{{{labels}}}" if labels else "", round(value, 3)) for labels, value in samples.items())
    values = (f"{prefix}{name}{labels} {value}\n" for labels, value in labelled)
    return f"# HELP {prefix}{name} {text}\n# TYPE {prefix}{name} {kind}\n{''.join(values)}"


PAGES: dict[str, Callable[[State, float], Page]] = {
    "/": people,
    "/healthz": health,
    "/readyz": readiness,
    "/metrics": metrics,
    "/status.json": facts,
}
