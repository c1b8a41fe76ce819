"""Credentials that rotate: the next set is served before the previous one expires."""

from collections.abc import Callable
from dataclasses import dataclass

from imds_detour_mock.clouds.documents import fill_times, timestamp
from imds_detour_mock.values import Json

OVERLAP = 300.0  # seconds from new credentials to the expiry of the previous ones (EC2 guide, "IAM roles")

_SECRETS = ("SecretAccessKey", "Token", "AccessKeySecret", "SecurityToken", "access_token")  # EC2, Alibaba, OAuth


class NoCredentialsError(Exception):
    """The credential process has given no credentials that are still valid."""


@dataclass(slots=True)
class Rotation:
    """A schedule of credentials, one set after the other. `rotate` starts the next set at once."""

    ttl: float | None = None  # seconds that a set of credentials is valid; None without a schedule
    start: float = 0  # the start of the first set, in seconds since 1970
    first: int = 0  # the number of the first set. Without a schedule, set 0 is the data's own.
    issued: Callable[[float], dict[str, Json]] | None = None  # a credential process's `current`

    def current_set(self, now: float) -> tuple[int, float, float]:
        """Return the number of the set that is served now, its start and its expiry, which is 0 without a schedule.

        A set expires `OVERLAP` seconds after the next one starts, or half its lifetime if that is less.
        """
        if self.ttl is None:
            return self.first, self.start, 0
        interval = self.ttl - min(OVERLAP, self.ttl / 2)
        number = max(0, int((now - self.start) // interval))
        start = self.start + number * interval
        return self.first + number, start, start + self.ttl

    def rotate(self, now: float) -> None:
        """End the set that is served now, and start the next one."""
        self.first, self.start = self.current_set(now)[0] + 1, now


def current_credentials(credentials: dict[str, Json], rotation: Rotation | None, now: float) -> dict[str, Json]:
    """Return a credentials document as it is at the time `now`.

    Rotation changes the members that the document has and adds none. Without rotation only the times change.
    A credential process replaces the members of AWS credentials. Raises `NoCredentialsError` if it has none.
    """
    filled = {key: fill_times(value, now) for key, value in credentials.items()}
    if rotation and rotation.issued and "SecretAccessKey" in filled:
        filled.pop("AccountId", None)  # the account of the built-in credentials
        return filled | rotation.issued(now)
    number, start, end = rotation.current_set(now) if rotation else (0, 0, 0)
    if number == end == 0:
        return filled
    if isinstance(key_id := filled.get("AccessKeyId"), str):
        filled["AccessKeyId"] = f"{key_id[:-6]}{number:06d}"  # keep the length: some programs check it
    for name in _SECRETS:
        if isinstance(secret := filled.get(name), str):
            filled[name] = f"{secret}-{number}"
    if not end:
        return filled
    for name, time in (("LastUpdated", start), ("Expiration", end)):
        if name in filled:
            filled[name] = timestamp(time)
    if "expires_in" in filled:
        filled["expires_in"] = max(1, int(end - now))
    return filled
