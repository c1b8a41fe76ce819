"""Credentials that rotate: the next set is served before the previous one expires."""

from dataclasses import dataclass

from imds_detour_mock.clouds.documents import fill_times, timestamp
from imds_detour_mock.values import Json

OVERLAP = 300.0
"""Seconds from new credentials to the expiry of the previous ones (EC2 user guide, "IAM roles for Amazon EC2")."""

_SECRETS = ("SecretAccessKey", "Token", "AccessKeySecret", "SecurityToken", "access_token")  # EC2, Alibaba, OAuth


@dataclass(frozen=True, slots=True)
class Rotation:
    """A schedule of credentials, one set after the other."""

    ttl: float
    """Seconds that a set of credentials is valid."""
    start: float
    """The start of the first set, in seconds since 1970."""

    def current_set(self, now: float) -> tuple[int, float, float]:
        """Return the number of the set that is served now, its start and its expiry.

        A set expires `OVERLAP` seconds after the next one starts, or half its lifetime if that is less.
        """
        interval = self.ttl - min(OVERLAP, self.ttl / 2)
        number = max(0, int((now - self.start) // interval))
        start = self.start + number * interval
        return number, start, start + self.ttl


def current_credentials(credentials: dict[str, Json], rotation: Rotation | None, now: float) -> dict[str, Json]:
    """Return a credentials document as it is at the time `now`.

    Rotation changes the members that the document has and adds none. Without rotation only the times change.
    """
    filled = {key: fill_times(value, now) for key, value in credentials.items()}
    if rotation is None:
        return filled
    number, start, end = rotation.current_set(now)
    if isinstance(key_id := filled.get("AccessKeyId"), str):
        filled["AccessKeyId"] = f"{key_id[:-6]}{number:06d}"  # keep the length: some programs check it
    for name in _SECRETS:
        if isinstance(secret := filled.get(name), str):
            filled[name] = f"{secret}-{number}"
    for name, time in (("LastUpdated", start), ("Expiration", end)):
        if name in filled:
            filled[name] = timestamp(time)
    if "expires_in" in filled:
        filled["expires_in"] = max(1, int(end - now))
    return filled
