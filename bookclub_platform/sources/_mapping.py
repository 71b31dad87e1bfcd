"""A row of a foreign table -> RawBook, by a mapping of fields: shared by the kinds whose rows we do not define.

fields: {title: Title, price: price.amount, source_id: isbn}    # ours: theirs; a dotted path leads into objects
constants: {currency: USD}                                      # used if a row has no value
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self
from urllib.parse import urljoin, urlsplit

from pydantic import model_validator

from bookclub_platform.core.book import Category, RawBook, slug_of
from bookclub_platform.sources._config import OurCategory, SourceConfig, _Strict, ours
from bookclub_platform.sources._contract import RejectedRow

_KEYS = ("source_id", "upc", "url")


class FieldMap(_Strict):
    """Field of ours -> column or dotted path of theirs; as constants: field of ours -> text."""

    source_id: str | None = None
    upc: str | None = None
    url: str | None = None
    title: str | None = None
    price: str | None = None
    currency: str | None = None
    category: str | None = None
    rating: str | None = None
    availability: str | None = None
    description: str | None = None
    num_reviews: str | None = None
    image_url: str | None = None

    def named(self) -> dict[str, str]:
        return self.model_dump(exclude_none=True)


class RowsConfig(SourceConfig):
    """What kinds with foreign rows have in common."""

    has_categories = False

    fields: FieldMap
    constants: FieldMap = FieldMap()
    decimal: str = "."

    @model_validator(mode="after")
    def _is_enough(self) -> Self:
        if self.fields.title is None:
            raise ValueError("fields: title is missing")
        if self.fields.price is None and self.constants.price is None:
            raise ValueError("fields: price is missing")
        if not any(getattr(self.fields, key) for key in _KEYS):
            raise ValueError(f"fields: one of {', '.join(_KEYS)} is needed, to know a book again")
        if self.decimal not in {".", ","}:
            raise ValueError('decimal: must be "." or ","')
        return self


@dataclass(frozen=True, slots=True)
class RowReader:
    """Rows of one source -> RawBook or RejectedRow."""

    source: str
    fields: dict[str, str]
    constants: dict[str, str]
    decimal: str
    categories: Mapping[str, OurCategory]

    @classmethod
    def of(cls, config: RowsConfig) -> RowReader:
        return cls(
            config.name, config.fields.named(), config.constants.named(), config.decimal, dict(config.categories)
        )

    def whole(self, address: str) -> Category:
        """The category that stands for the whole source, and for rows that name none."""
        return Category(slug_of(self.source), self.source.replace("_", " ").capitalize(), address)

    def read(self, row: Any, place: str, page_url: str, fragment: str, seen_at: datetime) -> RawBook | RejectedRow:
        """One row.

        Args:
            row: field -> value; anything else is rejected.
            place: such as "line 12", for people; `fragment`: the same as a fragment of the page's address.
        """
        where = f"{page_url.partition('#')[0]}#{fragment}"
        if not isinstance(row, Mapping):
            return RejectedRow(where, f"{place}: is no row with fields, but {type(row).__name__}")
        read = {field: as_text(at(row, path)) for field, path in self.fields.items()}
        found = self.constants | {field: text for field, text in read.items() if text is not None}
        lacking = [field for field in ("title", "price") if field not in found]
        if not any(key in found for key in _KEYS):
            lacking.append(" or ".join(key for key in _KEYS if key in self.fields))
        if lacking:
            return RejectedRow(where, f"{place}: has no {', no '.join(lacking)}")
        name = found.get("category", "")
        whole = self.whole(page_url)
        slug, category_name = ours(self.categories, name) or (whole.slug, whole.name)
        price = found["price"]
        return RawBook(
            source=self.source,
            url=_link(page_url, found.get("url")) or where,
            category=slug,
            category_name=category_name,
            upc=found.get("upc"),
            title=found["title"],
            price=price if self.decimal == "." else price.translate(str.maketrans(",.", ".,")),
            rating=found.get("rating"),
            availability=found.get("availability"),
            description=found.get("description"),
            num_reviews=found.get("num_reviews"),
            image_url=_link(page_url, found.get("image_url")),
            seen_at=seen_at,
            source_id=found.get("source_id"),
            currency=found.get("currency"),
        )


def at(value: Any, path: str) -> Any:
    """The value at `path`, None if there is none: a field of exactly that name, else step by step; "" is `value`."""
    if isinstance(value, Mapping) and path in value:
        return value[path]
    for step in path.split(".") if path else ():
        if isinstance(value, Mapping):
            value = value.get(step)
        elif isinstance(value, list) and step.isdecimal() and int(step) < len(value):
            value = value[int(step)]
        else:
            return None
    return value


def as_text(value: Any) -> str | None:
    """The text of a cell; None for an empty one, and for anything but a plain value or a list of these."""
    if isinstance(value, list):
        value = ", ".join(text for item in value if (text := as_text(item)))
    if value is None or isinstance(value, Mapping) or (isinstance(value, float) and not math.isfinite(value)):
        return None
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # a column with gaps is read as floats: 22.0 copies, ISBN 9780000000000.0
    return str(value).strip() or None


def _link(page_url: str, link: str | None) -> str | None:
    """The absolute web address; None for other schemes, such as `javascript:`, since people will click on it."""
    if link is None:
        return None
    try:
        url = urljoin(page_url, link)
        return url if urlsplit(url).scheme in {"http", "https"} and urlsplit(url).hostname else None
    except ValueError:
        return None
