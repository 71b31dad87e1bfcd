"""Books of one crawl -> `books`, `book_observations`, `rejected_books`, `loads`: a crawl's writes to core/tables.py.

    with engine.begin() as connection:
        load_category(connection, "books_toscrape", "travel", crawl_id, books, rejected, crawled_at)

What happens to a book between two crawls, and how it ends:

    seen again, unchanged      last_seen_at and an observation; the data version stays
    price, stock, title ...    the row is updated; the observations keep the old values
    shares a title             two rows: the key is (source, source_id)
    vanishes                   delisted_at is set, only by a complete crawl of its category; no row is ever deleted
    comes back                 the same row, delisted_at is null again
    in two categories          it stays in the one that had it first, its home; `book_categories` keeps the others.
                               Every sighting counts, whichever category it came from
    its home lost it           it moves to the other category that saw it last; it is delisted only if there is none
    moves to another category  the same: at once if the new one is loaded first; else it is delisted until then
    an old crawl is loaded     what a newer one saw stays; the old crawl's observations are added
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from decimal import Decimal
from itertools import islice
from operator import attrgetter
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.schema import CreateTable

from bookclub_platform.core.book import Book, RejectedBook
from bookclub_platform.core.tables import (
    IS_LISTED,
    SCHEMA,
    book_categories,
    book_observations,
    books,
    loads,
    rejected_books,
    select_count,
)

# What a shop can change about a book; a difference in any of these is an update, anything else is only a sighting.
_KEY = ["source", "source_id"]
_CONTENT = [name for name in Book.__dataclass_fields__ if name not in {*_KEY, "seen_at"}]
_HOME = ["category", "category_name"]
# A crawl that finds less than this share of the category's books more likely met a broken shop than a sold-out one.
LEAST_SHARE = 0.8


def _temporary(name: str, columns: list[sa.Column[Any]]) -> sa.Table:
    return sa.Table(name, sa.MetaData(), *columns, prefixes=["TEMPORARY"], postgresql_on_commit="DELETE ROWS")


_ROW = ["last_seen_at" if name == "seen_at" else name for name in Book.__dataclass_fields__]
_SIGHTED = ["source_id", "last_seen_at", "price", "rating", "stock"]
# Rows that the table already holds unchanged carry their `book_id`, and otherwise only the sighted values.
_incoming = _temporary(
    "incoming", [sa.Column("book_id", sa.BigInteger), *(sa.Column(name, books.c[name].type) for name in _ROW)]
)
_known = _temporary(
    "known",
    [
        sa.Column("book_id", sa.BigInteger),
        *(sa.Column(name, books.c[name].type) for name in _SIGHTED),
        *(sa.Column(name, sa.Boolean) for name in ("differs", "is_away", "is_here")),
    ],
)


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What one load did to `books`, in rows.

    Attributes:
        updated: including those that moved to another category because this one no longer has them.
        is_shrunken: the crawl found so few of the category's books that it was not trusted, and nothing was delisted.
    """

    inserted: int
    updated: int
    unchanged: int
    delisted: int
    rejected: int
    is_shrunken: bool = False


