"""Settings -> the addresses of the three databases, wherever they are."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from bookclub_platform.core.database import DatabaseUrls, database_urls
from bookclub_platform.core.settings import Settings
from bookclub_platform.local.postgres import lease


def open_databases(settings: Settings) -> DatabaseUrls:
    """The databases of BOOKCLUB_DATABASE_URL, else those of the embedded server, which then runs at least until this
    process ends."""
    return database_urls(settings.database_url or _leased(settings.home))


@cache
def _leased(home: Path) -> str:
    return lease(home)
