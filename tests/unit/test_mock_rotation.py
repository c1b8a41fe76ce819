"""Changes over time in the development mock: rotating credentials, and EC2's notices."""

import json
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imds_detour_mock.clouds.credentials import Rotation
from imds_detour_mock.clouds.notices import Notices
from tests.support.servers.clouds import NOW, get, json_body, mock

ROLE = "/latest/meta-data/iam/security-credentials/imds-detour-mock-role"
META = "/latest/meta-data"
GCP_TOKEN = "/computeMetadata/v1/instance/service-accounts/default/token"  # noqa: S105  (a path)
AZURE_TOKEN = "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=r"  # noqa: S105  (a path)
ALIBABA_ROLE = "/latest/meta-data/ram/security-credentials/imds-detour-mock-role"
HEADERS = {"authorization": "x", "metadata-flavor": "Google", "metadata": "true"}


def served(target: str, ttl: float, after: float) -> dict[str, Any]:
    """Return the credentials that a mock serves `after` seconds after its start at NOW."""
    headers = {**HEADERS, **({"host": "100.100.100.200"} if target == ALIBABA_ROLE else {})}
    rotation = Rotation(ttl, NOW)
    document: dict[str, Any] = json_body(get(target, headers, clouds=mock(rotation=rotation), now=NOW + after))
    return document


def seconds(text: str) -> float:
    """Return the seconds since 1970 of a time in the clouds' format."""
    return datetime.fromisoformat(text).timestamp()


@pytest.mark.parametrize("target", [ROLE, "/v2/credentials/x", "/creds", "/v1/credentials", ALIBABA_ROLE])
def test_new_credentials_come_five_minutes_before_the_old_expire(target: str) -> None:
    """Credentials with a lifetime of an hour are replaced after 55 minutes, with a new lifetime of an hour."""
    first, unchanged, second = (served(target, 3600, after) for after in (0, 3299, 3300))
    assert (first, seconds(first["Expiration"])) == (unchanged, NOW + 3600)
    assert seconds(second["Expiration"]) == NOW + 3300 + 3600
    assert first["AccessKeyId"] != second["AccessKeyId"]
    secret, token = ("AccessKeySecret", "SecurityToken") if "ram" in target else ("SecretAccessKey", "Token")
    assert first[secret] != second[secret]
    assert first[token] != second[token]
    assert first["AccessKeyId"].startswith("MOCK")
    assert len(first["AccessKeyId"]) == len(second["AccessKeyId"]) == 20


@given(ttl=st.floats(2, 10**6), after=st.floats(0, 10**8))
def test_credentials_never_expire_soon(ttl: float, after: float) -> None:
    """Served credentials are valid for five more minutes, or for half their lifetime if that is less."""
    _, start, end = Rotation(ttl, NOW).current_set(NOW + after)
    slack = 1e-4 * ttl  # rounding of floats
    assert start - slack <= NOW + after
    assert end - (NOW + after) >= min(300, ttl / 2) - slack


def test_credential_sets_are_numbered_from_the_start() -> None:
    """Credential sets are numbered from 0, the same in EC2, ECS and EKS; a time before the start selects the first."""
    rotation = Rotation(10, NOW)
    keys = {served(target, 60, 100)["AccessKeyId"] for target in (ROLE, "/creds", "/v1/credentials")}
    assert (len(keys), [rotation.current_set(NOW + 5 * n)[0] for n in range(4)]) == (1, [0, 1, 2, 3])
    assert rotation.current_set(NOW - 1000) == (0, NOW, NOW + 10)


def test_access_tokens_rotate() -> None:
    """Access tokens of Google and Azure count down and then change."""
    google = [served(GCP_TOKEN, 600, after) for after in (0, 299, 300)]
    assert [token["expires_in"] for token in google] == [600, 301, 600]
    assert google[0]["access_token"] == google[1]["access_token"] != google[2]["access_token"]
    azure = [served(AZURE_TOKEN, 600, after) for after in (0, 299, 300)]
    assert [token["expires_in"] for token in azure] == ["600", "301", "600"]
    assert [int(token["expires_on"]) - NOW for token in azure] == [600, 600, 900]
    assert azure[0]["access_token"] == azure[1]["access_token"] != azure[2]["access_token"]


