"""Unmodified clients read the mock through each backend of imds-detour."""

from collections.abc import Callable

import pytest

from tests.clients.cases import CASES, Case
from tests.clients.matrix import BACKENDS, KEY, expected_verdict
from tests.clients.place import OWN_MOCK, PROXIES, Outcome, Place, expect

LOOPBACK_ONLY = {"ecs", "eks"}
"""Presets whose variables SDKs follow to loopback only: for MOCK_BACKEND=env the mock is on the app's host."""
FIRST = tuple({case.client: case for case in reversed(CASES)}.values())
"""The first case of each client."""


def for_cases(cases: tuple[Case, ...]) -> pytest.MarkDecorator:
    """Run a test for these cases."""
    return pytest.mark.parametrize("case", cases, ids=[case.id for case in cases], indirect=True)


def run_case(place: Place, case: Case, backend: str, **variables: str) -> Outcome:
    """Run a case's client with imds-detour and the mock, on the app's host if the backend requires it."""
    on_app = backend == "env" and case.preset in LOOPBACK_ONLY
    place.serve(*OWN_MOCK, host=place.app if on_app else place.mock)
    settings = {"MOCK_ENDPOINTS": case.preset, "MOCK_BACKEND": backend}
    return place.run(*case.line, environ={**case.variables, **variables}, **settings)


@pytest.mark.parametrize("backend", BACKENDS)
@for_cases(CASES)
def test_client_reads_the_mock(
    place: Place, case: Case, backend: str, record_property: Callable[[str, object], None]
) -> None:
    """A client reads the mock's values, or ignores the endpoint variables of the env backend and fails."""
    expected = expected_verdict(case, backend)
    record_property(KEY, f"{case.client} {case.preset} {backend} {expected}")
    outcome = run_case(place, case, backend)
    if expected == "ignored":
        assert not outcome.printed
        assert outcome.asked == []
    else:
        expect(case, outcome)


@for_cases(CASES)
def test_client_with_proxy_variables_reads_the_mock(place: Place, case: Case) -> None:
    """With all proxy variables set, a client reads the mock's values and sends the proxy no request."""
    outcome = run_case(place, case, "auto", **PROXIES, NO_PROXY="intranet.example")
    assert outcome.trapped == []
    expect(case, outcome)


@for_cases(FIRST)
def test_proxy_receives_requests_with_no_proxy_kept(place: Place, case: Case) -> None:
    """Negative control: with MOCK_NO_PROXY=keep the proxy receives requests of clients that use proxies."""
    place.serve(*OWN_MOCK)
    settings = {"MOCK_ENDPOINTS": case.preset, "MOCK_NO_PROXY": "keep"}
    first = place.first_trapped(*case.line, environ={**case.variables, **PROXIES}, **settings)
    assert bool(first) == case.proxied, first


@for_cases(FIRST)
def test_client_without_imds_detour_gets_no_answer(place: Place, case: Case) -> None:
    """Negative control: without imds-detour the same client gets no value and sends the mock no request."""
    place.serve(*OWN_MOCK)
    outcome = place.alone(*case.line, environ=case.variables)
    assert not outcome.printed
    assert outcome.asked == []


V2_ONLY = tuple(case for case in FIRST if case.preset == "aws" and case.client not in {"curl", "wget"})


@for_cases(V2_ONLY)
def test_client_reads_a_mock_that_requires_session_tokens(place: Place, case: Case) -> None:
    """With IMDSv2 required, SDKs and imds-detour's proof send a session token."""
    place.serve(*OWN_MOCK, "--imdsv2", "required")
    outcome = place.run(*case.line, environ=case.variables)
    expect(case, outcome)
    assert "verified IMDSv2" in outcome.stderr
