"""A shop's books -> known-item questions by a seed -> how high each search ranks the book that was meant.

    python benchmarks/search.py --shop ../shared/shop/books.jsonl          # a minute; without --shop: the sandbox

There are three kinds of query, made from a book: its title with a word missing, its title with a typo, and six words of
its blurb in quotes. The figure compared is the mean reciprocal rank of the book (or of another edition with the same
title) among the first ten. The peers, in the same run on the same books: Postgres full text of titles (weight A) and
descriptions (B), where books with all words and phrases come before books with some, ranked by ts_rank_cd; and BM25 of
bm25s, with titles counted twice, stemmed, without stop words.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import string
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa
from _books import shelf

from bookclub_platform.local.postgres import leased
from bookclub_platform.models import BookText, Tfidf, find
from bookclub_platform.models._text import work_key

TOP = 10
RANKED, READ = 2_000, 100  # as in serving/recommender/finder.py
WORDS_OF_PHRASE = 6

Search = Callable[[str], list[int]]  # a query -> places of books, best first


class Question(NamedTuple):
    text: str
    book: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shop", type=Path, help="JSON lines of a real shop")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--questions", type=int, default=1_000_000, help="of each kind at most")
    parser.add_argument("--ours", action="store_true", help="without the peers")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = shelf(options.shop, 1_000).rows
    questions = asked(rows, random.Random(options.seed), options.questions)
    with ExitStack() as stack:
        searches = {"ours": ours(rows)}
        if not options.ours:
            searches["Postgres full text"] = postgres(rows, stack.enter_context(database()))
            searches["bm25s"] = bm25(rows)
        figures = measured(rows, questions, searches)
    print(json.dumps(figures) if options.json else table(figures))


def asked(rows: list[BookText], source: random.Random, most: int) -> dict[str, list[Question]]:
    """Kind -> queries, from up to `most` random books that have enough words for it."""
    makers: dict[str, Callable[[BookText, random.Random], str | None]] = {
        "a word missing": _word_missing,
        "a typo": _with_typo,
        "a phrase": _phrase,
    }
    order = source.sample(range(len(rows)), len(rows))
    return {
        kind: list(islice((Question(text, at) for at in order if (text := make(rows[at], source))), most))
        for kind, make in makers.items()
    }


def _word_missing(row: BookText, source: random.Random) -> str | None:
    words = row.title.split()
    if len(words) < 2:
        return None
    del words[source.randrange(len(words))]
    return " ".join(words)


def _with_typo(row: BookText, source: random.Random) -> str | None:
    """The title with a typo in a word of four letters or more: one letter omitted, added, replaced, or swapped."""
    words = row.title.split()
    long = [at for at, word in enumerate(words) if len(word) >= 4 and word.isalpha()]
    if not long:
        return None
    chosen = source.choice(long)
    word, letter = words[chosen], source.choice(string.ascii_lowercase)
    at = source.randrange(len(word) - 1)
    before, after = word[:at], word[at + 1 :]
    swapped = before + word[at + 1] + word[at] + word[at + 2 :]
    words[chosen] = source.choice([before + after, before + letter + word[at:], before + letter + after, swapped])
    return " ".join(words)


def _phrase(row: BookText, source: random.Random) -> str | None:
    words = (row.description or "").replace('"', " ").split()
    if len(words) <= WORDS_OF_PHRASE:
        return None
    first = source.randrange(len(words) - WORDS_OF_PHRASE)
    return '"' + " ".join(words[first : first + WORDS_OF_PHRASE]) + '"'


def ours(rows: list[BookText]) -> Search:
    model = Tfidf().fit(rows)
    place = {row.id: at for at, row in enumerate(rows)}

    def search(text: str) -> list[int]:
        found = find([model], text, RANKED)
        assert found is not None
        scores = {}
        for book_id in islice(found.scores, READ):
            row = rows[place[book_id]]
            scores[place[book_id]] = found.score(book_id, [row.title, row.description or ""])
        return sorted(scores, key=lambda at: -scores[at])

    return search


@contextmanager
def database() -> Iterator[sa.Connection]:
    with tempfile.TemporaryDirectory() as folder, leased(Path(folder)) as url:
        engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:", 1), poolclass=sa.NullPool)
        with engine.connect() as connection:
            yield connection


def postgres(rows: list[BookText], connection: sa.Connection) -> Search:
    connection.execute(
        sa.text("CREATE TEMPORARY TABLE texts (place int, title text, description text, words tsvector)")
    )
    connection.execute(
        sa.text(
            "INSERT INTO texts SELECT place, title, description, setweight(to_tsvector('english', title), 'A') "
            "|| setweight(to_tsvector('english', description), 'B') "
            "FROM (SELECT CAST(:place AS int) AS place, CAST(:title AS text) AS title, "
            "CAST(:description AS text) AS description) AS book"
        ),
        [{"place": at, "title": row.title, "description": row.description or ""} for at, row in enumerate(rows)],
    )
    connection.execute(sa.text("CREATE INDEX ON texts USING gin (words)"))
    connection.execute(sa.text("ANALYZE texts"))
    # First the books with all words, and phrases as phrases; then those with some of the words.
    statement = sa.text(
        "WITH asked AS (SELECT websearch_to_tsquery('english', :text) AS whole, CAST(replace(replace("
        "CAST(plainto_tsquery('english', :text) AS text), '&', '|'), '<->', '|') AS tsquery) AS part) "
        "SELECT place FROM texts, asked WHERE words @@ part "
        "ORDER BY words @@ whole DESC, ts_rank_cd(words, part) DESC, place LIMIT :top"
    )

    def search(text: str) -> list[int]:
        return list(connection.scalars(statement, {"text": text, "top": TOP}))

    return search


def bm25(rows: list[BookText]) -> Search:
    import bm25s
    import Stemmer

    stemmer = Stemmer.Stemmer("english")

    def tokens(texts: list[str]) -> Any:
        return bm25s.tokenize(texts, stopwords="en", stemmer=stemmer, show_progress=False)

    index = bm25s.BM25()
    index.index(tokens([f"{row.title} {row.title} {row.description or ''}" for row in rows]), show_progress=False)

    def search(text: str) -> list[int]:
        places, scores = index.retrieve(tokens([text]), k=TOP, show_progress=False)
        return [int(place) for place, score in zip(places[0], scores[0], strict=True) if score > 0]

    return search


def measured(
    rows: list[BookText], questions: dict[str, list[Question]], searches: dict[str, Search]
) -> dict[str, dict[str, dict[str, float]]]:
    """Kind -> search -> figures."""
    keys = [work_key(row.title) for row in rows]
    figures: dict[str, dict[str, dict[str, float]]] = {}
    for kind, of_kind in questions.items():
        for name, search in searches.items():
            reciprocals, spent = [], []
            for question in of_kind:
                started = time.perf_counter()
                found = [keys[at] for at in search(question.text)[:TOP]]
                spent.append(time.perf_counter() - started)
                meant = keys[question.book]
                reciprocals.append(1 / (1 + found.index(meant)) if meant in found else 0.0)
            figures.setdefault(kind, {})[name] = {
                "questions": len(of_kind),
                "mrr": statistics.fmean(reciprocals),
                "first": statistics.fmean([float(value == 1) for value in reciprocals]),
                "median_ms": 1000 * statistics.median(spent),
            }
    return figures


def table(figures: dict[str, dict[str, dict[str, float]]]) -> str:
    lines = ["| question | search | questions | MRR@10 | first | median, ms |", "|---|---|---|---|---|---|"]
    for kind, searches in figures.items():
        for name, of in searches.items():
            lines.append(
                f"| {kind} | {name} | {of['questions']} | {of['mrr']:.3f} | {of['first']:.3f} | {of['median_ms']:.1f} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
