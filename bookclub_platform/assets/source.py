"""One source -> `<source>/raw_pages` (pages as received) -> `<source>/cleaned_books` (rows fit for the table).

A source with categories has a partition for each; one without (a file, a web API) is materialised as a whole.
"""

import itertools
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from bookclub_platform import sources
from bookclub_platform.assets._checks import Check, Events, Findings
from bookclub_platform.assets._columns import of_rows
from bookclub_platform.assets._common import (
    ALL_IN_ONE_RUN,
    DATA_ENGINEERING,
    PREVIEW_ROWS,
    categories,
    category_keys,
    link,
    preview,
    shop_link,
)
from bookclub_platform.assets._plots import crawl_plot, picture
from bookclub_platform.assets._row_checks import ROW_CHECKS, check_rows
from bookclub_platform.cleaning import clean
from bookclub_platform.core.book import Book, Category, RawBook, RejectedBook
from bookclub_platform.core.categories import retired_slugs
from bookclub_platform.core.cleaned import CleanedCategory
from bookclub_platform.core.clock import MEND_BOOKS, is_ahead
from bookclub_platform.core.errors import ConfigurationError, PermanentSourceError, ShopUnavailable, SourceError
from bookclub_platform.core.progress import Progress
from bookclub_platform.core.settings import load_settings
from bookclub_platform.core.tables import select_last_seen
from bookclub_platform.local.home import check_shop, note_shop
from bookclub_platform.report import pictures
from bookclub_platform.resources import BooksDatabase, DataFolder
from bookclub_platform.sources import CrawlReport, Page, Source

ALL_PAGES_CAME = Check(
    "all_pages_came", "Every page that the source lists was fetched.", severity=dg.AssetCheckSeverity.WARN
)
PAGES_READABLE = Check(
    "pages_readable",
    "The files of the kept pages are whole. Of a category whose file is damaged, the rows stay as they were.",
    is_blocking=True,
)
_CLEANED_CHECKS = [PAGES_READABLE, *ROW_CHECKS]
_NOT_LISTED = "the source does not list this category now; its books stay until it is retired (`bookclub categories`)"
_RETRY = dg.RetryPolicy(max_retries=2, delay=10, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.FULL)


def source_assets(source: Source) -> list[dg.AssetsDefinition]:
    """The assets of one source, keyed and grouped by its name."""
    return [_raw_pages(source), _cleaned_books(source)]


def _raw_pages(source: Source) -> dg.AssetsDefinition:
    @dg.asset(
        key_prefix=source.name,
        name="raw_pages",
        description=f"Pages of {source.address} as they came, in WARC files: one per category and crawl.",
        partitions_def=categories if source.has_categories else None,
        backfill_policy=ALL_IN_ONE_RUN if source.has_categories else None,
        group_name=source.name,
        owners=[DATA_ENGINEERING],
        kinds={"python", "html"},
        code_version="2",
        retry_policy=_RETRY,
        pool=source.name,  # one run at a time per shop, or its delay between requests would mean nothing
        metadata={"shop": shop_link(source)} | of_rows(Page),
        check_specs=[ALL_PAGES_CAME.spec([source.name, "raw_pages"], source.has_categories)],
    )
    def raw_pages(
        context: dg.AssetExecutionContext,
        files: DataFolder,
        database: BooksDatabase,
        progress: dg.ResourceParam[Progress],
    ) -> Events:
        # Ids must sort by time, and two crawls may begin within a second.
        started_at = datetime.now(UTC)
        crawl_id = f"{started_at:{sources.ID_TIME}}-{context.run_id[:8]}"
        findings = Findings([ALL_PAGES_CAME])
        settings = load_settings()
        try:
            check_shop(settings, source.address)
            _refuse_future(source, files, database, started_at)
            with source.fetcher() as fetcher:
                listed = {category.slug: category for category in source.categories(fetcher)}
                note_shop(settings, source.address)
                keys = category_keys(context, source)
                with database.begin() as connection:
                    retired = retired_slugs(connection, source.name)
                absent = [key for key in keys if key in retired or key not in listed]
                for key in absent:
                    if len(keys) == 1:
                        _refuse_alone(source, key, key in retired, files)
                    absence = {"dagster/row_count": 0, "is_listed": key in listed, "is_retired": key in retired}
                    _add_metadata(context, source, key, absence)
                    if key not in retired and sources.has_pages(files.raw, source.name, key):
                        findings.note(ALL_PAGES_CAME, key, _NOT_LISTED)
                wanted = [listed[key] for key in keys if key not in absent]
                for category, came in sources.crawl_categories(source, wanted, fetcher, files.raw, crawl_id):
                    if isinstance(came, ShopUnavailable):
                        if len(keys) == 1:
                            raise came
                        findings.note(ALL_PAGES_CAME, category.slug, f"the crawl of it was given up: {came.reason}")
                        continue
                    _add_metadata(context, source, category.slug, _crawl_metadata(category, came))
                    context.log.info(f"{category.slug}: {came.pages} pages, {came.books} books in {came.seconds:.1f} s")
                    _check_crawl(findings, category.slug, came)
                    progress.advance("crawl", category.slug)
        except ConfigurationError as error:
            raise dg.Failure(str(error), allow_retries=False) from error
        except SourceError as error:
            raise dg.Failure(str(error), allow_retries=not isinstance(error, PermanentSourceError)) from error
        yield from findings.events(context)

    return raw_pages


