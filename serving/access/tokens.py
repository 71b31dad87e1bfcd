"""Session and scopes -> a signed access token, and a token -> its claims, or TokenRefused (RFC 8725, RFC 9068).

    tokens = Tokens(KeyRing(path)); text = tokens.issue(user_id=7, session_id=uuid4(), scopes=["read"])
    tokens.read(text).user_id

One pinned algorithm: HS256, because only the API itself reads tokens. joserfc instead of PyJWT, which accepts two of
Wycheproof's 401 test vectors that misuse a key (`use`, `key_ops`).
"""

from __future__ import annotations

import base64
import hmac
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from uuid import UUID

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import GuestProtocol, OctKey

from bookclub_platform.core.errors import BookclubError
from bookclub_platform.core.token_keys import TOKEN_LIFE_S, KeyRing

ALGORITHM = "HS256"
KIND = "at+jwt"
WEB_KIND = "bookclub-web+jwt"  # in a cookie: valid only for pages, as an access token is valid only for the API
WEB_LIFE_S = 12 * 3600
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
    """Not a valid token of ours, or an expired one: `kind` says which."""

    def __init__(self, detail: str, kind: str = "invalid-token") -> None:
        super().__init__(detail)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Claims:
    """The content of a verified token."""

    user_id: int
    session_id: UUID
    scopes: frozenset[str]


class Tokens:
    """Access tokens signed with the keys of a ring."""

    def __init__(self, ring: KeyRing) -> None:
        self._ring = ring

    @property
    def keys_fault(self) -> str | None:
        """Why the file of keys can no longer be used; None if it can."""
        return self._ring.fault

    def issue(self, user_id: int, session_id: UUID, scopes: Sequence[str]) -> str:
        """A token that is valid for TOKEN_LIFE_S seconds."""
        return self._issue(Claims(user_id, session_id, frozenset(scopes)), KIND, TOKEN_LIFE_S)

    def issue_for_web(self, claims: Claims) -> str:
        """The value of a browser's cookie, valid for WEB_LIFE_S seconds; a rotation of the keys ends it sooner."""
        return self._issue(claims, WEB_KIND, WEB_LIFE_S)

    def after(self, refresh_token: str) -> list[str]:
        """The possible successors of a refresh token: the first by the current key, the others by earlier keys.

        They are derived from the token: a client that asks again after a lost response gets the same one, although the
        database stores nothing from which a token could be made.
        """
        told = b"refresh-token:" + refresh_token.encode("utf-8", "replace")  # no JWT begins with this prefix
        keys = sorted(self._ring.all(), key=lambda key: key.replaced_at is not None)
        made = (hmac.digest(key.secret, told, "sha256") for key in keys)
        return [base64.urlsafe_b64encode(one).rstrip(b"=").decode() for one in made]

    def _issue(self, claims: Claims, kind: str, life_s: int) -> str:
        key, now = self._ring.current(), int(time.time())
        header = {"alg": ALGORITHM, "typ": kind, "kid": key.kid}
        stated = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": str(claims.user_id),
            "sid": claims.session_id.hex,
            "jti": secrets.token_urlsafe(12),
            "iat": now,
            "nbf": now,
            "exp": now + life_s,
            "scope": " ".join(sorted(claims.scopes)),
        }
        return jwt.encode(header, stated, _as_jwk(key.secret), algorithms=[ALGORITHM])

    def read(self, text: str, kind: str = KIND) -> Claims:
        """The content of `text`, a token of that kind.

        Raises:
            TokenRefused: it is not signed by us for this API, or has expired.
        """
        if len(text) > MAX_LENGTH:
            raise TokenRefused("The access token is not valid: it is too long.")
        try:
            token = verified(text, partial(self._key_of, kind))
            _CLAIMS.validate(token.claims)
            return _claims(token)
        except (JoseError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            if getattr(error, "error", "") == "expired_token":
                raise TokenRefused(
                    "The access token has expired. Refresh it: POST /token/refresh.", "expired-token"
                ) from error
            raise TokenRefused("The access token is not valid. Refresh it, or log in again.") from error

    def _key_of(self, kind: str, token: GuestProtocol) -> OctKey:
        if token.headers().get("typ") != kind or "crit" in token.headers():
            raise ValueError("another kind of token")
        key = self._ring.find(str(token.headers()["kid"]))
        if key is None:
            raise ValueError("a key that we do not know")
        return _as_jwk(key.secret)


def verified(text: str, key: object) -> jwt.Token:
    """`text` as a JWT, its signature verified with the pinned algorithm and `key` (or what `key(token)` returns)."""
    return jwt.decode(text, key, algorithms=[ALGORITHM])  # type: ignore[arg-type]


def _claims(token: jwt.Token) -> Claims:
    claims = token.claims
    return Claims(int(claims["sub"]), UUID(hex=claims["sid"]), frozenset(claims["scope"].split()))


def _as_jwk(secret: bytes) -> OctKey:
    return OctKey.import_key(secret, {"use": "sig", "alg": ALGORITHM})
