"""What the database holds: is it there, of the newest form, and how old is the last crawl?"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from alembic.config import Config
from alembic.script import ScriptDirectory

from bookclub_platform.core.categories import retired_slugs
from bookclub_platform.core.clock import MEND_BOOKS, is_ahead
from bookclub_platform.core.database import MIGRATIONS, database_urls
from bookclub_platform.core.errors import ConfigurationError
from bookclub_platform.core.settings import Settings
from bookclub_platform.core.tables import SCHEMA, select_books, select_count, select_last_seen
from bookclub_platform.local import postgres
from bookclub_platform.local.doctor._finding import START, TIMEOUT_S, Finding
from bookclub_platform.sources import sources

CRAWL_MAX_AGE = timedelta(hours=36)  # a day and a long night


class _Down(Exception):
    """The database cannot be asked; the text says why."""


def database(settings: Settings) -> list[Finding]:
    try:
        with _connected(settings) as connection:
            version = connection.scalar(sa.text("SHOW server_version"))
            place = f"Postgres {version} at {connection.engine.url.render_as_string(hide_password=True)}"
            count = connection.scalar(select_count(select_books())) if _has(connection, "books") else 0
    except _Down as down:
        mend = START if settings.database_url is None else "Start it, or set BOOKCLUB_DATABASE_URL."
        return [Finding("database", False, str(down), mend)]
    if not count:
        return [Finding("database", False, f"no books in {place}", "Fill it: `bookclub build`.")]
    return [Finding("database", True, f"{count:,} books in {place}")]


def migrations(settings: Settings) -> list[Finding]:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    script = ScriptDirectory.from_config(config)
    head = script.get_current_head()
    try:
        with _connected(settings) as connection:
            noted = sa.table("alembic_version", sa.column("version_num"), schema=SCHEMA)
            current = connection.scalar(sa.select(noted.c.version_num)) if _has(connection, noted.name) else None
    except _Down as down:
        return [Finding("migrations", False, f"not known: {down}", START)]
    if current == head:
        return [Finding("migrations", True, f"at the newest revision, {head}")]
    if current is not None and current not in {revision.revision for revision in script.walk_revisions()}:
        text = f"the database is at revision {current}, which this platform does not know yet; it knows {head}"
        return [Finding("migrations", False, text, "Install the newer platform.")]
    text = f"the database is at revision {current or 'none'}, and the newest is {head}"
    return [Finding("migrations", False, text, "`bookclub db upgrade`.")]


def crawl(settings: Settings) -> list[Finding]:
    """The age of what was seen last, for each source that is configured: one that was removed is crawled no more."""
    try:
        configured = [source.name for source in sources(settings)]
    except ConfigurationError as error:
        return [Finding("crawl", False, f"not known: {error}", "Mend the file of sources.")]
    try:
        with _connected(settings) as connection:
            if not _has(connection, "books"):
                return [Finding("crawl", False, "there was none", "`bookclub build`.")]
            last_seen = connection.execute(select_last_seen()).tuples()
            seen: dict[str, datetime] = {source: at for source, at in last_seen if source in configured}
    except _Down as down:
        return [Finding("crawl", False, f"not known: {down}", START)]
    if not seen:
        return [Finding("crawl", False, "there was none", "`bookclub build`.")]
    now = datetime.now(UTC)
    ahead = [f"{source} {told(at - now)} ahead of now" for source, at in seen.items() if is_ahead(at, now)]
    if ahead:
        text = f"last crawl: {', '.join(ahead)}; until then no crawl changes a book"
        return [Finding("crawl", False, text, MEND_BOOKS)]
    ages = {source: max(timedelta(), now - at) for source, at in seen.items()}
    text = ", ".join(f"{source} {told(age)} ago" for source, age in ages.items())
    mend = "See in Dagster why the runs of daily_crawl failed or did not start, or crawl now: `bookclub build`."
    return [Finding("crawl", max(ages.values()) <= CRAWL_MAX_AGE, f"last crawl: {text}", mend)]


def retired(settings: Settings, sources: Collection[str | None]) -> dict[str | None, set[str]]:
    """The retired categories of each source, and of all (None); none if the database, which `database` checks, is
    down."""
    try:
        with _connected(settings) as connection:
            return {source: retired_slugs(connection, source) for source in sources}
    except _Down:
        return {}


def told(age: timedelta) -> str:
    """About how long, for people."""
    hours = age.total_seconds() / 3600
    if hours < 2:
        return f"{hours * 60:.0f} minutes"
    return f"{hours:.0f} hours" if hours < 48 else f"{hours / 24:.0f} days"


@contextmanager
def _connected(settings: Settings) -> Iterator[sa.Connection]:
    """A connection that waits for nothing long. Raises _Down."""
    try:
        url = database_urls(settings.database_url or _embedded(settings)).books
        options = {"connect_timeout": int(TIMEOUT_S), "options": f"-c statement_timeout={TIMEOUT_S:.0f}s"}
        with sa.create_engine(url, connect_args=options, poolclass=sa.NullPool).connect() as connection:
            yield connection
    except sa.exc.OperationalError as error:
        place = sa.make_url(url).render_as_string(hide_password=True)
        raise _Down(f"{place}: {' '.join(str(error.orig).split())}") from error


def _embedded(settings: Settings) -> str:
    if not postgres.is_running(settings.home):
        raise _Down(f"the embedded Postgres of {settings.home} is down")
    try:
        return postgres.address(settings.home)
    except FileNotFoundError as error:  # a supervisor runs, and has not yet started its server
        raise _Down(f"the embedded Postgres of {settings.home} is starting: ask again in a moment") from error


def _has(connection: sa.Connection, table: str) -> bool:
    return connection.scalar(sa.select(sa.func.to_regclass(f"{SCHEMA}.{table}"))) is not None
