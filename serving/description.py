"""Settings -> what /docs says before all routes: what holds for each, the quotas, and every kind of problem with what
to do about it."""

from __future__ import annotations

from bookclub_platform.core.settings import Settings
from serving import policies
from serving.problems import KINDS, phrase
from serving.quotas import Quota
from serving.sizes import MAX_ADDRESS_BYTES, MAX_BODY_BYTES, MAX_HEADER_BYTES

_GENERAL = f"""
Books from a shop, and for each of them the books most like it, with the reasons.

* **Paging**: take `next` of a page as `cursor` of the next one, with the same filters and order, until it is null.
* **Versions**: answers about books carry the headers `Bookclub-Data-Version` and `Bookclub-Model`. One answer is always
  of one data version and one model; the model may change between two requests, without an interruption. After books
  have changed, an answer may be of the version before for a second (of 20,000 books and more, for 20 at most), though
  another address was answered of the newer one already.
* **Caching**: answers that may be 304 (see each route) carry an `ETag`. Send it as `If-None-Match`, and 304 says that
  nothing changed: what you have still holds. GET /books/popular may be kept for a minute instead (`max-age=60`). What
  is about an account, and every problem, is for no cache (`no-store`).
* **Packing**: answers of 1,000 bytes or more are packed with gzip (not br, not zstd) for who sends `Accept-Encoding:
  gzip`. Clients that send it by themselves unpack as well; if you set that header, unpack the answer yourself. Requests
  are taken unpacked alone: one with `Content-Encoding` is answered 415.
* **Times** are in UTC and as RFC 3339 writes them, with up to six decimals of a second. **Prices** are numbers in units
  of their currency, not in hundredths. **Null** says that something is not known; no field of an answer is left out.
  **Whole numbers** are of 32 or 64 bits, as their `format` says; ids always of 64.
* **All books at once**: GET /books/export, as ndjson, csv or parquet. `examples/analysis.py` of the project reads it
  into pandas.
* **Accounts**: POST /register or /login begins a session of 30 days, and gives a token for the header `Authorization:
  Bearer ...`. It is good for ten minutes; /token/refresh takes the refresh token that came with it for the next pair.
  You may send the header with every request. Where a token that is not good is sent, the answer is 401 even if none is
  needed, but for POST /register, /login and /token/refresh, and GET /health, /ready and /metrics, which do not look at
  it. Other schemes than Bearer (Basic) are passed over, as if nothing had been sent.
* **Quotas** are listed below. A request counts against one of them, whatever comes of it: a 304 or a login that
  succeeds does too. What costs more counts as several requests: its route says so. /health, /ready, /metrics and this
  page have none. No more than so many pass in any window of that length, wherever it begins. `RateLimit-Policy` and
  `RateLimit` say how you stand with each quota that the answer counted against; those of wrong passwords are in them
  only where they are spent. Beyond a quota the answer is 429: `violated-policies` names it, `RateLimit` tells of it,
  and `Retry-After` says when to come back. While one of wrong passwords is spent, the right password is refused as
  well.
* **Limits**: pages and lists of 1 to 100; 100 books or events in a batch; bodies of {MAX_BODY_BYTES // 1024} KiB,
  addresses of {MAX_ADDRESS_BYTES // 1024} KiB, headers of {MAX_HEADER_BYTES // 1024} KiB;
  ids up to 2^53 - 1; a question may take the database 3 seconds, figures over all books 30 seconds, an export
  15 minutes. A few exports run at a time, one of each account: GET /books/export says who has to wait or to give way.
* **HEAD** answers wherever GET does, with the same headers.
* **Unknown** parameters and fields of JSON are refused (422) on every route, so that a misspelt filter is not passed
  over; and so is a parameter that comes twice, unless it is a list (`exclude`).
* **A gateway** in front of this may refuse by itself: 421 asked by another name than the service's, 429 and 503 as
  below, all as problems without `instance`; a request that takes it more than 10 seconds to come is ended without an
  answer. It answers /ready with the status alone (204 or 503), and not /metrics.
* **Errors** are `application/problem+json` (RFC 9457), whatever the route: read `detail`; tell kinds apart by `type`,
  which is `tag:bookclub,2026:` and one of the kinds below, or `about:blank` where the status says it all. Of a 422,
  `errors` names what is wrong, with a `code` for each that stays as it is.

"""

_COUNTED = {
    "anonymous": "requests without a token, by address",
    "account": "requests with a token, by account",
    "address": "requests with a token, by address, whatever the accounts",
    "login": "POST /login and /password and DELETE /account, by address",
    "register": "accounts that are made, by address",
    "register-tries": "POST /register, by address",
    "login-name": "wrong passwords at one name from one address",
    "login-address": "wrong passwords from one address, at whatever names",
    "login-anywhere": "wrong passwords at one name, wherever from; those beyond count against `login-strained`",
    "login-strained": "wrong passwords beyond `login-anywhere` at one name from one address",
    "feedback": "events told by POST /feedback, told again or not, by account; the request itself counts against "
    "`account`",
}

_TO_DO = {
    400: "mend the request",
    401: "`expired-token`, `invalid-token`: refresh the token. `wrong-credentials`: ask again. Else log in",
    403: "`insufficient-scope`: use an account that has it. `weak-password`: ask for another. Else ask the operator",
    404: "there is no such thing: asking again soon does not help",
    405: "ask by a method that the header `Allow` names",
    409: "something else holds by now; `detail` says what to do",
    413: "send less",
    414: "send less: POST /recommendations:batch takes a longer `exclude`",
    415: "send the body as the kind that the route takes, and unpacked",
    422: "mend the request: `errors` names each parameter",
    431: "send less in headers",
    429: "ask again after `Retry-After` seconds",
    500: "the server's fault, which its log describes under `X-Request-ID`: tell the operator",
    501: "the server's lack: ask for something else",
    503: "ask again after `Retry-After` seconds: it heals by itself",
}


def description(settings: Settings) -> str:
    """The text, as Markdown, with the quotas of these settings."""
    quotas = [_quota_row(quota) for quota in policies.every(settings).values()]
    problems = [_problem_row(status) for status in _TO_DO]
    return "\n".join(
        [
            _GENERAL + "| quota | counts | at most | in any |",
            "|---|---|---|---|",
            *quotas,
            "",
            "By address: of IPv6 the /64.",
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
