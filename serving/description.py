"""What /docs says before all routes: what holds for each, and every kind of problem with what to do about it."""

from __future__ import annotations

from serving.problems import KINDS, phrase

_GENERAL = """
Books from a shop, and for each of them the books most like it, with the reasons.

* **Paging**: take `next` of a page as `cursor` of the next one, with the same filters and order, until it is null.
* **Versions**: answers about books carry the headers `Bookclub-Data-Version` and `Bookclub-Model`. One answer is always
  of one data version and one model; the model may change between two requests, without an interruption.
* **Caching**: answers that may be 304 (see each route) carry an `ETag`. Send it as `If-None-Match`, and 304 says that
  nothing changed: what you have still holds.
* **Times** are in UTC and as RFC 3339 writes them, with up to six decimals of a second. **Prices** are numbers in units
  of their currency, not in hundredths. **Null** says that something is not known; no field of an answer is left out.
* **All books at once**: GET /books/export, as ndjson, csv or parquet. `examples/analysis.py` of the project reads it
  into pandas.
* **Accounts**: POST /register or /login begins a session of 30 days, and gives a token for the header `Authorization:
  Bearer ...`. It is good for ten minutes; /token/refresh takes the refresh token that came with it for the next pair.
  A token that is not good is refused, where none is needed too.
* **Quotas**: `RateLimit` and `RateLimit-Policy` say how you stand. Beyond one, the answer is 429 and `Retry-After`
  says when to come back. Reading without an account has a small quota for each address; logging in and changing the
  password have a smaller one together, wrong passwords a smaller one still for each name, and so has registering. What
  costs more counts as several requests: its route says so. /health, /ready, /metrics and this page have none.
* **Limits**: pages and lists of 1 to 100; 100 books or events in a batch;
  2,000 events of feedback a day for each account, unless the operator says otherwise; bodies of 64 KiB, addresses of
  8 KiB, headers of 32 KiB; ids up to 2^53 - 1; a question may take the database 3 seconds, figures over all books 30
  seconds, an export 15 minutes. A few exports run at a time, one of each account: GET /books/export says who has to
  wait or to give way.
* **HEAD** answers wherever GET does, with the same headers.
* **Unknown** fields of JSON are refused (422), and so are unknown parameters where a route takes any in its query, so
  that a misspelt filter is not passed over.
* **A gateway** in front of this may refuse by itself: 421 asked by another name than the service's, 429 and 503 as
  below, all as problems without `instance`; a request that takes it more than 10 seconds to come is ended without an
  answer. It answers /ready with the status alone (204 or 503), and not /metrics.
* **Errors** are `application/problem+json` (RFC 9457), whatever the route: read `detail`; tell kinds apart by `type`,
  which is `tag:bookclub,2026:` and one of the kinds below, or `about:blank` where the status says it all.

| status | kinds | what to do |
|---|---|---|
"""

_TO_DO = {
    400: "mend the request",
    401: "`expired-token`, `invalid-token`: refresh the token. `wrong-credentials`: ask again. Else log in",
    403: "`insufficient-scope`: use an account that has it. `weak-password`: ask for another. Else ask the operator",
    404: "there is no such thing: asking again soon does not help",
    405: "ask by a method that the header `Allow` names",
    409: "something else holds by now; `detail` says what to do",
    413: "send less",
    414: "send less: POST /recommendations:batch takes a longer `exclude`",
    415: "send the body as the kind that the route takes",
    422: "mend the request: `errors` names each parameter",
    431: "send less in headers",
    429: "ask again after `Retry-After` seconds",
    500: "the server's fault, which its log describes under `X-Request-ID`: tell the operator",
    501: "the server's lack: ask for something else",
    503: "ask again after `Retry-After` seconds: it heals by itself",
}


def _row(status: int) -> str:
    kinds = ", ".join(f"`{kind}`" for kind, (of, _) in KINDS.items() if of == status)
    return f"| {status} {phrase(status)} | {kinds} | {_TO_DO[status]} |"


DESCRIPTION = _GENERAL + "\n".join(map(_row, _TO_DO)) + "\n"
