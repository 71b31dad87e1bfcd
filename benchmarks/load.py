"""Made-up books -> the table, as the platform loads them, beside plain COPY of the same rows -> a table on stdout.

    python benchmarks/load.py                       # 10,000 and 100,000 books: about a minute
    python benchmarks/load.py --books 1000000       # minutes, and about 8 GB of disk

Ours reads a file of cleaned rows for each of 50 categories and loads each in a transaction of its own. COPY sends
text that was made ready before, in as many transactions, into tables with the same columns, indexes, constraints and
storage: the least that Postgres needs to hold these rows. Both use one embedded Postgres with a home of its own.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

CATEGORIES = 50
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
CRAWLS = [f"{NOON + timedelta(days=day):%Y%m%dT%H%M%S.%fZ}-{day:08x}" for day in range(2)]
