"""The path of an answer -> the headers that tell a browser how little it may do with it."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_HEADERS = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
_NOTHING = "default-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action 'none'"
# A page of plots brings its style and pictures in itself; what a shop wrote into it can run nothing.
_PAGE = f"{_NOTHING}; style-src 'unsafe-inline'; img-src data:"
# FastAPI's page of /docs starts Swagger from a script inside it; what it shows is ours alone.
_DOCS = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "base-uri 'none'; frame-ancestors 'none'"
)


def secure(headers: MutableHeaders, path: str) -> None:
    """Add what is missing to the headers of an answer at `path`."""
    told = {name for name, _ in headers.raw}
    headers.raw.extend(pair for pair in _HEADERS if pair[0] not in told)
    if path in {"/docs", "/redoc"}:
        policy = _DOCS
    else:
        policy = _PAGE if headers.get("content-type", "").startswith("text/html") else _NOTHING
    headers.setdefault("Content-Security-Policy", policy)
