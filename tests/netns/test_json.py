"""The JSON of verbs and events has the keys that docs/status.md lists."""

import json
import os
import re
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.faults.capabilities import without
from tests.support.hosts.network import INSTANCE, METADATA, MOCK, NAME, PORT, Network
from tests.support.hosts.sidecars import LISTEN, Sidecar, Sidecars

ROOT = os.path.join(os.path.dirname(__file__), "..", "..")
REDIRECT = {
    "service": "aws",
    "endpoint": f"{METADATA}:80",
    "mock": NAME,
    "address": f"{MOCK}:{PORT}",
    "verified": f"IMDSv2 {INSTANCE}",
}


def section(heading: str) -> str:
    """Return a section of docs/status.md."""
    with open(f"{ROOT}/docs/status.md", encoding="utf-8") as file:
        _, mark, rest = file.read().partition(f"\n## {heading}\n")
    assert mark
    return rest.partition("\n## ")[0]


def keys(heading: str) -> list[str]:
    """Return the keys in the table of a section."""
    return re.findall(r"^\| `(\w+)` \|", section(heading), re.MULTILINE)


def event(name: str, part: int = 0) -> set[str]:
    """Return the keys of an event, by the table, without ``event``; ``part`` is a sentence of its row."""
    (row,) = (line for line in section("MOCK_LOG=json").splitlines() if line.startswith(f"| `{name}` |"))
    return set(re.findall(r"`(\w+)`", row.split("|")[2].split(". ")[part]))


def printed(network: Network, *words: str, prefix: tuple[str, ...] = (), **settings: str) -> dict[str, Any]:
    """Run a verb with --json, and return the object on stdout, which is one line, without its schema."""
    done = network.ctl(*words, "--json", prefix=prefix, **settings)
    (line,) = done.stdout.splitlines()
    facts: dict[str, Any] = json.loads(line)
    assert (done.returncode, facts.pop("schema"), done.stderr) == (0, 1, ""), done
    return facts


def events(stderr: str, name: str) -> list[dict[str, Any]]:
    """Return the events of a name on stderr, without the name."""
    every = [json.loads(line) for line in stderr.splitlines()]
    return [facts for facts in every if facts.pop("event") == name]


def test_init_and_check_print_their_redirects(ready: Network, backend: str) -> None:
    """`init --json` and `check --json` print each redirect, with exactly the documented keys."""
    done = printed(ready, "init", MOCK_BACKEND=backend)
    assert done == {"redirects": [REDIRECT], "backend": {"legacy": "legacy iptables", "nft": "nftables"}[backend]}
    assert printed(ready, "check", MOCK_LOG="quiet") == {"redirects": [{**REDIRECT, "proof": "rule"}]}
    blind = printed(ready, "check", prefix=without("net_admin"))
    assert blind == {"redirects": [{**REDIRECT, "proof": "comparison"}]}
    assert keys("check --json and init --json") == [*REDIRECT, "proof"]
    unasked = printed(ready, "init", MOCK_BACKEND=backend, MOCK_PROBE="off")
    assert unasked["redirects"] == [{**REDIRECT, "verified": None}]


def test_doctor_keys_are_documented(ready: Network) -> None:
    """`doctor --json` has exactly the documented keys."""
    facts = printed(ready, "doctor")
    assert ["schema", *facts] == keys("doctor --json")
    shown = json.loads(re.findall(r"each check: `(.*?)`", section("doctor --json"))[0])
    assert set(shown) == set(facts["findings"][0])


@pytest.mark.parametrize(
    ("words", "status", "prefix"),
    [
        (("check",), 1, ()),
        (("init", "--timeout", "0.2"), 125, ()),
        (("init", "--port", "http"), 125, ()),
        (("status",), 125, without("net_admin")),
    ],
)
def test_verb_that_fails_prints_an_object(
    network: Network, words: tuple[str, ...], status: int, prefix: tuple[str, ...]
) -> None:
    """With --json a verb that fails prints step, reason and remedy as an object too, those of its line on stderr."""
    done = network.ctl(*words, "--json", prefix=prefix)
    facts = json.loads(done.stdout)
    failed = facts.pop("failed")
    assert (done.returncode, facts) == (status, {"schema": 1})
    shown = json.loads(re.findall(r"`(\{.*?\})`", section("A verb that fails"))[0])
    assert set(failed) == set(shown["failed"])
    *_, line = done.stderr.splitlines()
    assert line == "imds-detour: " + "; ".join(filter(None, (failed["reason"], failed["remedy"])))
    # The control: without --json there is no object.
    assert network.ctl(*words, prefix=prefix).stdout == ""


@pytest.mark.usefixtures("other_users")
def test_events_of_a_start_are_documented(ready: Network) -> None:
    """The four events of a start with MOCK_LOG=json have exactly the documented keys."""
    ready.wanted.update(MOCK_LOG="json", MOCK_PROT="1")
    done = ready.detour("true", MOCK_USER="65534")
    (started,) = events(done.stderr, "ready")
    assert set(started) == event("ready")
    (warning,) = (facts for facts in events(done.stderr, "warning") if "MOCK_PROT" in facts["text"])
    assert set(warning) == event("warning")
    late = ready.detour("true", MOCK_PORT="1", MOCK_TIMEOUT="0.5")
    assert late.returncode == 125
    assert {frozenset(facts) for facts in events(late.stderr, "waiting")} == {frozenset(event("waiting"))}
    (failed,) = events(late.stderr, "failed")
    assert set(failed) == event("failed")
    assert "user" not in events(ready.detour("true").stderr, "ready")[0]


def test_ready_event_of_the_sidecar_is_documented(ready: Network, sidecars: Sidecars) -> None:
    """The sidecar's event for an opened redirect has exactly the documented keys."""
    sidecars.made.append(sidecar := Sidecar(ready, MOCK_LOG="json"))
    facts = json.loads(sidecar.says('"event": "ready"'))
    assert facts.pop("event") == "ready"
    assert set(facts) == event("ready", 1)


@pytest.mark.usefixtures("ready")
def test_metrics_are_documented(sidecars: Sidecars) -> None:
    """The list of metrics has each name that /metrics has, in its order, and Prometheus' parser reads them all."""
    text = sidecars.start("--listen", LISTEN).get("/metrics")[1]
    names = re.findall(r"^# TYPE (\S+) ", text, re.MULTILINE)
    assert keys("Metrics of the sidecar") == names
    families = list(text_string_to_metric_families(text))
    assert [family.name for family in families] == [name.removesuffix("_total") for name in names]
    assert all(family.samples and family.documentation for family in families)


def test_steps_are_documented() -> None:
    """The list of steps has each step that the source names."""
    found: set[str] = set()
    for folder, _, names in os.walk(f"{ROOT}/src/imds_detour"):
        for name in (name for name in names if name.endswith(".py")):
            with open(f"{folder}/{name}", encoding="utf-8") as file:
                found |= set(re.findall(r"(?:DetourError|NotYetError)\(\s*\"(\w+)\"", file.read()))
    listed = section("MOCK_LOG=json").rpartition("`step` is")[2]
    assert found == set(re.findall(r"`(\w+)`", listed))
