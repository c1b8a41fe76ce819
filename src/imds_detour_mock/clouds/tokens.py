"""Session tokens, which some clouds require for a read."""

import base64
import binascii
import hmac
import secrets
import struct
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Tokens:
    """Issues signed session tokens. A token contains its expiry, so the mock stores none."""

    key: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)  # signs the tokens

    def issue(self, ttl: int, now: float) -> str:
        """Return a new token, valid for `ttl` seconds. No two tokens are equal."""
        claim = struct.pack(">d", now + ttl) + secrets.token_bytes(8)
        return base64.urlsafe_b64encode(claim + self._sign(claim)).decode()

    def valid(self, token: str, now: float) -> bool:
        """Tell whether the token was issued with this key and has not expired."""
        try:
            raw = base64.b64decode(token, altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):  # ValueError: a character outside ASCII
            return False
        claim, signature = raw[:16], raw[16:]
        return hmac.compare_digest(signature, self._sign(claim)) and now < float(struct.unpack(">d", claim[:8])[0])

    def _sign(self, claim: bytes) -> bytes:
        return hmac.digest(self.key, claim, "sha256")[:26]  # 16 + 26 bytes: base64 needs no padding


def parse_seconds(text: str, maximum: int) -> int | None:
    """Return the number of seconds, or None unless it is from 1 to `maximum`."""
    # int() also accepts signs, blanks, underscores and digits of other scripts.
    fits = text.isascii() and text.isdigit() and len(text) <= len(str(maximum)) and 1 <= int(text) <= maximum
    return int(text) if fits else None