def load_category(
    connection: sa.Connection,
    source: str,
    category: str | None,
    crawl_id: str,
    seen: Iterable[Book],
    rejected: Sequence[RejectedBook],
    crawled_at: datetime,
    is_complete: bool = True,
    least_share: float = LEAST_SHARE,
) -> LoadResult:
    """Update `books` to what one crawl saw of one category, or of the whole source if `category` is None and each row
    has its own. The load is idempotent. `seen` is iterated once, row by row.

    Call it inside a transaction: everything takes effect or nothing. Books of the category that a complete crawl did
    not see are marked as delisted. A book whose page was rejected was seen, so its last good row stays as it is. An
    incomplete crawl proves nothing about what it did not see, and delists nothing; nor does a crawl that found less
    than `least_share` of the category's books (0: a person has checked that the books are gone).
    """
    _take_turn(connection, source)
    listed = connection.execute(select_count(sa.select(books).where(_is_listed(source, category)))).scalar_one()
    rows = _stage(connection, source, seen, may_be_known=listed > 0)
    _match(connection, crawled_at, has_categories=category is not None)
    is_shrunken = rows + len(rejected) < least_share * listed
    count, differing, away, here = connection.execute(_COUNT).one()
    if differing:
        connection.execute(_UPDATE)
    newly_second = connection.execute(_NOTE_SECOND).scalars().all().count(True) if away else 0
    if count:
        connection.execute(_SIGHT)
        connection.execute(_observe(crawl_id))
    moved = delisted = ended = 0
    may_lack = here < listed or connection.scalar(_has_second(source, category))
    if is_complete and not is_shrunken and may_lack:
        # An anti-join: an IN would scan all values once per book.
        was_not_found = sa.not_(sa.exists().where(_known.c.book_id == books.c.id))
        was_not_rejected = books.c.url != sa.func.all(_texts([row.url for row in rejected]))
        is_unseen = sa.and_(was_not_found, was_not_rejected)
        moved, delisted, ended = _drop(connection, source, category, crawled_at, is_unseen)
    inserted = connection.execute(_insert(crawl_id)).rowcount if count < rows else 0
    if rejected:
        refused = [asdict(row) | {"crawl_id": crawl_id} for row in rejected]
        connection.execute(insert(rejected_books).on_conflict_do_nothing(), refused)
    updated, unchanged = differing + moved, count - differing
    _note_load(connection, source, category or source, crawl_id, inserted, updated + newly_second + ended, delisted)
    return LoadResult(inserted, updated, unchanged, delisted, len(rejected), is_shrunken)


def retire_category(
    connection: sa.Connection, source: str, category: str | None, crawl_id: str, gone_at: datetime
) -> int:
    """Delist every book of a category that the shop no longer has, or of a source (None) -> how many. Call it inside a
    transaction. A book that another category lists moves there; one that was seen after `gone_at` is not changed."""
    _take_turn(connection, source)
    moved, delisted, ended = _drop(connection, source, category, gone_at, sa.true())
    _note_load(connection, source, category or source, crawl_id, 0, moved + ended, delisted)
    return delisted


def relist_category(connection: sa.Connection, source: str, category: str, crawl_id: str, gone_at: datetime) -> int:
    """Undo the `retire_category` of `gone_at` -> how many books are listed again. Call it inside a transaction."""
    _take_turn(connection, source)
    is_of_it = sa.and_(books.c.source == source, books.c.category == category, books.c.delisted_at == gone_at)
    relisted = connection.execute(sa.update(books).where(is_of_it).values(delisted_at=None, updated_at=sa.func.now()))
    _note_load(connection, source, category, crawl_id, 0, relisted.rowcount, 0)
    return relisted.rowcount


_HAS_DOUBLED = sa.text(
    "SELECT pg_relation_size(oid) / 8192 > 2 * relpages FROM pg_class WHERE oid = 'bookclub.books'::regclass"
)


def _take_turn(connection: sa.Connection, source: str) -> None:
    """Serialise loads of one source until the transaction ends: a book may be in two of its categories."""
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtextextended(source, 0))))
    # Autovacuum runs once a minute; until then the planner takes a growing table for empty, and scans all of it.
    if connection.scalar(_HAS_DOUBLED):
        connection.execute(sa.text(f"ANALYZE {SCHEMA}.books (source, source_id, category, delisted_at)"))