def _add_metadata(context: dg.AssetExecutionContext, source: Source, key: str, metadata: dict[str, Any]) -> None:
    context.add_asset_metadata(metadata, partition_key=key if source.has_categories else None)


def _refuse_alone(source: Source, key: str, is_retired: bool, files: DataFolder) -> None:
    """Raise an error that tells the person who requested this one category why there is nothing to crawl. A category
    that is only missing now is skipped: its books stay until core/categories.py has enough proof that it is gone."""
    if is_retired:
        back = f"`bookclub categories restore {key}` puts it back"
        raise PermanentSourceError(source.address, f"category {key!r} is retired; {back}")
    if not sources.has_pages(files.raw, source.name, key):
        raise PermanentSourceError(source.address, f"has no category {key!r}, and never had one")


def _refuse_future(source: Source, files: DataFolder, database: BooksDatabase, now: datetime) -> None:
    """Raise an error if what is stored is newer than now: this crawl and all until then would change nothing."""
    crawls = sources.future_crawls(files.raw, source.name, now)
    if crawls:
        raise PermanentSourceError(
            str(crawls[-1]),
            f"is a stored crawl of the future ({len(crawls)} in all), which would be read instead of this one. If this "
            f"machine's clock is behind, set it. If it was ahead then, move away every file below "
            f"{files.raw / source.name} whose name is later than {now:{sources.ID_TIME}}.",
        )
    with database.begin() as connection:
        seen: dict[str, datetime] = dict(connection.execute(select_last_seen()).tuples().all())
    if source.name in seen and is_ahead(seen[source.name], now):
        at = f"{seen[source.name]:%Y-%m-%d %H:%M}"
        raise PermanentSourceError(source.address, f"has books that were seen in the future, {at} UTC. {MEND_BOOKS}")


def _crawl_metadata(category: Category, report: CrawlReport) -> dict[str, Any]:
    return {
        "dagster/row_count": report.books,
        "pages": report.pages,
        "unchanged": report.unchanged,
        "resumed": report.resumed,
        "bytes": report.bytes,
        "requests": report.requests,
        "retries": report.retries,
        "statuses": {str(status): count for status, count in sorted(report.statuses.items())},
        "seconds": round(report.seconds, 3),
        "latency": crawl_plot(report.timings),
        "is_complete": report.is_complete,
        "failed_pages": [f"{page.url}: {page.reason}" for page in report.failed],
        "crawl_id": report.crawl_id,
        "file": dg.MetadataValue.path(report.path),
        "preview": preview(
            [
                {"kind": page.kind, "status": page.status, "bytes": len(page.body), "url": page.url}
                for page in itertools.islice(sources.read_pages(report.path), PREVIEW_ROWS)
            ]
        ),
        "shop_page": link(category.url),
    }


