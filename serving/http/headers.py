"""ASGI headers -> the value of one; headers and path of a response -> these headers and the missing security headers.

    named(scope["headers"], b"authorization")           "Bearer ..."; "" if there is none
    listed(scope["headers"], b"if-none-match")          'W/"5f1c", W/"7a2b"', also if these are two lines
    secured(message["headers"], "/books")               those headers, followed by ours

Starlette's Headers class does the same at several times the cost, which each middleware would pay for each request.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Pair = tuple[bytes, bytes]

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_POLICY = b"content-security-policy"
_NOTHING = "default-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action 'none'"
# A page of plots contains its styles and images; text from a shop in it cannot run anything.
_PAGE = f"{_NOTHING}; style-src 'unsafe-inline'; img-src data:"
# FastAPI's /docs page starts Swagger from an inline script; all its content is ours.
_DOCS = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "base-uri 'none'; frame-ancestors 'none'"
)


def _all(policy: str) -> list[Pair]:
    pairs = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
    return [*pairs, (_POLICY, policy.encode())]


_OF_NOTHING, _OF_PAGE, _OF_DOCS = _all(_NOTHING), _all(_PAGE), _all(_DOCS)
_NAMES = frozenset(name for name, _ in _OF_NOTHING)


def named(headers: Iterable[Pair], name: bytes) -> str:
    """The value of the first header with this name, in lower case like all names in `headers`; "" if there is none."""
    for key, value in headers:
        if key == name:
            return value.decode("latin-1")
    return ""


def listed(headers: Iterable[Pair], name: bytes) -> str:
    """The values of a header that is a list and may come in several lines (RFC 9110, 5.3); "" if there is none."""
    return ", ".join(value.decode("latin-1") for key, value in headers if key == name)


def secured(headers: Sequence[Pair], path: str) -> list[Pair]:
    """The headers of a response for `path` and the missing security headers, in a new list that callers may extend."""
    told = dict(headers)
    if path in {"/docs", "/redoc"}:
        ours = _OF_DOCS
    else:
        ours = _OF_PAGE if told.get(b"content-type", b"").startswith(b"text/html") else _OF_NOTHING
    return [*headers, *(ours if _NAMES.isdisjoint(told) else [pair for pair in ours if pair[0] not in told])]
