"""Credentials that expire and are replaced in time, as a cloud's own are."""

from dataclasses import dataclass

from imds_detour_mock.clouds.documents import fill, moment
from imds_detour_mock.values import Json

LEAD = 300.0
"""Seconds by which new credentials come before the old ones expire, as the EC2 user guide promises for roles."""

_NAMED = ("SecretAccessKey", "Token", "AccessKeySecret", "SecurityToken", "access_token")  # EC2, Alibaba, OAuth


@dataclass(frozen=True, slots=True)
class Rotation:
    """New credentials at a steady beat."""

    ttl: float
    """Seconds for which a set of credentials is good."""
    start: float
    """When the first set was made, in seconds since 1970."""

    def period(self, now: float) -> tuple[int, float, float]:
        """Return the number of the set that is served now, and the times when it began and when it expires.

        A set expires `LEAD` seconds after the next one is there; half its time where that is less.
        """
        beat = self.ttl - min(LEAD, self.ttl / 2)
        number = max(0, int((now - self.start) // beat))
        begin = self.start + number * beat
        return number, begin, begin + self.ttl


def current(credentials: dict[str, Json], rotation: Rotation | None, now: float) -> dict[str, Json]:
    """Return a document of credentials as it reads now: times filled in, and those of this period where they rotate.

    Only members that are there change. Without rotation the values stay, and `expires_in` counts from now.
    """
    filled = {key: fill(value, now) for key, value in credentials.items()}
    if rotation is None:
        return filled
    number, begin, end = rotation.period(now)
    if isinstance(key_id := filled.get("AccessKeyId"), str):
        filled["AccessKeyId"] = f"{key_id[:-6]}{number:06d}"  # as long as it was: some programs check that
    for name in _NAMED:
        if isinstance(secret := filled.get(name), str):
            filled[name] = f"{secret}-{number}"
    for name, time in (("LastUpdated", begin), ("Expiration", end)):
        if name in filled:
            filled[name] = moment(time)
    if "expires_in" in filled:
        filled["expires_in"] = max(1, int(end - now))
    return filled