def _check_crawl(findings: Findings, key: str, report: CrawlReport) -> None:
    failed = len(report.failed)
    fault = None if report.is_complete else f"the crawl is not complete: {failed} pages failed, see failed_pages"
    findings.note(ALL_PAGES_CAME, key, fault, failed=failed, pages=report.pages)


def _cleaned_books(source: Source) -> dg.AssetsDefinition:
    @dg.asset(
        key_prefix=source.name,
        name="cleaned_books",
        description="Rows read from the kept pages, cleaned; rows that cannot stand are kept apart with the reason.",
        deps=[dg.AssetKey([source.name, "raw_pages"])],
        partitions_def=categories if source.has_categories else None,
        backfill_policy=ALL_IN_ONE_RUN if source.has_categories else None,
        group_name=source.name,
        owners=[DATA_ENGINEERING],
        kinds={"python", "beautifulsoup"},
        code_version="2",
        metadata={"shop": shop_link(source)} | of_rows(Book),
        check_specs=[check.spec([source.name, "cleaned_books"], source.has_categories) for check in _CLEANED_CHECKS],
    )
    def cleaned_books(
        context: dg.AssetExecutionContext, files: DataFolder, progress: dg.ResourceParam[Progress]
    ) -> Events:
        findings = Findings(_CLEANED_CHECKS)
        for key in category_keys(context, source):
            started = time.perf_counter()
            try:
                category, applied = _clean_category(source, key, files)
            except PermanentSourceError as error:
                findings.note(PAGES_READABLE, key, str(error))
                _add_metadata(context, source, key, {"dagster/row_count": 0, "is_handed_on": False})
                continue
            if category is None:
                _add_metadata(context, source, key, {"dagster/row_count": 0, "is_listed": False})
                continue
            by_rule = Counter(row.rule for row in category.rejected)
            findings.note(PAGES_READABLE, key, None)
            check_rows(findings, key, category.books, category.rejected)
            if not findings.blocks(key):  # else the previously passed rows stay, and so does the table
                files.write_cleaned(source.name, key, category)
            figures = {
                "dagster/row_count": len(category.books),
                "rejected": len(category.rejected),
                "rejected_by_rule": dict(by_rule),
                "is_handed_on": not findings.blocks(key),
                "rejected_pages": [
                    f"{row.url} ({row.raw_page}): {row.rule}: {row.reason}" for row in category.rejected[:100]
                ],
                "cleaning": dict(applied),
                "seconds": round(time.perf_counter() - started, 3),
                "preview": preview([_shown(book) for book in itertools.islice(category.books, PREVIEW_ROWS)]),
                "shop_page": link(next((book.url for book in category.books), source.address)),
            }
            if by_rule:
                figures["rejects_by_rule"] = picture(pictures.rejects(by_rule), "refused pages by rule")
            _add_metadata(context, source, key, figures)
            progress.advance("clean", key)
        yield from findings.events(context)

    return cleaned_books


def _clean_category(source: Source, key: str, files: DataFolder) -> tuple[CleanedCategory | None, Counter[str]]:
    """The newest stored crawl of a category, cleaned; None for a category that this source does not have. Raises
    PermanentSourceError if its file is damaged."""
    crawl = sources.latest(files.raw, source.name, key)
    if crawl is None:
        return None, Counter()
    unreadable: list[RejectedBook] = []
    cleaned = clean(_readable(sources.iter_raw_books(source, key, crawl.path), unreadable))
    category = CleanedCategory(
        crawl_id=crawl.crawl_id,
        crawled_at=crawl.finished_at,
        is_complete=crawl.is_complete,
        books=cleaned.books,
        rejected=[*unreadable, *cleaned.rejected],
    )
    return category, cleaned.applied


def _readable(rows: Iterable[RawBook | RejectedBook], unreadable: list[RejectedBook]) -> Iterator[RawBook]:
    """The books of `rows`; the others are appended to `unreadable`."""
    for row in rows:
        if isinstance(row, RejectedBook):
            unreadable.append(row)
        else:
            yield row


def _shown(book: Book) -> dict[str, Any]:
    return {name: getattr(book, name) for name in ("upc", "title", "price", "rating", "stock", "description")}
