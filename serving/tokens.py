"""Session and scopes -> a signed access token, and a token -> its claims, or TokenRefused (RFC 8725, RFC 9068).

    tokens = Tokens(KeyRing(path)); text = tokens.issue(user_id=7, session_id=uuid4(), scopes=["read"])
    tokens.read(text).user_id

One algorithm, pinned: HS256, for the only reader of a token is the API itself. joserfc and not PyJWT, which on
Wycheproof's 401 vectors also takes the two that abuse a key (`use`, `key_ops`).
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import GuestProtocol, OctKey

from bookclub_platform.core.errors import BookclubError
from bookclub_platform.core.token_keys import TOKEN_LIFE_S, KeyRing

ALGORITHM = "HS256"
KIND = "at+jwt"
ISSUER = "bookclub"
AUDIENCE = "bookclub-api"
MAX_LENGTH = 2048

_needed: jwt.ClaimsOption = {"essential": True}
_CLAIMS = jwt.JWTClaimsRegistry(
    iss={"essential": True, "value": ISSUER},
    aud={"essential": True, "value": AUDIENCE},
    sub=_needed,
    sid=_needed,
    jti=_needed,
    iat=_needed,
    nbf=_needed,
    exp=_needed,
    scope=_needed,
)


class TokenRefused(BookclubError):
    """Not a token of ours, or not any more."""


@dataclass(frozen=True, slots=True)
class Claims:
    """What a token says, once it is believed."""

    user_id: int
    session_id: UUID
    scopes: frozenset[str]


class Tokens:
    """Access tokens signed with the keys of a ring."""

    def __init__(self, ring: KeyRing) -> None:
        self._ring = ring

    def issue(self, user_id: int, session_id: UUID, scopes: Sequence[str]) -> str:
        """A token that is good for TOKEN_LIFE_S seconds."""
        key, now = self._ring.current(), int(time.time())
        header = {"alg": ALGORITHM, "typ": KIND, "kid": key.kid}
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": str(user_id),
            "sid": session_id.hex,
            "jti": secrets.token_urlsafe(12),
            "iat": now,
            "nbf": now,
            "exp": now + TOKEN_LIFE_S,
            "scope": " ".join(scopes),
        }
        return jwt.encode(header, claims, _as_jwk(key.secret), algorithms=[ALGORITHM])

    def read(self, text: str) -> Claims:
        """What `text` says.

        Raises:
            TokenRefused: it is not signed by us for this API, or its time is over.
        """
        if len(text) > MAX_LENGTH:
            raise TokenRefused("The access token is too long to be one of ours.")
        try:
            token = verified(text, self._key_of)
            _CLAIMS.validate(token.claims)
            return _claims(token)
        except (JoseError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            reason = "has expired" if getattr(error, "error", "") == "expired_token" else "is not valid"
            raise TokenRefused(f"The access token {reason}. Log in again, or refresh it.") from error

    def _key_of(self, token: GuestProtocol) -> OctKey:
        if token.headers().get("typ") != KIND:
            raise ValueError("another kind of token")
        key = self._ring.find(str(token.headers()["kid"]))
        if key is None:
            raise ValueError("a key that we do not know")
        return _as_jwk(key.secret)


def verified(text: str, key: object) -> jwt.Token:
    """`text` as a JWT whose signature by the pinned algorithm holds with `key` (or what `key(token)` returns)."""
    return jwt.decode(text, key, algorithms=[ALGORITHM])  # type: ignore[arg-type]


def _claims(token: jwt.Token) -> Claims:
    claims = token.claims
    return Claims(int(claims["sub"]), UUID(hex=claims["sid"]), frozenset(claims["scope"].split()))


def _as_jwk(secret: bytes) -> OctKey:
    return OctKey.import_key(secret, {"use": "sig", "alg": ALGORITHM})
