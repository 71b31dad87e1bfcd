"""The Spark plan: books.parquet -> words of each book -> terms of the catalogue -> places of each book's terms.

    figures = count(spark, "books.parquet", Path("FOLDER"), Tfidf())          leaves what _files.py reads

Each book is counted by itself, where its row lies, with the functions of models/; Spark adds up in how many books a
term stands and how often each of its words is written. No text leaves the workers but titles and terms.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bookclub_platform.models import BookText, Tfidf
from bookclub_platform.models._embedding import encoded
from bookclub_platform.models._identity import prints_of
from bookclub_platform.models._text import term_of
from bookclub_platform.spark._files import BOOKS, TERMS

if TYPE_CHECKING:
    from pyarrow import Array, RecordBatch, Table
    from pyspark.sql import DataFrame, SparkSession

Batches = Iterator["RecordBatch"]

_KNOWN = "id bigint, title string, category string, category_name string, text_print bigint, title_print bigint"
_ENCODED = ", encoded array<float>"
# is_first: of the words of its term in that book, so that these add up to the books with the term.
_WORDS = ", words array<struct<term: string, word: string, n: int, is_first: int>>"
_PLACES = ", places array<int>, counts array<float>"


def count(spark: SparkSession, books: str, folder: Path, model: Tfidf, partitions: int | None = None) -> dict[str, Any]:
    """Count the books of the Parquet file(s) `books` for `model`, into the new folder `folder`.

    Args:
        partitions: among how many parts the books are dealt out; None: as the files lie.

    Returns:
        figures for the log: books, terms, partitions, seconds, Spark's version.
    """
    import pyarrow.parquet as pq
    from pyspark import StorageLevel

    started = time.perf_counter()
    rows = spark.read.parquet(books).select(*BookText._fields)
    rows = rows.repartition(partitions) if partitions else rows
    n = rows.count()
    known = _KNOWN + (_ENCODED if model.is_encoded(n) else "")
    # Kept: the words are needed twice, once to be added up and once to be given the places that this leads to.
    worded = rows.mapInArrow(_words_of(model, model.is_encoded(n)), known + _WORDS).persist(StorageLevel.DISK_ONLY)
    terms = _added_up(worded, model.min_df)
    folder.mkdir(parents=True)
    placed = worded.mapInArrow(_places_of(spark.sparkContext.broadcast(terms["term"])), known + _PLACES)
    placed.write.parquet((folder / BOOKS).as_uri())
    pq.write_table(terms, folder / TERMS)
    worded.unpersist()
    return {
        "books": n,
        "terms": terms.num_rows,
        "partitions": rows.rdd.getNumPartitions(),
        "seconds": round(time.perf_counter() - started, 3),
        "version": spark.version,
    }


def _added_up(worded: DataFrame, min_df: int) -> Table:
    """(term, word, books) of the terms in at least `min_df` books, ascending: the word that is written most often (of
    equals the last, in small letters), and the number of books."""
    from pyspark.sql import functions as sql

    one = worded.select(sql.explode("words").alias("one")).select("one.*")
    words = one.groupBy("term", "word").agg(sql.sum("n").alias("n"), sql.sum("is_first").alias("books"))
    terms = words.groupBy("term").agg(
        sql.max(sql.struct("n", "word")).getField("word").alias("word"), sql.sum("books").alias("books")
    )
    # Sorted here: Arrow's order of texts is that of their code points, which is Python's.
    return terms.where(sql.col("books") >= min_df).toArrow().sort_by("term")


def _words_of(model: Tfidf, is_encoded: bool) -> Callable[[Batches], Batches]:
    def words_of(batches: Batches) -> Batches:
        import pyarrow as pa

        stem = cache(term_of())  # a word is stemmed once in a partition, not at each of its places
        for batch in batches:
            rows = [BookText(*row) for row in zip(*(column.to_pylist() for column in batch.columns), strict=True)]
            given = {name: batch.column(name) for name in ("id", "title", "category", "category_name")}
            given |= dict(zip(("text_print", "title_print"), map(pa.array, prints_of(rows)), strict=True))
            if is_encoded:
                given["encoded"] = _lists(encoded(rows))
            yield pa.record_batch(given | {"words": _words(map(model.words, rows), stem)})

    return words_of


def _words(books: Iterable[list[str]], stem: Callable[[str], str | None]) -> Array:
    """The column `words` of `_WORDS`: a list a book."""
    import pyarrow as pa

    # Four lists, not one of tuples, which the garbage collector would look through again and again: half the time.
    terms: list[str] = []
    words: list[str] = []
    counts: list[int] = []
    firsts: list[bool] = []
    ends = [0]
    for found in books:
        seen: set[str] = set()
        for word, n in Counter(found).items():
            term = stem(word)
            if term is not None:
                terms.append(term)
                words.append(word)
                counts.append(n)
                firsts.append(term not in seen)
                seen.add(term)
        ends.append(len(terms))
    columns = [pa.array(terms, pa.string()), pa.array(words, pa.string()), pa.array(counts, pa.int32())]
    columns.append(pa.array(firsts, pa.bool_()).cast(pa.int32()))
    return pa.ListArray.from_arrays(ends, pa.StructArray.from_arrays(columns, ["term", "word", "n", "is_first"]))


def _lists(table: np.ndarray) -> Array:
    """(n, d) as n lists."""
    import pyarrow as pa

    return pa.ListArray.from_arrays(np.arange(len(table) + 1, dtype=np.int32) * table.shape[1], table.ravel())


def _places_of(terms: Any) -> Callable[[Batches], Batches]:
    """`terms`: a broadcast of all that have a place, in its order."""

    def places_of(batches: Batches) -> Batches:
        import pyarrow as pa
        import pyarrow.compute as pc

        for batch in batches:
            words = batch.column("words")
            entries = words.flatten()
            places = pc.fill_null(pc.index_in(entries.field("term"), value_set=terms.value), -1).to_numpy()
            books = pc.list_parent_indices(words).to_numpy()
            is_placed = places >= 0
            # A term's entries in a book are as many as it has words there.
            n_terms = len(terms.value)
            keys, which = np.unique(books[is_placed] * n_terms + places[is_placed], return_inverse=True)
            counts = np.bincount(which, entries.field("n").to_numpy()[is_placed], minlength=len(keys))
            ends = np.searchsorted(keys, np.arange(batch.num_rows + 1) * n_terms).astype(np.int32)
            given = {name: batch.column(name) for name in batch.schema.names if name != "words"}
            given["places"] = pa.ListArray.from_arrays(ends, (keys % max(1, n_terms)).astype(np.int32))
            given["counts"] = pa.ListArray.from_arrays(ends, counts.astype(np.float32))
            yield pa.record_batch(given)

    return places_of
