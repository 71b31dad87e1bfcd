"""Settings -> the introduction of /docs: what applies to all routes, the quotas, and what to do about each problem."""

from __future__ import annotations

from bookclub_platform.core.settings import Settings
from serving.access import policies
from serving.access.quotas import Quota
from serving.http.problem_kinds import KINDS
from serving.http.problems import phrase
from serving.http.sizes import MAX_ADDRESS_BYTES, MAX_BODY_BYTES, MAX_HEADER_BYTES

_GENERAL = f"""
The books of a shop, and for each book the most similar ones, with reasons.

Reading needs no account:

    GET /books/search?q=lighthouse                  find a book
    GET /books/1/recommendations?limit=5            books like it

An account (POST /register, no e-mail needed) has a larger quota, exports all books, and reports what readers did with
recommendations (POST /feedback), which makes them better. A shop's operator may require a token for reading, too.

* **Pagination**: send `next` of a page as `cursor` to get the next page, with the same filters and order. The last page
  has `next: null`.
* **Versions**: responses about books have the headers `Bookclub-Data-Version` and `Bookclub-Model` (exports and popular
  books only the first, as no model takes part). The books of a
  response are always of one data version, and one model ranked them; for some seconds after a load it may have ranked
  the version before (`ranked_data_version`). The model can change between two requests, without downtime. After
  books have changed, a response may still show the previous data version for up to 1 second (20 seconds with 20,000
  books or more), even if another URL already shows the new one.
* **Caching**: responses of routes that document a 304 have an `ETag`. Send it as `If-None-Match`; 304 means that your
  copy is still valid. GET /books/popular may be cached for a minute instead (`max-age=60`). Responses about an account
  and all problems must not be cached (`no-store`).
* **Compression**: responses of 1,000 bytes or more are compressed with gzip if the request has `Accept-Encoding: gzip`
  (br and zstd are not supported). Most HTTP clients send this header and decompress automatically. Request bodies must
  not be compressed: a body with `Content-Encoding` gets 415.
* **Values**: times are in UTC, in the format of RFC 3339, with up to six decimals of a second. Prices are in units of
  their currency, not in cents. `null` means unknown or not applicable; no field of a response is left out. Integers
  have 32 or 64 bits, as `format` says; ids have 64.
* **All books at once**: GET /books/export, as ndjson, csv or parquet. `examples/analysis.py` in the repository loads it
  into pandas.
* **Authentication**: POST /register and POST /login start a session of 30 days and return an access token. Send it as
  `Authorization: Bearer ...`. It is valid for 10 minutes; POST /token/refresh exchanges the refresh token for the next
  pair. Refresh only on `expired-token` or `invalid-token`, not on every 401. Exports need the scope `export`, feedback
  needs `feedback`, crawls need `admin`; a login without `scope` gets all scopes of the account. You can send the header
  with every request, but an invalid token gets 401 even on routes that need none, except
  on POST /register, /login and /token/refresh and GET /health, /ready and /metrics, which ignore it. Other schemes
  (Basic) are ignored. A lost password cannot be reset by e-mail: the operator sets a new one.
* **Quotas** are listed below. Every request counts, also one with a 304 or a 422, or a successful login; expensive
  requests count as several, which their routes document, but at most as the whole quota: such a request passes only if
  nothing else was asked in that window. Requests that get 429 count as none. /health, /ready, /metrics and this page
  are free; /openapi.json and the web catalogue are not. POST /login, /register and /password and DELETE /account count
  only against their own quotas. Windows are sliding: no more than the quota passes in any period of that length.
  `RateLimit-Policy` and `RateLimit` show your state for each quota that the request counted against; quotas of wrong
  passwords, new accounts and refreshes appear only when they are exhausted. A request over a quota gets 429:
  `violated-policies` names the quota, and `Retry-After` says when to try again. While a quota of wrong passwords is
  exhausted, the right password is rejected as well.
* **Limits**: pages and lists have 1 to 100 items; batches have up to 100 books or events. Bodies have up to
  {MAX_BODY_BYTES // 1024} KiB, URLs {MAX_ADDRESS_BYTES // 1024} KiB, headers {MAX_HEADER_BYTES // 1024} KiB. A request
  must arrive within 10 seconds, its body within 30, or the connection is closed without a response; so is a connection
  without a request for 75 seconds. A path with a slash at its end redirects (307) to the one without.
  Ids go up to 2^53 - 1. A request may take 4 seconds for its books; statistics, categories, facets and popular books
  may wait and count for up to 60 seconds in a very large catalogue; an export may take 15 minutes. A client that reads
  less than 1 KiB/s of a response is disconnected after 30 seconds.
  Exports: one at a time per account, and a few in all; see GET /books/export.
* **Methods**: HEAD works wherever GET does, with the same headers. A method that a path does not have gets 405, and the
  header `Allow` names those that it has.
* **Browsers**: scripts of other web sites can call this API only if the operator lists their origin (CORS). They may
  then read every header that is documented here, and send `Authorization`. Cookies are never used.
* **Unknown parameters** and unknown JSON fields get 422 on every route, so that a misspelt filter does not go
  unnoticed. So does a query parameter that is sent twice, unless it is a list (`exclude=7&exclude=8`); of a repeated
  field of a form or of JSON, the last one counts. Values are not looked up: a
  category or source that does not exist, or a minimum above the maximum, gets an empty list.
* **Gateway**: a gateway in front of this API may respond itself: 421 for another host name than the service's, 429 and
  503 as below, all as problems without `instance`. It closes the connection without a response if a request takes more
  than 10 seconds to arrive. It answers /ready with the status only (204 or 503), and does not expose /metrics.
* **Errors** are `application/problem+json` (RFC 9457) on every route. `detail` is for developers, `type` for programs:
  it is `tag:bookclub,2026:` and one of the kinds below, or `about:blank` if the status says everything. In a 422,
  `errors` lists every fault, each with a stable `code`; unknown parameters come first, alone.

"""

