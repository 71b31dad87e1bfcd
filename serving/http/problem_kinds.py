"""Every kind of problem: its status and detail. /docs lists them, and a test compares them with those that are
raised."""

from __future__ import annotations

from typing import Any, NamedTuple

from serving.http.sizes import TOO_LONG


class Kind(NamedTuple):
    """A kind of problem: its status, and a detail (the default or an example). `is_for_readers`: only on web pages."""

    status: int
    detail: str
    is_for_readers: bool = False


_KINDS: dict[str, tuple[Any, ...]] = {
    "invalid-scope": (400, "The account has none of the scopes admin, only read, export, feedback."),
    "no-token": (401, "This needs an access token. Get one from POST /login and send it as Authorization: Bearer."),
    "expired-token": (401, "The access token has expired. Refresh it: POST /token/refresh."),
    "invalid-token": (401, "The access token is not valid. Refresh it, or log in again."),
    "ended-session": (401, "The session of this access token has ended. Log in again."),
    "wrong-credentials": (401, "Wrong name or password."),
    "refresh-refused": (401, "The refresh token is not valid or has expired. Log in again."),
    "insufficient-scope": (
        403,
        "The token lacks the scope export. If the account has it (see GET /account), log in again without `scope`; "
        "otherwise ask the operator for it.",
    ),
    "wrong-password": (403, "The current password is wrong."),
    "weak-password": (403, "The password must not contain the name. Choose another."),
    "registration-closed": (403, "Registration is closed. Ask the operator for an account."),
    "other-site": (403, "The form was sent from another site. Please use the forms of this catalogue.", True),
    "unknown-book": (404, "No book has the id 42. GET /books lists all books."),
    "unknown-books": (404, "No book has any of these ids: 41, 42. Remove them from the request."),
    "unknown-segment": (404, "No segment has the id 3-99. GET /segments lists all segments."),
    "other-model": (
        404,
        "Segment 2-1 belongs to model version 2; version 3 is in use. GET /segments lists its segments.",
    ),
    "no-segments": (404, "tfidf_model version 1 has no segments."),
    "no-feedback": (404, "POST /feedback has received no click, like or swap in the last 30 days."),
    "no-report": (404, "There is no report yet. Materialise the asset catalogue_report, or run `bookclub build`."),
    "unknown-categories": (404, "Unknown to Dagster: no-such."),
    "no-categories": (404, "No category is known yet. Dagster's sensors find them within the hour."),
    "unknown-crawl": (404, "There is no crawl 0d6f2c3e-5b0a-4a57-9a3e-6f2d7c1b9e10."),
    "name-taken": (409, "This name is taken. Choose another."),
    "last-administrator": (
        409,
        "This is the only administrator. Make another one first: `bookclub users add NAME --admin`.",
    ),
    "other-order": (409, "The cursor belongs to the order price. Send sort=price, or start again without a cursor."),
    "other-filters": (409, "The cursor belongs to other filters. Send the same ones, or start again without a cursor."),
    "data-moved-on": (409, "The data version is 51, not 50. Start the export again."),
    "invalid-request": (422, "query.limit: Input should be less than or equal to 100"),
    "quota-exceeded": (
        429,
        "The quota anonymous is exhausted: 120 requests in 60 s. Retry in 9 s.",
    ),
    "export-under-way": (
        429,
        "This account already has an export running. Read it to the end or close it, then retry.",
    ),
    "format-absent": (501, "This server cannot write parquet (pyarrow is not installed). Request ndjson or csv."),
    "database-unavailable": (503, "The books cannot be read: the database does not respond."),
    "no-model": (503, "There is no model yet."),
    "no-search": (503, "tfidf_model version 1 has no search index. Train a new model."),
    "dagster-unavailable": (503, "Dagster does not respond as expected. Start it, or see its log."),
    "not-ready": (503, "The books cannot be read: the database does not respond."),
    "busy": (503, "Too many logins at the moment. Retry."),
}
KINDS = {kind: Kind(*told) for kind, told in _KINDS.items()}
PLAIN = {  # problems whose status says everything
    400: "The query string is not UTF-8.",
    415: "Send the body as JSON, with the header Content-Type: application/json.",
    500: "Internal error. It is in the server's log. A retry may help.",
    **TOO_LONG,
}
MEMBERS: dict[str, dict[str, Any]] = {  # what a kind of problem adds to the members of all problems
    "invalid-request": {
        "errors": [
            {"loc": ["query", "limit"], "msg": "Input should be less than or equal to 100", "code": "less_than_equal"}
        ]
    },
    "unknown-books": {"book_ids": [41, 42]},
    "quota-exceeded": {"violated-policies": ["anonymous"]},
    "not-ready": {"checks": {"database": {"ok": False, "detail": "The books cannot be read."}}},
}
