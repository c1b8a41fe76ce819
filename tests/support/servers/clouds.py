"""The development mock as a function, for tests of a cloud's answers without a server or a clock."""

import importlib.resources
import json
from typing import Any

from imds_detour_mock.clouds.credentials import Rotation
from imds_detour_mock.clouds.dispatch import Clouds, make_clouds
from imds_detour_mock.clouds.messages import Reply
from imds_detour_mock.clouds.notices import Notices
from imds_detour_mock.values import Json, load

DEFAULTS = importlib.resources.files("imds_detour_mock").joinpath("mock_data.json").read_text(encoding="utf-8")
NOW = 1_700_000_000.0  # 2023-11-14T22:13:20Z


def mock(
    override: Json = None, *, required: bool = False, rotation: Rotation | None = None, notices: Notices | None = None
) -> Clouds:
    """Return the mock with the built-in values and `override` merged over them."""
    data = load(DEFAULTS, None if override is None else json.dumps(override))
    return make_clouds(data, require_token=required, rotation=rotation, notices=notices)


def get(target: str, headers: dict[str, str] | None = None, *, clouds: Clouds | None = None, now: float = NOW) -> Reply:
    """Read a path, by default from a mock with the built-in values."""
    return (clouds or mock()).answer("GET", target, headers or {}, now)


def json_body(reply: Reply) -> Any:  # noqa: ANN401  (any JSON)
    """Return the value of a successful JSON reply."""
    assert reply.status == 200, reply
    assert ("Content-Type", "application/json") in reply.headers
    return json.loads(reply.body)