def _stage(connection: sa.Connection, source: str, seen: Iterable[Book], may_be_known: bool) -> int:
    """Copy `seen` into a temporary table -> how many. Uses COPY: row-wise inserts are tens of times slower.

    For a book that has not changed, only the sighting is sent. Its text is nine tenths of the row, and would be
    written, read and compared for nothing; nearly all books of a nightly crawl are unchanged.
    """
    _empty(connection, _incoming)
    driver = connection.connection.driver_connection
    assert driver is not None
    whole, sighting = attrgetter(*Book.__dataclass_fields__), attrgetter("source_id", "seen_at", *_SIGHTED[2:])
    rows, walk = 0, iter(seen)
    with driver.cursor(binary=True) as cursor:
        while part := list(islice(walk, _AT_ONCE)):
            same = _unchanged(cursor, source, part) if may_be_known else {}
            narrow = [(same[book.source_id], *sighting(book)) for book in part if book.source_id in same]
            _copy(cursor, ["book_id", *_SIGHTED], narrow)
            _copy(cursor, _ROW, [whole(book) for book in part if book.source_id not in same])
            rows += len(part)
        cursor.execute("ANALYZE pg_temp.incoming (source_id, book_id)")  # autovacuum ignores temporary tables
    return rows


_AT_ONCE = 1000


