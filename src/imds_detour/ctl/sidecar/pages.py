"""The sidecar's HTTP answers: health, readiness, metrics, and a page for people. Values only.

The metrics are written in Prometheus' text format without its client library, which needs more memory than the rest of
the sidecar (bench/NOTES.md). Tests read them with the library's parser.
"""

import json
from collections.abc import Callable
from html import escape

from imds_detour.ctl.sidecar.state import State
from imds_detour.value import Value

STALE = 30.0
"""Seconds without a heartbeat after which the process counts as stuck; a step takes at most a few."""
TEXT, JSON, HTML = "text/plain; charset=utf-8", "application/json", "text/html; charset=utf-8"
EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"
"""Prometheus' text format ("Exposition formats")."""
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
    lines = [*_head("ready", "gauge", "Whether the redirect is installed and verified, by service.")]
    lines += [f'imds_detour_ready{{service="{service.name}"}} {int(service.open)}' for service in state.services]
    lines += _head("endpoint", "gauge", "1 for the state of each metadata endpoint: redirected, closed or open.")
    for service in state.services:
        for endpoint, seen in state.endpoints(service).items():
            labels = f'service="{service.name}",endpoint="{endpoint}",state='
            lines += [f'imds_detour_endpoint{{{labels}"{word}"}} {int(word == seen)}' for word in STATES]
    lines += _head("last_probe_timestamp_seconds", "gauge", "Time of the last probe, by service.")
    for service in state.services:
        at = 0.0 if service.probed is None else state.epoch + service.probed
        lines.append(f'imds_detour_last_probe_timestamp_seconds{{service="{service.name}"}} {at:.3f}')
    for name, text in COUNTS.items():
        lines += [*_head(f"{name}_total", "counter", text), f"imds_detour_{name}_total {state.counts[name]}"]
    lines += _head("uptime_seconds", "gauge", "Seconds since the sidecar was started.")
    lines.append(f"imds_detour_uptime_seconds {now - state.started:.3f}")
    return Page(200, EXPOSITION, "\n".join(lines) + "\n")


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
    whole = {"ready": state.ready, "backend": state.backend, "services": services, "counts": state.counts}
    return Page(200, JSON, json.dumps(whole) + "\n")


def people(state: State, now: float) -> Page:
    """Return a page for people."""
    rows = "".join(
        f"<tr><td>{escape(service.name)}<td>{escape(str(endpoint))}<td>{escape(service.mock)}"
        f"<td class={seen}>{seen}<td>{now - service.since:.0f} s<td>{escape(service.text)}"
        for service in state.services
        for endpoint, seen in state.endpoints(service).items()
    )
    counts = "".join(f"<tr><td>{escape(text)}<td>{state.counts[name]}" for name, text in COUNTS.items())
    return Page(200, HTML, _PAGE.format(rows=rows, counts=counts, backend=escape(state.backend)))


def _head(name: str, kind: str, text: str) -> tuple[str, str]:
    return f"# HELP imds_detour_{name} {text}", f"# TYPE imds_detour_{name} {kind}"


PAGES: dict[str, Callable[[State, float], Page]] = {
    "/": people,
    "/healthz": health,
    "/readyz": readiness,
    "/metrics": metrics,
    "/status.json": facts,
}

_PAGE = """\
<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width">
<meta http-equiv=refresh content=5><title>imds-detour</title>
<style>
:root {{ color-scheme: light dark }}
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem }}
table {{ border-collapse: collapse; margin: 1rem 0; width: 100% }}
td, th {{ border-bottom: 1px solid #8884; padding: .3rem .8rem .3rem 0; text-align: left; vertical-align: top }}
.redirected {{ color: #1a7f37 }} .closed {{ color: #9a6700 }} .open {{ color: #cf222e }}
</style>
<h1>imds-detour</h1>
<p>Redirects by {backend}. <a href=/metrics>metrics</a>, <a href=/status.json>status.json</a>,
<a href=/readyz>readyz</a>, <a href=/healthz>healthz</a></p>
<table><tr><th>service<th>address<th>mock<th>state<th>since<th>last seen{rows}</table>
<table>{counts}</table>
"""
