"""RawBook (as found) -> Book (as stored), or RejectedBook with the reason: small pure steps, in the order of `_book`.

    cleaned = clean(raw_books)        # cleaned.books, cleaned.rejected, cleaned.applied

A row that breaks a rule of core/book.py is rejected under the rule's name; a row without title, price or key always
is. Any other unreadable field becomes None, and the row is kept. Changes and losses are counted by description.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from decimal import ROUND_HALF_UP, Decimal

from bookclub_platform.core.book import LONGEST_KEY, Book, RawBook, RejectedBook
from bookclub_platform.core.rules import KEY_UNIQUE, PRICE_READABLE, Rule, broken_rule, shortened

CURRENCIES = {"£": "GBP", "€": "EUR", "$": "USD"}
RATINGS = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5}

_PRICE = re.compile(r"([£€$]|[A-Z]{3})?([0-9]{1,8}|[0-9]{1,3}(?:,[0-9]{3}){1,2})(\.[0-9]{1,2})?([£€$]|[A-Z]{3})?")
_CURRENCY = re.compile(r"[A-Z]{3}")
_STARS = re.compile(r"[1-5](\.[0-9]+)?")
_COUNT = re.compile(r"[0-9]{1,9}")
_STOCK = re.compile(r"in stock(?: \(([0-9]{1,9}) available\))?|available|yes|true|([0-9]{1,9})", re.IGNORECASE)
_NO_STOCK = re.compile(r"out of stock|unavailable|not available|no|false|0+", re.IGNORECASE)
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")  # Postgres stores neither NUL nor lone surrogates

_MORE = "...more"
# In letters, digits and punctuation; the shop's own leads have about 310 (375 characters with spaces and symbols).
_SHORTEST_LEAD, _LONGEST_LEAD = 40, 1000
_LONGEST_SHOWN = 400  # bytes of a value in a reason


@dataclass(slots=True)
class Cleaned:
    """The result for the rows: each is in `books` or in `rejected`. `applied` counts the changes by description."""

    books: list[Book] = field(default_factory=list)
    rejected: list[RejectedBook] = field(default_factory=list)
    applied: Counter[str] = field(default_factory=Counter)


class _Refused(Exception):
    """The row breaks `rule`; the text says with which value."""

    def __init__(self, rule: Rule, reason: str) -> None:
        super().__init__(reason)
        self.rule = rule


def clean(raw_books: Iterable[RawBook]) -> Cleaned:
    """Clean rows of one shop and category."""
    cleaned = Cleaned()
    seen: dict[tuple[str, str], str] = {}
    for raw in raw_books:
        try:
            book = _book(raw, cleaned.applied)
            other = seen.get((book.source, book.source_id))
            if other not in {None, book.url}:
                raise _Refused(KEY_UNIQUE, f"key: {book.source_id!r} is that of {other} too")
        except _Refused as error:
            where = raw.source, raw.category, shortened(_UNSTORABLE.sub("", raw.url), LONGEST_KEY)
            rejected = RejectedBook(*where, str(error), raw.seen_at, raw.raw_page, error.rule.name)
            cleaned.rejected.append(rejected)
        else:
            if other is None:
                cleaned.books.append(book)
            else:
                cleaned.applied["row: the same page once more, left out"] += 1
            seen[book.source, book.source_id] = book.url
    return cleaned


def _book(found: RawBook, applied: Counter[str]) -> Book:
    """Clean one row. Raises _Refused if it breaks a rule."""
    raw = storable(found, applied)
    amount = price(raw.price or "", raw.currency)
    if amount is None:
        currency = f" in {found.currency!r}" if found.currency and found.price else ""
        raise _Refused(PRICE_READABLE, _shown("price", found.price) + currency)
    upc = (raw.upc or "").strip() or None
    if upc is None and raw.source_id is None:
        applied["upc: none, the address is the key"] += 1
    availability = stock(raw.availability or "")
    if availability is None:
        applied["availability: unreadable, taken as not in stock"] += 1
    copies, in_stock = availability or (None, False)
    book = Book(
        source=raw.source,
        source_id=raw.source_id or upc or raw.url,
        upc=upc,
        title=(raw.title or "").strip(),
        category=raw.category,
        category_name=raw.category_name or raw.category,
        price=amount[0],
        currency=amount[1],
        rating=_or_none("rating", raw.rating, rating(raw.rating or ""), applied),
        stock=copies,
        in_stock=in_stock,
        description=description(raw.description or "", applied),
        num_reviews=_or_none("num_reviews", raw.num_reviews, count(raw.num_reviews or ""), applied),
        url=raw.url,
        image_url=raw.image_url,
        seen_at=raw.seen_at,
    )
    rule = broken_rule(book)
    if rule is not None:
        raise _Refused(rule, "; ".join(_shown(name, getattr(found, name, None)) for name in rule.fields))
    return book


def _shown(name: str, value: object) -> str:
    return f"{name}: {shortened(repr(value), _LONGEST_SHOWN)}" if value else f"{name}: there is none"


def _or_none(name: str, found: str | None, value: int | None, applied: Counter[str]) -> int | None:
    if found is not None and value is None:
        applied[f"{name}: unreadable, left out"] += 1
    return value


def storable(raw: RawBook, applied: Counter[str]) -> RawBook:
    """`raw` without the characters that Postgres text cannot contain."""
    texts = {name: text for name in (f.name for f in fields(raw)) if isinstance(text := getattr(raw, name), str)}
    mended = {name: _UNSTORABLE.sub("", text) for name, text in texts.items() if _UNSTORABLE.search(text)}
    for name in mended:
        applied[f"{name}: characters that cannot be stored removed"] += 1
    return replace(raw, **mended)  # type: ignore[arg-type]


def price(text: str, currency: str | None = None) -> tuple[Decimal, str] | None:
    """(amount, ISO 4217 currency) of "£51.77", also if UTF-8 was decoded as Latin-1 ("Â£51.77"), of "51.77 USD", and of
    "51.77" if `currency` is given. A price in another currency than `currency` is unreadable."""
    match = _PRICE.fullmatch(re.sub(r"[\sÂ]", "", text))
    if match is None:
        return None
    before, whole, pence, after = match.groups()
    named = {CURRENCIES.get(sign, sign) for sign in (before, after, (currency or "").strip().upper()) if sign}
    if len(named) != 1 or not _CURRENCY.fullmatch(code := named.pop()):
        return None
    return Decimal(whole.replace(",", "") + (pence or "")).quantize(Decimal("0.01")), code


def rating(text: str) -> int | None:
    """The stars in "Three", "3" and "3.0"; a mean such as "3.87" is rounded."""
    shown = text.strip().lower()
    if _STARS.fullmatch(shown) and Decimal(shown) <= max(RATINGS.values()):
        return int(Decimal(shown).quantize(Decimal(1), ROUND_HALF_UP))
    return RATINGS.get(shown)


def count(text: str) -> int | None:
    """A count that fits a Postgres integer."""
    match = _COUNT.fullmatch(text.strip())
    return int(match[0]) if match else None


def stock(text: str) -> tuple[int | None, bool] | None:
    """(copies, is in stock) of "In stock (22 available)", "22", "yes"; copies is None if there is no count."""
    line = " ".join(text.split())
    if _NO_STOCK.fullmatch(line):
        return 0, False
    match = _STOCK.fullmatch(line)
    if match is None:
        return None
    count = match[1] or match[2]
    copies = int(count) if count else None
    return copies, copies != 0


def description(text: str, applied: Counter[str]) -> str | None:
    """The blurb as found, without the teaser that the shop puts before it; None if there is none."""
    if not text.strip():
        return None
    whole = _without_lead(text)
    if whole is not None:
        applied['description: repeated lead and "...more" removed'] += 1
    return whole or text


def _without_lead(text: str) -> str | None:
    """`whole` if `text` is "<lead> <whole> ...more" and `whole` begins with `lead`; else None.

    The shop's leads have lost spaces, no-break spaces, soft hyphens, byte order marks and symbols such as € that the
    whole still has, so only letters, digits and punctuation are compared. If several leads fit, the longest is taken.
    """
    shown = text.rstrip()
    if not shown.endswith(_MORE):
        return None
    shown = shown.removesuffix(_MORE)
    places = [at for at, sign in enumerate(shown) if unicodedata.category(sign)[0] in "LNPM"]
    spine = "".join(shown[at] for at in places)
    beginning = spine[:_SHORTEST_LEAD]
    best, length = None, spine.find(beginning, _SHORTEST_LEAD)
    while len(beginning) == _SHORTEST_LEAD and 0 < length <= min(len(spine) // 2, _LONGEST_LEAD):
        gap = shown.find(" ", places[length - 1], places[length])
        if gap >= 0 and spine.startswith(spine[:length], length):
            best = shown.rfind(" ", gap, places[length]) + 1
        length = spine.find(beginning, length + 1)
    return shown[best:].rstrip(" ") if best is not None else None
