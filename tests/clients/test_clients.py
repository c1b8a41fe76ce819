"""Every client of cases.py, unmodified: behind imds-detour it reads the mock, whatever way it is led there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.clients.cases import CASES, Case
from tests.clients.matrix import BACKENDS, KEY
from tests.clients.place import OURS, PROXIES, Outcome, Place, expect

if TYPE_CHECKING:
    from collections.abc import Callable

LOOPBACK_ONLY = {"ecs", "eks"}
"""Presets whose variable SDKs follow to this machine only: for MOCK_BACKEND=env the mock is beside the app."""
FIRST = tuple({case.client: case for case in reversed(CASES)}.values())
"""One case of each client, its first."""


def each(cases: tuple[Case, ...]) -> pytest.MarkDecorator:
    """Run a test for each of these cases."""
    return pytest.mark.parametrize("case", cases, ids=[case.id for case in cases], indirect=True)


def go(place: Place, case: Case, backend: str, **variables: str) -> Outcome:
    """Run a case's client behind imds-detour, with our mock where the backend lets it be."""
    beside = backend == "env" and case.preset in LOOPBACK_ONLY
    place.serve(*OURS, host=place.app if beside else place.mock)
    settings = {"MOCK_ENDPOINTS": case.preset, "MOCK_BACKEND": backend}
    return place.run(*case.line, environ={**case.variables, **variables}, **settings)


@pytest.mark.parametrize("backend", BACKENDS)
@each(CASES)
def test_reads_the_mock(place: Place, case: Case, backend: str, record_property: Callable[[str, object], None]) -> None:
    """The client gets the mock's values, by requests to the mock; or it is known to be deaf to variables, and fails."""
    deaf = backend == "env" and case.deaf
    record_property(KEY, f"{case.client} {case.preset} {backend} {'deaf' if deaf else 'works'}")
    outcome = go(place, case, backend)
    if deaf:
        assert not outcome.printed
        assert outcome.asked == []
    else:
        expect(case, outcome)


@each(CASES)
def test_proxy_variables_change_nothing(place: Place, case: Case) -> None:
    """With every proxy variable set, the client gets the mock's values, and the proxy sees nothing of it."""
    outcome = go(place, case, "auto", **PROXIES, NO_PROXY="intranet.example")
    assert outcome.trapped == []
    expect(case, outcome)


@each(FIRST)
def test_a_proxy_gets_the_requests_that_are_left_to_it(place: Place, case: Case) -> None:
    """The control for the trap: MOCK_NO_PROXY=keep, and it sees the clients that go by proxy, and no others."""
    place.serve(*OURS)
    settings = {"MOCK_ENDPOINTS": case.preset, "MOCK_NO_PROXY": "keep"}
    first = place.first_trapped(*case.line, environ={**case.variables, **PROXIES}, **settings)
    assert bool(first) == case.proxied, first


@each(FIRST)
def test_without_imds_detour_nobody_answers(place: Place, case: Case) -> None:
    """The control for all of it: the same client in the same place, alone, gets nothing, and the mock is not asked."""
    place.serve(*OURS)
    outcome = place.alone(*case.line, environ=case.variables)
    assert not outcome.printed
    assert outcome.asked == []


V2_ONLY = tuple(case for case in FIRST if case.preset == "aws" and case.client not in {"curl", "wget"})


@each(V2_ONLY)
def test_a_mock_that_requires_session_tokens(place: Place, case: Case) -> None:
    """IMDSv2 alone, as hardened machines have it: every SDK takes a token to each request, and so does our proof."""
    place.serve(*OURS, "--imdsv2", "required")
    outcome = place.run(*case.line, environ=case.variables)
    expect(case, outcome)
    assert "verified IMDSv2" in outcome.stderr
