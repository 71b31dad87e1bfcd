"""Settings -> the addresses of the three databases, embedded or external, created and migrated."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from bookclub_platform.core.database import DatabaseUrls, database_urls, ensure_databases, migrate
from bookclub_platform.core.errors import DatabaseUnavailable
from bookclub_platform.core.settings import Settings
from bookclub_platform.local.postgres import address, is_running, lease


def open_databases(settings: Settings) -> DatabaseUrls:
    """The databases of BOOKCLUB_DATABASE_URL, else those of the embedded server, which then runs at least until this
    process ends.

    Raises:
        DatabaseUnavailable: the server does not respond, or does not let us create what is missing.
    """
    return _prepared(settings.database_url) if settings.database_url is not None else _leased(settings.home)


def books_address(settings: Settings) -> str:
    """The address of the books database, without starting, creating or changing anything.

    Raises:
        DatabaseUnavailable: the embedded server is not running.
    """
    if settings.database_url is not None:
        return database_urls(settings.database_url).books
    if not is_running(settings.home):
        raise DatabaseUnavailable(
            f"The embedded Postgres of {settings.home} does not run. What starts it brings its tables up: `make run`, "
            "or `bookclub db upgrade`."
        )
    return database_urls(address(settings.home)).books


@cache
def _prepared(url: str) -> DatabaseUrls:
    urls = database_urls(url)
    ensure_databases(urls)
    migrate(urls.books)
    return urls


@cache
def _leased(home: Path) -> DatabaseUrls:
    return database_urls(lease(home))
