"""Settings -> findings: is each part of the platform as it must be, and if not, what mends it?

Nothing is started or changed; what is not up is a finding.
"""

from __future__ import annotations

import json
import platform
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import sqlalchemy as sa

from bookclub_platform.core.database import database_urls
from bookclub_platform.core.settings import Settings
from bookclub_platform.core.tables import select_books, select_count
from bookclub_platform.local import postgres
from bookclub_platform.local.home import NEEDED_BYTES
from bookclub_platform.sources import faults, sources_file

START = "Start the platform: `make run`."


@dataclass(frozen=True, slots=True)
class Finding:
    """`text` says what was found and, where `is_well` is false, what mends it."""

    part: str
    is_well: bool
    text: str


def examine(settings: Settings) -> Iterator[Finding]:
    """A finding for each part, in the order in which the parts depend on each other."""
    yield _python()
    yield _disk(settings)
    yield _sources(settings)
    yield _database(settings)
    yield _answers("shop", f"{settings.shop_url}/", "Set BOOKCLUB_SHOP_URL to a shop that is up.")
    mlflow = settings.mlflow_tracking_uri or f"http://127.0.0.1:{settings.mlflow_port}"
    yield _answers("mlflow", f"{mlflow}/health", START)
    yield _answers("dagster", f"http://127.0.0.1:{settings.dagster_port}/server_info", START)
    yield _api(settings)


def _python() -> Finding:
    return Finding("python", sys.version_info >= (3, 11), f"{platform.python_version()} at {sys.executable}")


def _disk(settings: Settings) -> Finding:
    folder = settings.home if settings.home.exists() else settings.home.parent
    free = shutil.disk_usage(folder).free
    text = f"{free / 2**30:.1f} GB left for {settings.home}"
    if free < NEEDED_BYTES:
        return Finding("disk", False, f"{text}. Make room, or set BOOKCLUB_HOME to a folder on another disk.")
    return Finding("disk", True, text)


def _sources(settings: Settings) -> Finding:
    wrong = faults(settings)
    if wrong:
        return Finding("sources", False, f"{'; '.join(wrong)}. Mend the file; the other sources work.")
    return Finding("sources", True, str(sources_file(settings)))


def _database(settings: Settings) -> Finding:
    if settings.database_url is None and not postgres.is_running(settings.home):
        return Finding("database", False, f"the embedded Postgres of {settings.home} is down. {START}")
    url = database_urls(settings.database_url or postgres.address(settings.home)).books
    place = sa.make_url(url).render_as_string(hide_password=True)
    try:
        with sa.create_engine(url, connect_args={"connect_timeout": 5}).connect() as connection:
            books = connection.scalar(select_count(select_books()))
    except sa.exc.OperationalError as error:
        return Finding(
            "database", False, f"{place}: {str(error.orig).strip()}. Start it, or set BOOKCLUB_DATABASE_URL."
        )
    except sa.exc.ProgrammingError:
        return Finding("database", False, f"{place} has no tables of ours. {START}")
    if not books:
        return Finding("database", False, f"{place} has no books. Fill it: `bookclub build`.")
    return Finding("database", True, f"{books} books at {place}")


def _answers(part: str, url: str, mend: str) -> Finding:
    return _asked(part, url, lambda _: f"answers at {url}", mend)


def _api(settings: Settings) -> Finding:
    url = f"http://{settings.api_host}:{settings.api_port}/model"

    def text(body: bytes) -> str:
        model = json.loads(body)
        return f"answers with {model['name']} version {model['version']}"

    return _asked("api", url, text, START)


def _asked(part: str, url: str, text: Callable[[bytes], str], mend: str) -> Finding:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return Finding(part, True, text(answer.read()))
    except urllib.error.HTTPError as error:
        return Finding(part, False, f"{url} answers {error.code} {error.reason}. {mend}")
    except OSError as error:
        return Finding(part, False, f"{url} does not answer ({error}). {mend}")