def _copy(cursor: Any, names: list[str], rows: Sequence[tuple[Any, ...]]) -> None:
    if rows:
        with cursor.copy(f"COPY pg_temp.incoming ({', '.join(names)}) FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)


def _unchanged(cursor: Any, source: str, part: Sequence[Book]) -> Mapping[str, int]:
    """Key -> id of those books that are listed with exactly this content, compared by its SHA-256."""
    held = cursor.execute(_HELD, (source, [book.source_id for book in part]))
    known = {key: (book_id, digest) for key, book_id, digest in held}
    return {
        key: known[key][0]
        for book in part
        if (key := book.source_id) in known and known[key][1] == hashlib.sha256(_content(book).encode()).digest()
    }


def _content(book: Book) -> str:
    """The content as _HELD writes a row of the table. Each value is prefixed with its length, so that different rows
    never give the same text."""
    texts = [value if isinstance(value, str) else _text(value) for value in _content_of(book)]
    return "".join(["-" if text is None else f"{len(text)}:{text}" for text in texts])


def _text(value: object) -> str | None:
    """The value as Postgres would write it; one in another form than the table's is later compared as a whole row."""
    if isinstance(value, Decimal):
        return f"{value:.2f}"
    return str(value).lower() if isinstance(value, bool) else None if value is None else str(value)


_content_of = attrgetter(*_CONTENT)
_PARTS = " || ".join(f"coalesce(length({name}::text) || ':' || {name}::text, '-')" for name in _CONTENT)
_HELD = f"""
    SELECT source_id, id, sha256(convert_to({_PARTS}, 'UTF8'))
    FROM {SCHEMA}.books WHERE source = %s AND source_id = ANY(%s) AND delisted_at IS NULL
"""  # noqa: S608 (the names are ours)


def _empty(connection: sa.Connection, table: sa.Table) -> None:
    """Create the table once per session, since Postgres writes a catalogue row for each column. Empty it, since two
    loads may share a transaction, and the second would find the rows of the first."""
    connection.execute(CreateTable(table, if_not_exists=True))
    connection.execute(sa.delete(table))


def _match(connection: sa.Connection, crawled_at: datetime, has_categories: bool) -> None:
    """Fill `known` with the rows of `incoming` whose key is in the table, only the sighted columns, with flags for what
    to do about each."""
    on_key = sa.and_(*(books.c[name] == _incoming.c[name] for name in _KEY))
    is_elsewhere = books.c.category != _incoming.c.category if has_categories else sa.false()
    is_away = sa.and_(is_elsewhere, IS_LISTED)
    # That the crawl of one category did not find a book does not contradict an even earlier sighting in another.
    comes_back = sa.and_(books.c.delisted_at.is_not(None), sa.or_(books.c.delisted_at <= crawled_at, is_elsewhere))
    names = [name for name in _CONTENT if name not in _HOME]
    has_new_content = sa.or_(
        _row(books.c, names).is_distinct_from(_row(_incoming.c, names)),
        sa.and_(sa.not_(is_away), _row(books.c, _HOME).is_distinct_from(_row(_incoming.c, _HOME))),
    )
    is_current = sa.and_(IS_LISTED, books.c.last_seen_at <= _incoming.c.last_seen_at)
    is_here = sa.and_(IS_LISTED, sa.not_(is_elsewhere))
    sighted = [_incoming.c[name] for name in _SIGHTED]
    flags = (sa.or_(comes_back, sa.and_(is_current, has_new_content)), is_away, is_here)
    compared = sa.select(books.c.id.label("book_id"), *sighted, *flags).select_from(_incoming.join(books, on_key))
    unchanged = sa.select(_incoming.c.book_id, *sighted, sa.false(), sa.false(), sa.true())
    # Sorted, so that the statements that follow visit the pages of `books` and of the indexes in order.
    rows = sa.union_all(compared, unchanged.where(_incoming.c.book_id.is_not(None))).order_by("book_id")
    _empty(connection, _known)
    connection.execute(insert(_known).from_select(list(_known.c), rows))
    connection.execute(sa.text("ANALYZE pg_temp.known"))


def _row(columns: Any, names: list[str]) -> sa.Tuple:
    return sa.tuple_(*(columns[name] for name in names))


def _observe(crawl_id: str) -> sa.Insert:
    seen = _sightings(_known.c.book_id, crawl_id, _known.c)
    return insert(book_observations).from_select(_SIGHTING, seen).on_conflict_do_nothing()


def _insert(crawl_id: str) -> sa.Insert:
    """Insert rows whose key is new and, with the ids that they get, their first observations."""
    names, stamps = [*_KEY, *_CONTENT], ["first_seen_at", "last_seen_at", "updated_at"]
    new = (
        sa.select(*(_incoming.c[name] for name in names), *(_incoming.c.last_seen_at.label(stamp) for stamp in stamps))
        .where(~sa.exists().where(_known.c.source_id == _incoming.c.source_id))
        .order_by(_incoming.c.source_id)  # pages arrive in any order; this way the same shop gives the same ids
    )
    added = insert(books).from_select([*names, *stamps], new).returning(books).cte("added")
    observed = insert(book_observations).from_select(_SIGHTING, _sightings(added.c.id, crawl_id, added.c))
    return observed.execution_options(preserve_rowcount=True)  # SQLAlchemy discards the rowcount of an INSERT otherwise


def _note_second() -> Any:
    names = ["category", "category_name", "last_seen_at"]
    rows = sa.select(_known.c.book_id, *(_incoming.c[name] for name in names))
    rows = rows.where(_known.c.source_id == _incoming.c.source_id, _known.c.is_away)
    statement = insert(book_categories).from_select(["book_id", *names], rows)
    return statement.on_conflict_do_update(
        index_elements=["category", "book_id"],
        set_={name: statement.excluded[name] for name in names[1:]},
        where=book_categories.c.last_seen_at < statement.excluded.last_seen_at,
    ).returning(sa.literal_column("xmax = 0", sa.Boolean))  # whether the row is new


def _update() -> sa.Update:
    values: dict[str, Any] = {name: _incoming.c[name] for name in _CONTENT}
    values |= {name: sa.case((_known.c.is_away, books.c[name]), else_=_incoming.c[name]) for name in _HOME}
    seen_at = sa.func.greatest(books.c.last_seen_at, _incoming.c.last_seen_at)
    is_same = sa.and_(books.c.id == _known.c.book_id, _known.c.source_id == _incoming.c.source_id)
    return (
        sa.update(books)
        .where(is_same, _known.c.differs)
        .values(values | {"last_seen_at": seen_at, "updated_at": seen_at, "delisted_at": None})
    )


# (rows of `known`, those that differ, those whose book is at home in another category, books at home in this one)
_COUNT = sa.select(
    sa.func.count(),
    sa.func.count().filter(_known.c.differs),
    sa.func.count().filter(_known.c.is_away),
    sa.func.count(sa.distinct(_known.c.book_id)).filter(_known.c.is_here),
).select_from(_known)
_UPDATE, _NOTE_SECOND = _update(), _note_second()
_SIGHT = (
    sa.update(books)
    .where(books.c.id == _known.c.book_id, books.c.last_seen_at < _known.c.last_seen_at, sa.not_(_known.c.differs))
    .values(last_seen_at=_known.c.last_seen_at)
)
_SIGHTING = ["book_id", "crawl_id", "seen_at", "price", "rating", "stock"]


def _sightings(book_id: sa.ColumnElement[int], crawl_id: str, row: Any) -> sa.Select[Any]:
    return sa.select(book_id, sa.literal(crawl_id), row.last_seen_at, row.price, row.rating, row.stock)


def _texts(values: Sequence[str]) -> sa.ColumnElement[Any]:
    """One parameter for any number of values: a statement takes at most 65,535 parameters."""
    return sa.literal(list(values), sa.ARRAY(sa.Text))


def _is_listed(source: str, category: str | None) -> sa.ColumnElement[bool]:
    is_inside = sa.true() if category is None else books.c.category == category
    return sa.and_(books.c.source == source, is_inside, IS_LISTED)


def _has_second(source: str, category: str | None) -> sa.Select[Any]:
    """Whether the category lists books whose home is another one."""
    of_source = book_categories.join(books, books.c.id == book_categories.c.book_id)
    rows = sa.select(sa.true()).select_from(of_source)
    return rows.where(book_categories.c.category == category, books.c.source == source).limit(1)


def _drop(
    connection: sa.Connection, source: str, category: str | None, gone_at: datetime, is_unseen: sa.ColumnElement[bool]
) -> tuple[int, int, int]:
    """Remove the books that were not seen from the category -> (moved to another, delisted, at home in another)."""
    moved, ended = _move(connection, source, category, gone_at, is_unseen) if category is not None else (0, 0)
    gone = sa.update(books).where(_is_listed(source, category), is_unseen, books.c.last_seen_at <= gone_at)
    return moved, connection.execute(gone.values(delisted_at=gone_at, updated_at=gone_at)).rowcount, ended


def _move(
    connection: sa.Connection, source: str, category: str, gone_at: datetime, is_unseen: sa.ColumnElement[bool]
) -> tuple[int, int]:
    """-> (books at home here that moved to another category, books of another that are no longer in this one)."""
    second = book_categories.c
    is_of_source = sa.and_(second.book_id == books.c.id, books.c.source == source)
    ended = sa.delete(book_categories).where(second.category == category, second.last_seen_at <= gone_at, is_of_source)
    no_longer_here = connection.execute(ended.where(is_unseen)).rowcount
    latest = (
        sa.select(book_categories)
        .distinct(second.book_id)
        .order_by(second.book_id, second.last_seen_at.desc(), second.category)
        .subquery()
    )
    moved = connection.execute(
        sa.update(books)
        .where(_is_listed(source, category), is_unseen, latest.c.book_id == books.c.id)
        .values(category=latest.c.category, category_name=latest.c.category_name, updated_at=gone_at)
    ).rowcount
    if moved:
        connection.execute(sa.delete(book_categories).where(is_of_source, second.category == books.c.category))
    return moved, no_longer_here


def _note_load(
    connection: sa.Connection, source: str, category: str, crawl_id: str, inserted: int, updated: int, delisted: int
) -> None:
    """Add a row to `loads` if `books` changed, or in which other categories they are: exports contain that."""
    if not (inserted or updated or delisted):
        return
    # Commits must happen in the order of the ids, or a reader could cache a version that is still changing.
    connection.execute(sa.text(f"LOCK TABLE {SCHEMA}.loads IN SHARE ROW EXCLUSIVE MODE"))
    connection.execute(
        sa.insert(loads).values(
            source=source, category=category, crawl_id=crawl_id, inserted=inserted, updated=updated, delisted=delisted
        )
    )
