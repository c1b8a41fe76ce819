"""What EC2 announces to an instance before it acts: a Spot interruption, and the advice to leave early."""

from dataclasses import dataclass

from imds_detour_mock.clouds.documents import moment
from imds_detour_mock.values import Json

WARNING = 120.0
"""Seconds from the notice of a Spot interruption to the interruption (EC2 user guide, "Spot interruption notices")."""


@dataclass(frozen=True, slots=True)
class Notices:
    """When each notice appears, in seconds since 1970; None is never. Before that its paths do not exist."""

    spot: float | None = None
    """`spot/instance-action` and `spot/termination-time`. The instance is a Spot instance from the start."""
    rebalance: float | None = None
    """`events/recommendations/rebalance`."""

    def over(self, data: dict[str, Json], now: float) -> dict[str, Json]:
        """Return the instance's data with the notices that are out by now."""
        added: dict[str, Json] = {}
        meta = data.get("meta-data")
        if not isinstance(meta, dict):
            return data
        if self.spot is not None:
            added["instance-life-cycle"] = "spot"
            if now >= self.spot:
                time = moment(self.spot + WARNING)
                action: Json = {"$json": {"action": "terminate", "time": time}}
                added["spot"] = {"instance-action": action, "termination-time": time}
        if self.rebalance is not None and now >= self.rebalance:
            notice: Json = {"$json": {"noticeTime": moment(self.rebalance)}}
            events = meta.get("events")
            added["events"] = {
                **(events if isinstance(events, dict) else {}),
                "recommendations": {"rebalance": notice},
            }
        return {**data, "meta-data": {**meta, **added}} if added else data
