"""Times that are stored -> whether the machine's clock was ahead when they were, or is behind now.

What is stored from the future hides what comes: the newest crawl is the one that is read, and a newer sighting of a
book is the one that counts. Nobody but a person knows which clock was wrong.
"""

from __future__ import annotations

from datetime import datetime, timedelta

MAX_AHEAD = timedelta(hours=1)  # two machines differ by less, and a clock that is set right is put back by less
MEND_BOOKS = (
    "If this machine's clock is behind, set it. If it was ahead then, run in the database: UPDATE bookclub.books SET "
    "last_seen_at = now(), first_seen_at = least(first_seen_at, now()) WHERE last_seen_at > now(); "
    "UPDATE bookclub.book_categories SET last_seen_at = now() WHERE last_seen_at > now();"
)


def is_ahead(at: datetime, now: datetime) -> bool:
    """Whether `at` is so far in the future that a clock must be wrong."""
    return at - now > MAX_AHEAD
