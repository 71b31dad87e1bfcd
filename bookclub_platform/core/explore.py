"""Schema `bookclub` -> the figures behind the catalogue report and the plots, as read-only statements.

All cover listed books unless they say otherwise; some only the `chosen` ones, a condition on `books`. Postgres does the
counting. Only the few numbers per book that a distribution needs are returned row by row, so that a million books fit
in some tens of megabytes.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from bookclub_platform.core.tables import IS_LISTED, book_observations, books, rejected_books

DAYS = 60
ALL = sa.true()
_RULE = rejected_books.c.rule
_CHARACTERS = sa.func.coalesce(sa.func.char_length(books.c.description), 0)


def select_currencies(chosen: sa.ColumnElement[bool] = ALL) -> sa.Select[Any]:
    """(currency, books), the most frequent first."""
    return (
        sa.select(books.c.currency, sa.func.count().label("books"))
        .where(IS_LISTED, chosen)
        .group_by(books.c.currency)
        .order_by(sa.desc("books"), books.c.currency)
    )


def select_numbers(currency: str, chosen: sa.ColumnElement[bool] = ALL) -> sa.Select[Any]:
    """(price, rating, stock, characters) of every book; price is null in another currency; characters 0: no text."""
    price = sa.case((books.c.currency == currency, sa.cast(books.c.price, sa.Double)))
    return sa.select(price.label("price"), books.c.rating, books.c.stock, _CHARACTERS.label("characters")).where(
        IS_LISTED, chosen
    )


def select_overview() -> sa.Select[Any]:
    """One row: listed, delisted, in_stock, categories, sources, first_seen_at, last_seen_at; and the numbers of
    observations and rejected pages."""
    return sa.select(
        sa.func.count().filter(IS_LISTED).label("listed"),
        sa.func.count().filter(sa.not_(IS_LISTED)).label("delisted"),
        sa.func.count().filter(IS_LISTED, books.c.in_stock).label("in_stock"),
        sa.func.count(books.c.category.distinct()).filter(IS_LISTED).label("categories"),
        sa.func.array_agg(books.c.source.distinct()).filter(IS_LISTED).label("sources"),
        sa.func.min(books.c.first_seen_at).label("first_seen_at"),
        sa.func.max(books.c.last_seen_at).label("last_seen_at"),
        sa.select(sa.func.count()).select_from(book_observations).scalar_subquery().label("observations"),
        sa.select(sa.func.count()).select_from(rejected_books).scalar_subquery().label("rejected"),
    )


def select_missing() -> sa.Select[Any]:
    """One row: for each column that may be empty, how many books have no value."""
    optional = [column for column in books.columns if column.nullable and column.name != "delisted_at"]
    counts: list[Any] = [sa.func.count().filter(column.is_(None)).label(column.name) for column in optional]
    return sa.select(*counts).where(IS_LISTED)


def select_category_figures(currency: str) -> sa.Select[Any]:
    """One row per category, largest first: category, category_name, books, books_in_stock, median_price, mean_rating,
    without_description."""
    prices = sa.cast(books.c.price, sa.Double)
    return (
        sa.select(
            books.c.category,
            sa.func.min(books.c.category_name).label("category_name"),
            sa.func.count().label("books"),
            sa.func.count().filter(books.c.in_stock).label("books_in_stock"),
            sa.func.percentile_cont(0.5)
            .within_group(sa.case((books.c.currency == currency, prices)))
            .label("median_price"),
            sa.cast(sa.func.avg(books.c.rating), sa.Double).label("mean_rating"),
            sa.func.count().filter(_CHARACTERS == 0).label("without_description"),
        )
        .where(IS_LISTED)
        .group_by(books.c.category)
        .order_by(sa.desc("books"), books.c.category)
    )


def select_by_text(is_longest: bool, limit: int) -> sa.Select[Any]:
    """(id, title, category_name, url, characters) of the books with the longest descriptions, or the shortest."""
    order = _CHARACTERS.desc() if is_longest else _CHARACTERS.asc()
    return (
        sa.select(books.c.id, books.c.title, books.c.category_name, books.c.url, _CHARACTERS.label("characters"))
        .where(IS_LISTED)
        .order_by(order, books.c.id)
        .limit(limit)
    )


def select_repeated(column: str, limit: int) -> sa.Select[Any]:
    """(text, books, ids) of values of `column` ("title", "description") that several books share, the most frequent
    first."""
    value = books.c[column]
    return (
        sa.select(
            sa.func.min(sa.func.left(value, 200)).label("text"),
            sa.func.count().label("books"),
            sa.func.array_agg(books.c.id)[1:5].label("ids"),
        )
        .where(IS_LISTED, value.is_not(None))
        .group_by(sa.func.md5(value))
        .having(sa.func.count() > 1)
        .order_by(sa.desc("books"), "text")
        .limit(limit)
    )


def select_price_days(currency: str, chosen: sa.ColumnElement[bool] = ALL) -> sa.Select[Any]:
    """(day, books, changed, low, median, high) of the newest days with sightings, oldest first: the quartiles of the
    prices seen, and how many differ from that book's previous sighting. Includes books that were delisted later."""
    before = sa.func.lag(book_observations.c.price).over(
        partition_by=book_observations.c.book_id, order_by=book_observations.c.seen_at
    )
    seen = (
        sa.select(
            sa.func.date(sa.func.timezone("UTC", book_observations.c.seen_at)).label("day"),
            sa.cast(book_observations.c.price, sa.Double).label("price"),
            (book_observations.c.price != before).label("is_changed"),
        )
        .join(books, books.c.id == book_observations.c.book_id)
        .where(books.c.currency == currency, chosen)
        .subquery()
    )

    def quartile(share: float) -> sa.WithinGroup[Any]:
        return sa.func.percentile_cont(share).within_group(seen.c.price)

    newest = (
        sa.select(
            seen.c.day,
            sa.func.count().label("books"),
            sa.func.count().filter(seen.c.is_changed).label("changed"),
            quartile(0.25).label("low"),
            quartile(0.5).label("median"),
            quartile(0.75).label("high"),
        )
        .group_by(seen.c.day)
        .order_by(seen.c.day.desc())
        .limit(DAYS)
        .subquery()
    )
    return sa.select(newest).order_by(newest.c.day)