def test_credentials_stay_without_rotation_and_those_of_a_user_rotate() -> None:
    """Without rotation the access key stays and expires in six hours; rotation replaces the user's fixed expiry."""
    first, later = (json_body(get(ROLE, now=NOW + after)) for after in (0, 10**6))
    assert (first["AccessKeyId"], seconds(later["Expiration"])) == (later["AccessKeyId"], NOW + 10**6 + 21600)
    credentials: dict[str, str | None] = {"AccessKeyId": "AKIA", "Expiration": "2030-01-01T00:00:00Z", "Token": None}
    clouds = mock({"ecs": {"credentials": {**credentials}}}, rotation=Rotation(60, NOW))
    document = json_body(get("/creds", clouds=clouds))
    assert document["AccessKeyId"] == "000000"
    assert document["Token"] is None
    assert seconds(document["Expiration"]) == NOW + 60


def statuses(notices: Notices, after: float, *paths: str) -> list[int]:
    """Return the status of each path below meta-data, `after` seconds after NOW."""
    clouds = mock(notices=notices)
    return [get(f"{META}/{path}", clouds=clouds, now=NOW + after).status for path in paths]


def test_spot_interruption_is_announced_two_minutes_before() -> None:
    """A Spot notice is 404 and unlisted until it is due, then names the time of interruption, 120 seconds later."""
    notices = Notices(spot=NOW + 30)
    paths = ("spot", "spot/instance-action", "spot/termination-time")
    assert (statuses(notices, 29.9, *paths), statuses(notices, 30, *paths)) == ([404] * 3, [200] * 3)
    clouds = mock(notices=notices)
    assert b"spot" not in get(f"{META}/", clouds=clouds, now=NOW + 29).body
    assert b"\nspot/\n" in get(f"{META}/", clouds=clouds, now=NOW + 30).body
    for after in (30, 1000):
        action = get(f"{META}/spot/instance-action", clouds=clouds, now=NOW + after)
        assert json.loads(action.body) == {"action": "terminate", "time": "2023-11-14T22:15:50Z"}
        assert get(f"{META}/spot/termination-time", clouds=clouds, now=NOW + after).body == b"2023-11-14T22:15:50Z"
    assert get(f"{META}/instance-life-cycle", clouds=clouds).body == b"spot"


def test_rebalance_recommendation_appears_when_it_is_due() -> None:
    """A rebalance recommendation is 404 until it is due, then names its time; the other events stay."""
    notices = Notices(rebalance=NOW + 30)
    path = "events/recommendations/rebalance"
    assert statuses(notices, 29.9, path, "events/maintenance/scheduled") == [404, 200]
    assert statuses(notices, 30, path, "events/maintenance/scheduled") == [200, 200]
    clouds = mock(notices=notices)
    assert json_body(get(f"{META}/{path}", clouds=clouds, now=NOW + 99)) == {"noticeTime": "2023-11-14T22:13:50Z"}
    assert get(f"{META}/events", clouds=clouds, now=NOW + 30).body == b"maintenance/\nrecommendations/"


def test_notices_need_a_schedule_and_accept_any_data() -> None:
    """Without a schedule EC2 has no notice and no maintenance event."""
    assert statuses(Notices(), 10**8, "spot", "events/recommendations") == [404, 404]
    assert json_body(get(f"{META}/events/maintenance/scheduled")) == []
    assert json_body(get(f"{META}/events/maintenance/history")) == []
    # Notices work with data that have no meta-data, and with a text in place of the events directory.
    notices = Notices(spot=NOW, rebalance=NOW)
    assert get(f"{META}/spot", clouds=mock({"meta-data": None}, notices=notices)).status == 404
    text_at_events = mock({"meta-data": {"events": "none"}}, notices=notices)
    assert get(f"{META}/events/recommendations/rebalance", clouds=text_at_events).status == 200
