"""Model + books of the database -> what may be recommended now: the model grown by the books it lacks, and filters.

    lineups = Lineups(database_url)
    lineup = lineups.of(model)                   reads all listed books, but texts only of those that the model lacks
    lineup = lineups.of(model, before=lineup)    the same object while the data version stays the same
    lineup.allowed(Filters(in_stock=True))       (p,) by place of lineup.grown
    lineup.mask(IN_STOCK), lineup.versions(ids)
    lineup.near, lineups.books                   near books with score and reasons, and each book, as JSON bytes

What a lineup returns never changes (only its caches grow), so a response that uses one lineup has one model and one
state of the catalogue.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import cast

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from bookclub_platform.core.browse import IN_STOCK, Filters
from bookclub_platform.core.errors import DatabaseUnavailable
from bookclub_platform.core.stock import SELECT_VERSIONED, Stock, select_texts
from bookclub_platform.core.tables import select_state
from bookclub_platform.models import BookText, Grown, Tfidf
from serving.books.book_bytes import BookBytes
from serving.books.stock_files import StockFiles
from serving.database.catalogue import LARGE_FROM, State, state_of
from serving.database.datawatch import DataWatch
from serving.database.postgres import open_sync_engine
from serving.process import malloc
from serving.recommender.masks import Bits, Mask, Masks
from serving.recommender.near_bytes import NearBytes
from serving.recommender.passing import passing

RENEWED_AFTER_S = 60.0  # a crawl that finds nothing new changes `last_seen_at` but not the data version
_PREPARED = 10_000  # up to this many books, all caches are filled before requests need them, in seconds
_AT_ONCE = 20  # rows; read and rendered in a few milliseconds
_SLICE_S = 0.0001
_STATEMENT_TIMEOUT_S = 60
_FEW_CHANGES = 10_000  # up to this many changed books, the existing masks are updated bit by bit


@dataclass(frozen=True, eq=False)
class Lineup:
    """Attributes:
    grown: the model, with every book that was listed.
    stock: the listed books; None while the database has not been read.
    state: the state of the tables that they were read from.
    epoch: `DataWatch.outages` when they were read.
    near: near books with score and reasons according to `grown`.
    read_at: when the books were read, in `time.monotonic()` seconds.
    renewed_at: when to read them again even if nothing changed, in `time.monotonic()` seconds.
    json: JSON of each listed book from BookBytes, once all of them were there; empty until then.
    """

    grown: Grown
    stock: Stock | None = None
    state: State | None = None
    epoch: int = 0
    near: NearBytes | None = None
    read_at: float = 0.0
    renewed_at: float = float("inf")
    json: dict[int, bytes] = field(default_factory=dict)

    @property
    def data_version(self) -> str | None:
        return self.state.data_version if self.state is not None else None

    def is_listed(self, book_id: int) -> bool:
        return book_id in self.json or self.row(book_id) is not None

    def row(self, book_id: int) -> int | None:
        """Where in `stock` the book is; None if it is not listed."""
        if self.stock is None:
            return None
        at = int(self.stock.ids.searchsorted(book_id))
        return at if at < len(self.stock.ids) and self.stock.ids[at] == book_id else None

    def versions(self, ids: Sequence[int]) -> list[int]:
        """The row versions of these books, all of which are listed."""
        assert self.stock is not None
        versions: list[int] = self.stock.version[self.stock.ids.searchsorted(np.array(ids, dtype=np.int64))].tolist()
        return versions

    def allowed(self, filters: Filters) -> NDArray[np.bool_]:
        """(p,): whether the book at each place of `grown` is listed and passes the filters."""
        return self.mask(filters).may

    def mask(self, filters: Filters) -> Mask:
        """`allowed`, with the digest that caches use as its key."""
        return self._masks.of(filters)

    def at_hand(self, filters: Filters) -> Bits | None:
        """`mask` as bits, if it is cached."""
        return self._masks.at_hand(filters)

    @cached_property
    def _masks(self) -> Masks[Filters]:
        return Masks(self._make)

    @property
    def _make(self) -> Callable[[Filters], NDArray[np.bool_]]:
        """Makes masks without a reference to `self`: a reference cycle is freed only by Python's cycle collector, which
        runs rarely, and this one would keep a whole model in memory."""
        if self.stock is None:
            is_current = self.grown.is_current
            return lambda _: is_current
        return partial(_may, self.stock, self._row_of_place, self.grown.is_current)

    def take_over(self, before: Lineup) -> None:
        """Reuse what `before` has computed, if the places are the same: a new price changes one bit of a million."""
        assert self.stock is not None and before.stock is not None
        if self.grown is not before.grown or not np.array_equal(self.stock.ids, before.stock.ids):
            return
        if self.epoch != before.epoch or self._table != before._table:
            return  # row versions mean nothing in another database
        rows = np.flatnonzero(self.stock.version != before.stock.version)
        if len(rows) > _FEW_CHANGES:
            return
        row_of_place = before._row_of_place
        places = np.flatnonzero(np.isin(row_of_place, rows) & self.grown.is_current)
        changed = self.stock.at(row_of_place[places])
        taken = {"_row_of_place": row_of_place, "_works": vars(before).get("_works")}
        taken["_masks"] = before._masks.followed(self._make, places, partial(passing, changed))
        vars(self).update({name: value for name, value in taken.items() if value is not None})

    def well_rated(
        self, filters: Filters, limit: int, left_out: Collection[int] = (), shelf: int | None = None
    ) -> list[int]:
        """Ids of the books that pass: those in the category with the fingerprint `shelf` first, then by stars, then by
        reviews. At most one edition of each work, and none of the works `left_out`."""
        if self.stock is None:
            return []
        rows = np.flatnonzero(passing(self.stock, filters))
        rows = rows[~np.isin(self._works[rows], list(left_out))]
        is_first = self.stock.category[rows] == shelf if shelf is not None else np.zeros(len(rows), dtype=np.bool_)
        merit = is_first.astype(np.int64) << 40 | self.stock.rating[rows].astype(np.int64) << 32
        merit |= self.stock.reviews[rows]
        wanted = limit
        while True:
            best = _best(merit, wanted)
            _, first = np.unique(self._works[rows[best]], return_index=True)
            if len(first) >= limit or wanted >= len(rows):
                found: list[int] = self.stock.ids[rows[best[np.sort(first)[:limit]]]].tolist()
                return found
            wanted *= 4

    def works_of(self, ids: Collection[int]) -> set[int]:
        """The works of those of `ids` that are known, listed or not."""
        works = self.grown.works[self.grown.places(ids)].tolist()
        rows = [row for book_id in ids if (row := self.row(book_id)) is not None]
        return {*works, *(self._works[rows].tolist() if rows else ())}

    @property
    def _table(self) -> str | None:
        return self.stock.mark.table if self.stock is not None and self.stock.mark is not None else None

    @cached_property
    def _works(self) -> NDArray[np.int64]:
        """(n,) by row of `stock`: equal for books of the same work; a book that the model lacks is its own work."""
        assert self.stock is not None
        works = -1 - np.arange(len(self.stock.ids))
        places = np.flatnonzero((self._row_of_place >= 0) & self.grown.is_current)
        works[self._row_of_place[places]] = self.grown.works[places]
        return works

    @cached_property
    def _row_of_place(self) -> NDArray[np.int32]:
        assert self.stock is not None
        ids = self.grown.ids
        at = np.searchsorted(self.stock.ids, ids).astype(np.int32)
        at[at == len(self.stock.ids)] = -1
        if len(self.stock.ids):
            at[self.stock.ids[at] != ids] = -1
        return at


class Lineups:
    """Reads lineups from the database over its own connection; for threads, one at a time.

    Attributes:
        books: the listed books as JSON; None if no responses are assembled from them.
    """

    def __init__(
        self,
        database_url: str,
        watch: DataWatch | None = None,
        books: BookBytes | None = None,
        near_bytes: int = 0,
        folder: Path | None = None,
    ) -> None:
        """`folder`: holds the columns of a large catalogue for all workers; None: each worker has its own in memory."""
        self._watch, self.books, self._near_bytes = watch, books, near_bytes
        self._stocks = StockFiles(folder)
        self._engine = open_sync_engine(
            database_url,
            is_read_only=True,
            timeout_s=_STATEMENT_TIMEOUT_S,
            isolation_level="REPEATABLE READ",
            pool_pre_ping=True,
            pool_size=1,
            max_overflow=1,  # `prepare` runs in one thread while another reads changes
        )

    def read_ahead(self) -> None:
        """Read the books before there is a model: with a large catalogue, `of` then finds them in files at once.

        Raises:
            DatabaseUnavailable: the books cannot be read now.
        """
        with self._stocks.turn(), self._connection() as connection:
            self._stocks.read(connection, state_of(connection.execute(select_state()).one_or_none()))

    def of(self, model: Tfidf, before: Lineup | None = None) -> Lineup:
        """What may be recommended with `model`; `before` itself if nothing has changed.

        Raises:
            DatabaseUnavailable: the books cannot be read now.
        """
        known = before if before is not None and before.grown.base is model else None
        grown = known.grown if known is not None else Grown(model)
        with self._stocks.turn(), self._connection() as connection:
            started, epoch = time.monotonic(), self._epoch
            state = state_of(connection.execute(select_state()).one_or_none())
            if known is not None and (known.state, known.epoch) == (state, epoch) and started < known.renewed_at:
                self._follow_files(connection, known.stock, epoch)
                return known
            before_it = known.stock if known is not None and known.epoch == epoch else None
            stock = self._stocks.read(connection, state, before_it)
            self._follow_files(connection, stock, epoch)
            lacking = grown.outdated(stock.ids, stock.text).tolist()
            rows = [BookText(*row) for row in connection.execute(select_texts(lacking))] if lacking else []
        newer = grown.grow(rows)
        near = known.near if known is not None and newer is grown else None
        near = near or NearBytes(newer, self._near_bytes)
        took_s = time.monotonic() - started
        renewed_at = started + max(RENEWED_AFTER_S, 50 * took_s)  # a large catalogue: at most a fiftieth of the time
        lineup = Lineup(newer, stock, state, epoch, near, started, renewed_at)
        if known is not None and known.stock is not None:
            lineup.take_over(known)
        self._warm_up(lineup, stock)
        return lineup

    def _warm_up(self, lineup: Lineup, stock: Stock) -> None:
        lineup.allowed(IN_STOCK)  # nearly every request needs it: make it here, not in the first of them
        is_large = len(stock.ids) >= LARGE_FROM
        if self._watch is not None:
            self._watch.is_large = is_large
        if is_large:
            _ = lineup.grown.works
            malloc.trim()

    @contextmanager
    def _connection(self) -> Iterator[sa.Connection]:
        try:
            with self._engine.connect() as connection:
                yield connection
        except sa.exc.DBAPIError as error:
            raise DatabaseUnavailable(f"The books cannot be read: {str(error.orig).strip()}.") from error

    def _follow_files(self, connection: sa.Connection, stock: Stock | None, epoch: int) -> None:
        """Have the JSON of a large catalogue's books written to files for all workers."""
        files = self.books.files if self.books is not None else None
        if files is not None and stock is not None and len(stock.ids) >= LARGE_FROM:
            files.follow(connection, stock, epoch)

    def prepare(self, lineup: Lineup) -> Iterator[None]:
        """Fill the caches for all books of a small catalogue before requests need them; in short slices, because no
        request is answered while one of them runs.

        Raises:
            DatabaseUnavailable: they cannot be read now.
        """
        if self.books is None or lineup.stock is None or lineup.near is None or len(lineup.stock.ids) > _PREPARED:
            return
        ids, versions = lineup.stock.ids.tolist(), lineup.stock.version.tolist()
        kept = self.books.of(ids, versions, lineup.epoch)
        lacking = [book_id for book_id, json in zip(ids, kept, strict=True) if json is None]
        for start in range(0, len(lacking), _AT_ONCE):
            with self._connection() as connection:
                rows = connection.execute(SELECT_VERSIONED, {"ids": lacking[start : start + _AT_ONCE]}).all()
            self.books.keep(rows, lineup.epoch)
            yield
        kept = self.books.of(ids, versions, lineup.epoch)
        if None not in kept:  # all of them fit
            lineup.json.update(dict(zip(ids, cast(list[bytes], kept), strict=True)))  # one call: other threads read it
        mask = lineup.mask(IN_STOCK)
        if mask.digest == lineup.near.told_all:
            return
        began = time.perf_counter()
        for book_id in lineup.grown.ids[mask.may].tolist():
            lineup.near.of(book_id, 10, mask)
            if time.perf_counter() - began > _SLICE_S:
                yield
                began = time.perf_counter()
        lineup.near.told_all = mask.digest

    def put_in_use(self, lineup: Lineup) -> None:
        """Tell the watch that responses use that lineup from now on."""
        if self._watch is not None and lineup.data_version is not None:
            self._watch.saw(lineup.data_version, lineup.read_at)

    def is_behind(self, lineup: Lineup) -> bool:
        """Whether the books have a newer state than that of `lineup`."""
        return self._watch is not None and (self._watch.newest, self._epoch) != (lineup.data_version, lineup.epoch)

    @property
    def _epoch(self) -> int:
        return self._watch.outages if self._watch is not None else 0

    def close(self) -> None:
        """Close files and connections; call it when nothing reads any more."""
        if self.books is not None and self.books.files is not None:
            self.books.files.close()
        self._engine.dispose()


def _may(
    stock: Stock, row_of_place: NDArray[np.int32], is_current: NDArray[np.bool_], filters: Filters
) -> NDArray[np.bool_]:
    may = np.append(passing(stock, filters), False)  # the last entry (-1) is for books that are not listed
    return may.take(row_of_place) & is_current


def _best(merit: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
    """Places of the `limit` highest, highest first; of equals the first. Sorting all of a million would take long."""
    places = np.arange(len(merit))
    if limit < len(merit):
        least = np.partition(merit, -limit)[-limit]
        better, equal = np.flatnonzero(merit > least), np.flatnonzero(merit == least)
        places = np.append(better, equal[: limit - len(better)])
    best: NDArray[np.int64] = places[np.argsort(-merit[places], kind="stable")]
    return best
