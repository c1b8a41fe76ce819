"""Session tokens of the clouds that ask for one before a read."""

import base64
import binascii
import hmac
import secrets
import struct
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Tokens:
    """Session tokens that carry their own expiry under a signature, so that none has to be stored."""

    key: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)
    """Signs the tokens; another key is another mock, which knows none of them."""

    def issue(self, ttl: int, now: float) -> str:
        """Return a new token for `ttl` seconds from `now`; no two are equal."""
        claim = struct.pack(">d", now + ttl) + secrets.token_bytes(8)
        return base64.urlsafe_b64encode(claim + self._sign(claim)).decode()

    def valid(self, token: str, now: float) -> bool:
        """Tell whether this object issued the token and its time is not over."""
        try:
            raw = base64.b64decode(token, altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):  # ValueError: a character outside ASCII
            return False
        claim, signature = raw[:16], raw[16:]
        return hmac.compare_digest(signature, self._sign(claim)) and now < float(struct.unpack(">d", claim[:8])[0])

    def _sign(self, claim: bytes) -> bytes:
        return hmac.digest(self.key, claim, "sha256")[:26]  # 16 + 26 bytes: base64 without padding or idle bits


def seconds(text: str, most: int) -> int | None:
    """Read a number of seconds from 1 to `most`, or return None."""
    # int() alone would also take signs, blanks, underscores, other scripts' digits and any length.
    fits = text.isascii() and text.isdigit() and len(text) <= len(str(most)) and 1 <= int(text) <= most
    return int(text) if fits else None