_COUNTED = {
    "anonymous": "requests without a valid token, by address",
    "account": "requests with a token, by account",
    "address": "requests with a token, by address, all accounts together",
    "login": "POST /login, POST /password and DELETE /account, by address",
    "register": "new accounts, by address",
    "register-tries": "POST /register, by address",
    "login-name": "wrong passwords for one name from one address",
    "login-address": "wrong passwords from one address, for all names",
    "login-anywhere": "wrong passwords for one name from all addresses; further ones count against `login-strained`",
    "login-strained": "wrong passwords for one name from one address, once `login-anywhere` is exhausted",
    "refresh": "new token pairs of one session",
    "feedback": "events sent to POST /feedback, repeated ones included, by account; the request itself counts against "
    "`account`",
}

_TO_DO = {
    400: "fix the request",
    401: "`expired-token`, `invalid-token`: refresh the token. `wrong-credentials`: ask the user. Otherwise log in",
    403: "`insufficient-scope`: log in again for that scope, if GET /account lists it. `wrong-password`, "
    "`weak-password`: ask the user. "
    "Otherwise contact the operator",
    404: "do not retry: it does not exist",
    405: "use a method from the header `Allow`",
    409: "the request conflicts with the present state; `detail` says what to do",
    413: "send a smaller body",
    414: "send a shorter URL; POST /recommendations:batch accepts a longer `exclude`",
    415: "send the content type that the route accepts, uncompressed",
    422: "fix the request: `errors` names every fault",
    431: "send smaller headers",
    429: "retry after `Retry-After` seconds",
    500: "a bug of the server, in its log under `X-Request-ID`: contact the operator",
    501: "not available on this server: request something else",
    503: "retry after `Retry-After` seconds; it is temporary",
}


def description(settings: Settings) -> str:
    """The text, as Markdown, with the quotas of these settings."""
    quotas = [_quota_row(quota) for quota in policies.every(settings).values()]
    problems = [_problem_row(status) for status in _TO_DO]
    return "\n".join(
        [
            _GENERAL + "| quota | counts | limit | window |",
            "|---|---|---|---|",
            *quotas,
            "",
            "By address: an IPv6 /64 counts as one address.",
            "",
            "| status | kinds | what to do |",
            "|---|---|---|",
            *problems,
            "",
        ]
    )


def _quota_row(quota: Quota) -> str:
    most = f"{quota.amount:,} | {quota.window_s:,} s" if quota.amount else "no limit | "
    return f"| `{quota.name}` | {_COUNTED[quota.name]} | {most} |"


def _problem_row(status: int) -> str:
    kinds = ", ".join(f"`{kind}`" for kind, of in KINDS.items() if of.status == status and not of.is_for_readers)
    return f"| {status} {phrase(status)} | {kinds} | {_TO_DO[status]} |"
