"""Model + books of the database -> what may be recommended now: the model grown by what it has not seen, and filters.

    lineups = Lineups(database_url)
    lineup = lineups.of(model)                   reads all listed books; texts of those alone that the model lacks
    lineup = lineups.of(model, before=lineup)    the same object while the data version stays the same
    lineup.allowed(Filters(in_stock=True))       (p,) by place of lineup.grown

A lineup never changes, so that an answer that holds one is of one model and one state of the catalogue.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from bookclub_platform.core.errors import DatabaseUnavailable
from bookclub_platform.core.stock import Stock, fingerprint, read_stock, select_texts
from bookclub_platform.core.tables import select_data_version
from bookclub_platform.models import BookText, Grown, Tfidf

MASKS = 32  # of a million books one takes a megabyte
_STATEMENT_TIMEOUT_S = 60


class Filters(NamedTuple):
    """Which books may be recommended; None: all."""

    category: str | None = None
    min_price: float | None = None
    max_price: float | None = None
    min_rating: int | None = None
    in_stock: bool = True


@dataclass(frozen=True, eq=False)
class Lineup:
    """Attributes:
    grown: the model, with every book that was listed.
    stock: the listed books; None while the database has not been read.
    data_version: the state that they are of.
    """

    grown: Grown
    stock: Stock | None = None
    data_version: str | None = None
    _masks: dict[Filters, NDArray[np.bool_]] = field(default_factory=dict, init=False)

    def allowed(self, filters: Filters) -> NDArray[np.bool_]:
        """(p,): whether the book at each place of `grown` is listed and passes."""
        mask = self._masks.get(filters)
        if mask is None:
            mask = self._mask(filters)
            if len(self._masks) >= MASKS:
                self._masks.pop(next(iter(self._masks)), None)  # the oldest; another thread may have been first
            self._masks[filters] = mask
        return mask

    def well_rated(self, filters: Filters, limit: int, left_out: Collection[int] = ()) -> list[int]:
        """Ids of the books that pass, best rated first, of these the most reviewed."""
        if self.stock is None:
            return []
        chosen = self._by_rating[_passes(self.stock, filters)[self._by_rating]]
        found = self.stock.ids[chosen[: limit + len(left_out)]].tolist()
        return [book_id for book_id in found if book_id not in left_out][:limit]

    def _mask(self, filters: Filters) -> NDArray[np.bool_]:
        if self.stock is None:
            return self.grown.is_current
        may = np.append(_passes(self.stock, filters), False)  # the last is that of books that are not listed
        return may[self._row_of_place] & self.grown.is_current

    @cached_property
    def _row_of_place(self) -> NDArray[np.int32]:
        assert self.stock is not None
        ids = self.grown.ids
        at = np.searchsorted(self.stock.ids, ids).astype(np.int32)
        at[at == len(self.stock.ids)] = -1
        if len(self.stock.ids):
            at[self.stock.ids[at] != ids] = -1
        return at

    @cached_property
    def _by_rating(self) -> NDArray[np.int64]:
        assert self.stock is not None
        return np.lexsort((self.stock.ids, -self.stock.reviews, -self.stock.rating.astype(np.int16)))


class Lineups:
    """Reads lineups from the database, over one connection of its own; for threads, one at a time."""

    def __init__(self, database_url: str) -> None:
        url = sa.make_url(database_url.replace("postgres://", "postgresql://", 1)).set(drivername="postgresql+psycopg")
        self._engine = sa.create_engine(
            url,
            pool_size=1,
            pool_pre_ping=True,
            isolation_level="REPEATABLE READ",
            connect_args={
                "connect_timeout": 2,
                "options": f"-c default_transaction_read_only=on -c statement_timeout={_STATEMENT_TIMEOUT_S}s",
            },
        )

    def of(self, model: Tfidf, before: Lineup | None = None) -> Lineup:
        """What may be recommended with `model`; `before` itself if nothing has changed.

        Raises:
            DatabaseUnavailable: the books cannot be read now.
        """
        try:
            with self._engine.connect() as connection:
                version = str(connection.scalar(_DATA_VERSION))
                is_same_model = before is not None and before.grown.base is model
                if before is not None and is_same_model and before.data_version == version:
                    return before
                stock = read_stock(connection)
                grown = before.grown if before is not None and is_same_model else Grown(model)
                lacking = grown.outdated(stock.ids, stock.text).tolist()
                rows = [BookText(*row) for row in connection.execute(select_texts(lacking))] if lacking else []
        except sa.exc.DBAPIError as error:
            raise DatabaseUnavailable(f"The books cannot be read: {str(error.orig).strip()}.") from error
        lineup = Lineup(grown.grow(rows), stock, version)
        lineup.allowed(Filters())  # what nearly every request asks is made here, and not in the first of them
        return lineup

    def close(self) -> None:
        self._engine.dispose()


_DATA_VERSION = select_data_version()


def _passes(stock: Stock, filters: Filters) -> NDArray[np.bool_]:
    """(n,) by row of `stock`."""
    passes = stock.in_stock.copy() if filters.in_stock else np.ones(len(stock.ids), dtype=np.bool_)
    if filters.category is not None:
        passes &= stock.category == _slug(filters.category)
    if filters.min_price is not None:
        passes &= stock.price >= filters.min_price
    if filters.max_price is not None:
        passes &= stock.price <= filters.max_price
    if filters.min_rating is not None:
        passes &= stock.rating >= filters.min_rating
    return passes


@lru_cache(1000)
def _slug(category: str) -> int:
    return fingerprint(category)
