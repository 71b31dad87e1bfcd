"""Made-up books -> the table, as the platform loads them, beside plain COPY of the same rows -> a table on stdout.

    python benchmarks/load.py                       # 10,000 and 100,000 books: about a minute
    python benchmarks/load.py --books 1000000       # minutes, and about 8 GB of disk

Ours reads a file of cleaned rows for each of 50 categories and loads each in a transaction of its own. COPY sends
text that was made ready before, in as many transactions, into tables with the same columns, indexes, constraints and
storage: the least that Postgres needs to hold these rows. Both use one embedded Postgres with a home of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from _figures import Stopwatch

from bookclub_platform.core.book import Book
from bookclub_platform.core.cleaned import CleanedCategory, read_cleaned, write_cleaned
from bookclub_platform.core.database import database_urls
from bookclub_platform.core.loads import load_category
from bookclub_platform.core.tables import book_observations, books, select_books
from bookclub_platform.local.postgres import leased

CATEGORIES = 50
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
CRAWLS = [f"{NOON + timedelta(days=day):%Y%m%dT%H%M%S.%fZ}-{day:08x}" for day in range(2)]
