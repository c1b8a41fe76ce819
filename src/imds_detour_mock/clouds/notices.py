"""EC2's notices to an instance: Spot interruptions and rebalance recommendations."""

from dataclasses import dataclass

from imds_detour_mock.clouds.documents import object_at, timestamp
from imds_detour_mock.values import Json

NOTICE_TIME = 120.0  # seconds from a Spot notice to the interruption (EC2 user guide, "Spot interruption notices")


@dataclass(slots=True)
class Notices:
    """The time of each notice, in seconds since 1970, or None for never. Its paths are 404 until then.

    The control path changes the times while the mock serves.
    """

    spot: float | None = None
    """`spot/instance-action` and `spot/termination-time`. The instance's life cycle is `spot` if it has a time."""
    rebalance: float | None = None  # `events/recommendations/rebalance`

    def apply(self, data: dict[str, Json], now: float) -> dict[str, Json]:
        """Return the instance's data with the notices that are due."""
        added: dict[str, Json] = {}
        meta = data.get("meta-data")
        if not isinstance(meta, dict):
            return data
        if self.spot is not None:
            added["instance-life-cycle"] = "spot"
            if now >= self.spot:
                time = timestamp(self.spot + NOTICE_TIME)
                action: Json = {"$json": {"action": "terminate", "time": time}}
                added["spot"] = {"instance-action": action, "termination-time": time}
        if self.rebalance is not None and now >= self.rebalance:
            notice: Json = {"$json": {"noticeTime": timestamp(self.rebalance)}}
            added["events"] = {**object_at(meta, "events"), "recommendations": {"rebalance": notice}}
        return {**data, "meta-data": {**meta, **added}} if added else data