def select_price_moves(limit: int) -> sa.Select[Any]:
    """(id, title, url, currency, first, last, ratio) of the books whose price is furthest from their first one."""
    first = (
        sa.select(book_observations.c.book_id, book_observations.c.price.label("first"))
        .distinct(book_observations.c.book_id)
        .order_by(book_observations.c.book_id, book_observations.c.seen_at)
        .subquery()
    )
    ratio = sa.cast(books.c.price / sa.func.nullif(first.c.first, 0), sa.Double)
    return (
        sa.select(
            books.c.id,
            books.c.title,
            books.c.url,
            books.c.currency,
            first.c.first,
            books.c.price.label("last"),
            ratio.label("ratio"),
        )
        .join(first, first.c.book_id == books.c.id)
        .where(IS_LISTED, books.c.price != first.c.first)
        .order_by(sa.func.abs(sa.func.ln(sa.func.nullif(ratio, 0))).desc().nulls_last(), books.c.id)
        .limit(limit)
    )


def select_last_crawls() -> sa.Select[Any]:
    """(source, category, crawled_at, seen, seen_before, rejected) of each category that has books, so not of retired
    ones: how many books its last crawl saw, how many the previous one saw (null: there was none), and how many pages
    have been rejected since the last crawl."""
    crawls = (
        sa.select(
            books.c.source,
            books.c.category,
            book_observations.c.crawl_id,
            sa.func.max(book_observations.c.seen_at).label("crawled_at"),
            sa.func.count().label("seen"),
        )
        .join(books, books.c.id == book_observations.c.book_id)
        .group_by(books.c.source, books.c.category, book_observations.c.crawl_id)
        .subquery()
    )

    def beside(neighbour: sa.FunctionElement[int]) -> sa.Over[int]:
        return neighbour.over(partition_by=[crawls.c.source, crawls.c.category], order_by=crawls.c.crawled_at)

    ranked = sa.select(
        *crawls.c,
        beside(sa.func.lag(crawls.c.seen)).label("seen_before"),
        beside(sa.func.lead(crawls.c.seen)).label("seen_after"),
    ).subquery()
    rejected = (
        sa.select(sa.func.count())
        .where(
            rejected_books.c.source == ranked.c.source,
            rejected_books.c.category == ranked.c.category,
            rejected_books.c.crawl_id >= ranked.c.crawl_id,  # a later crawl may have had rejected pages only
        )
        .scalar_subquery()
    )
    is_alive = sa.exists().where(IS_LISTED, books.c.source == ranked.c.source, books.c.category == ranked.c.category)
    return (
        sa.select(
            ranked.c.source,
            ranked.c.category,
            ranked.c.crawled_at,
            ranked.c.seen,
            ranked.c.seen_before,
            rejected.label("rejected"),
        )
        .where(ranked.c.seen_after.is_(None), is_alive)
        .order_by(sa.func.coalesce(ranked.c.seen - ranked.c.seen_before, 0), ranked.c.crawled_at, ranked.c.category)
    )


def select_rejects_by_rule() -> sa.Select[Any]:
    """(rule, pages, crawls, last_seen_at) of all pages ever rejected, the most frequent rule first."""
    return (
        sa.select(
            _RULE.label("rule"),
            sa.func.count().label("pages"),
            sa.func.count(rejected_books.c.crawl_id.distinct()).label("crawls"),
            sa.func.max(rejected_books.c.seen_at).label("last_seen_at"),
        )
        .group_by("rule")
        .order_by(sa.desc("pages"), "rule")
    )


def select_newest_rejects(limit: int) -> sa.Select[Any]:
    """(source, category, reason, url, raw_page, seen_at) of rejected pages, the newest first."""
    names = ["source", "category", "reason", "url", "raw_page", "seen_at"]
    chosen = sa.select(*(rejected_books.c[name] for name in names))
    return chosen.order_by(rejected_books.c.seen_at.desc(), rejected_books.c.url).limit(limit)
