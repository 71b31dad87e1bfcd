"""Settings -> the addresses of the three databases, wherever they are, made and migrated."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from bookclub_platform.core.database import DatabaseUrls, database_urls, ensure_databases, migrate
from bookclub_platform.core.settings import Settings
from bookclub_platform.local.postgres import lease


def open_databases(settings: Settings) -> DatabaseUrls:
    """The databases of BOOKCLUB_DATABASE_URL, else those of the embedded server, which then runs at least until this
    process ends.

    Raises:
        DatabaseUnavailable: the server does not answer, or does not let us make what is missing.
    """
    return _prepared(settings.database_url) if settings.database_url is not None else _leased(settings.home)


@cache
def _prepared(url: str) -> DatabaseUrls:
    urls = database_urls(url)
    ensure_databases(urls)
    migrate(urls.books)
    return urls


@cache
def _leased(home: Path) -> DatabaseUrls:
    return database_urls(lease(home))
