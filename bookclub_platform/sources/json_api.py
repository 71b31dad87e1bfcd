"""A paginated JSON web API -> rows: each response is a page that holds rows and leads to the next page.

- name: partner
  kind: json_api
  address: https://api.example/books?limit=100
  items: data.books                            # dotted path to the list; if omitted, the response is the list
  total: meta.total                            # the number of items, if the API returns it
  next: {by: cursor, field: meta.next, parameter: cursor}
  fields: {source_id: id, title: title, price: price.amount, currency: price.currency, category: genre.name}
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from pydantic import Field

from bookclub_platform.core.book import Category, RawBook
from bookclub_platform.core.errors import PageRejected
from bookclub_platform.core.settings import Settings
from bookclub_platform.sources._config import _Strict
from bookclub_platform.sources._contract import CrawlFetcher, Listing, Page, PageFetcher, RejectedRow
from bookclub_platform.sources._links import joined
from bookclub_platform.sources._mapping import RowReader, RowsConfig, as_text, at
from bookclub_platform.sources._numbers import count_in
from bookclub_platform.sources._web import Web

_LINK = re.compile(r"<([^<>]*)>([^<]*)")


class ByPage(_Strict):
    """Page numbers in the query. The last page is told by `pages` (a path) or by fewer than `size` items, else by the
    first page without any."""

    by: Literal["page"]
    parameter: str = "page"
    first: int = 1
    pages: str | None = None
    size: Annotated[int | None, Field(gt=0)] = None


class ByCursor(_Strict):
    """The answer has a token at `field`, which goes into the query; none on the last page."""

    by: Literal["cursor"]
    field: str
    parameter: str = "cursor"


class ByUrl(_Strict):
    """The answer has the next page's address at `field`."""

    by: Literal["url"]
    field: str


class ByLinkHeader(_Strict):
    """The answer's Link header has it (RFC 8288, rel="next")."""

    by: Literal["link_header"]


Next = ByPage | ByCursor | ByUrl | ByLinkHeader


class Config(RowsConfig):
    """`next` left out: the API has one page."""

    kind: Literal["json_api"]
    items: str = ""
    total: str | None = None
    next: Annotated[Next, Field(discriminator="by")] | None = None


def build(config: Config, settings: Settings) -> JsonApi:
    web = Web.of(config, settings, is_whole=_is_whole)
    return JsonApi(
        config.name,
        config.address,
        config.items,
        config.total,
        config.next,
        RowReader.of(config),
        web,
    )


@dataclass(frozen=True, slots=True)
class JsonApi:
    """One list of an API."""

    name: str
    address: str
    items: str
    total: str | None
    next: Next | None
    reader: RowReader
    web: Web
    has_categories: bool = False

    def fetcher(self) -> AbstractContextManager[CrawlFetcher]:
        return self.web.open()

    def cover_fetcher(self) -> AbstractContextManager[PageFetcher]:
        return self.web.open()

    def categories(self, fetcher: PageFetcher) -> list[Category]:
        first = self.address
        if isinstance(self.next, ByPage):
            first = _with_query(first, self.next.parameter, str(self.next.first))
        return [self.reader.whole(first)]

    def listing(self, page: Page) -> Listing:
        answer = _answer(page)
        items = self._items(answer, page)
        return Listing(
            book_urls=(),
            next_url=self._next_url(answer, items, page),
            expected=count_in(as_text(at(answer, self.total))) if self.total else None,
            rows=len(items),
        )

    def rows(self, page: Page, category: Category) -> Iterator[RawBook | RejectedRow]:
        pointer = "".join(f"/{step}" for step in self.items.split(".")) if self.items else ""
        for number, item in enumerate(self._items(_answer(page), page)):
            yield self.reader.read(item, f"item {number}", page.url, f"{pointer}/{number}", page.fetched_at)

    def _items(self, answer: Any, page: Page) -> list[Any]:
        items = at(answer, self.items)
        if not isinstance(items, list):
            raise PageRejected(page.url, f"has no list at {self.items or 'its top'!r}, but {type(items).__name__}")
        return items

    def _next_url(self, answer: Any, items: list[Any], page: Page) -> str | None:
        match self.next:
            case ByPage() as how:
                return _next_number(how, answer, items, page)
            case ByCursor() as how:
                cursor = as_text(at(answer, how.field))
                try:
                    return _with_query(page.url, how.parameter, cursor) if cursor else None
                except UnicodeEncodeError as error:
                    raise PageRejected(page.url, f"has a cursor that fits no address: {error}") from error
            case ByUrl() as how:
                link = as_text(at(answer, how.field))
                return joined(page, link) if link else None
            case ByLinkHeader():
                return _linked_next(page)
            case _:
                return None


def _is_whole(page: Page) -> bool:
    """Whether a response that begins like JSON also ends like it; any other is left for the parser to reject."""
    body = page.body.strip()
    return not body.startswith((b"{", b"[")) or body.endswith((b"}", b"]"))


def _answer(page: Page) -> Any:
    try:
        return json.loads(page.body)
    except (ValueError, RecursionError) as error:
        raise PageRejected(page.url, f"is no JSON: {error}") from error


def _next_number(how: ByPage, answer: Any, items: list[Any], page: Page) -> str | None:
    number = count_in(dict(parse_qsl(urlsplit(page.url).query)).get(how.parameter, str(how.first)))
    pages = count_in(as_text(at(answer, how.pages))) if how.pages else None
    is_last = not items or (how.size is not None and len(items) < how.size)
    if number is None or is_last or (pages is not None and number - how.first + 1 >= pages):
        return None
    return _with_query(page.url, how.parameter, str(number + 1))


def _with_query(url: str, name: str, value: str) -> str:
    parts = urlsplit(url)
    query = [(key, text) for key, text in parse_qsl(parts.query, keep_blank_values=True) if key != name]
    return urlunsplit(parts._replace(query=urlencode([*query, (name, value)])))


def _linked_next(page: Page) -> str | None:
    for name, value in page.headers:
        for url, parameters in _LINK.findall(value) if name.lower() == "link" else ():
            if "next" in _relations(parameters):
                return joined(page, str(url))
    return None


def _relations(parameters: str) -> list[str]:
    """["prev", "next"] of `; title=x; rel="prev next", `."""
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "rel":
            return value.strip(' \t",').lower().split()
    return []
