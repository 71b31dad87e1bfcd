"""One source -> `<source>/raw_pages` (pages as they came) -> `<source>/cleaned_books` (rows fit for the table).

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
from bookclub_platform.assets._common import (
    ALL_IN_ONE_RUN,
    DATA_ENGINEERING,
    PREVIEW_ROWS,
    categories,
    category_keys,
    preview,
)
from bookclub_platform.assets._plots import crawl_plot
from bookclub_platform.assets._row_checks import ROW_CHECKS, check_rows
from bookclub_platform.cleaning import clean
from bookclub_platform.core.book import Book, Category, RawBook, RejectedBook
from bookclub_platform.core.errors import PermanentSourceError, SourceError
from bookclub_platform.core.progress import Progress
from bookclub_platform.resources import CleanedCategory, DataFolder
from bookclub_platform.sources import CrawlReport, Source

ALL_PAGES_CAME = Check(
    "all_pages_came", "Every page that the source lists was fetched.", severity=dg.AssetCheckSeverity.WARN
)
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
        check_specs=[ALL_PAGES_CAME.spec([source.name, "raw_pages"], source.has_categories)],
    )
    def raw_pages(context: dg.AssetExecutionContext, files: DataFolder, progress: dg.ResourceParam[Progress]) -> Events:
        # Ids sort by time, and two crawls may begin within a second.
        crawl_id = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}-{context.run_id[:8]}"
        findings = Findings([ALL_PAGES_CAME])
        try:
            with source.fetcher() as fetcher:
                listed = {category.slug: category for category in source.categories(fetcher)}
                for key in category_keys(context, source):
                    if key not in listed:
                        metadata = _note_absence(source, key, crawl_id, files, context)
                        if len(category_keys(context, source)) == 1 and not metadata["is_gone"]:
                            raise PermanentSourceError(source.address, f"has no category {key!r}, and never had one")
                        _add_metadata(context, source, key, metadata)
                        continue
                    report = sources.crawl_category(source, listed[key], fetcher, files.raw, crawl_id)
                    _add_metadata(context, source, key, _crawl_metadata(listed[key], report))
                    context.log.info(f"{key}: {report.pages} pages, {report.books} books in {report.seconds:.1f} s")
                    _check_crawl(findings, key, report)
                    progress.advance("crawl", key)
        except SourceError as error:
            raise dg.Failure(str(error), allow_retries=not isinstance(error, PermanentSourceError)) from error
        yield from findings.events(context)

    return raw_pages


def _add_metadata(context: dg.AssetExecutionContext, source: Source, key: str, metadata: dict[str, Any]) -> None:
    context.add_asset_metadata(metadata, partition_key=key if source.has_categories else None)


def _note_absence(
    source: Source, key: str, crawl_id: str, files: DataFolder, context: dg.AssetExecutionContext
) -> dict[str, Any]:
    """A category that another source has is none of ours; one that we kept pages of is gone, and its books with it."""
    is_gone = sources.latest(files.raw, source.name, key) is not None
    if is_gone:
        context.log.warning(f"{key}: {source.address} has this category no more; its books will be marked as delisted")
        gone = CleanedCategory(crawl_id, datetime.now(UTC), is_complete=True, books=[], rejected=[], is_gone=True)
        files.write_cleaned(source.name, key, gone)
    return {"dagster/row_count": 0, "is_listed": False, "is_gone": is_gone}


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
        "shop_page": dg.MetadataValue.url(category.url),
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
        check_specs=[check.spec([source.name, "cleaned_books"], source.has_categories) for check in ROW_CHECKS],
    )
    def cleaned_books(
        context: dg.AssetExecutionContext, files: DataFolder, progress: dg.ResourceParam[Progress]
    ) -> Events:
        findings = Findings(ROW_CHECKS)
        for key in category_keys(context, source):
            started = time.perf_counter()
            category, applied = _clean_category(source, key, files)
            if category is None:
                _add_metadata(context, source, key, {"dagster/row_count": 0})
                continue
            check_rows(findings, key, category.books, category.rejected)
            if not findings.blocks(key):  # else what was handed on before stays, and the table with it
                files.write_cleaned(source.name, key, category)
            figures = {
                "dagster/row_count": len(category.books),
                "rejected": len(category.rejected),
                "rejected_by_rule": dict(Counter(row.rule for row in category.rejected)),
                "is_handed_on": not findings.blocks(key),
                "rejected_pages": [
                    f"{row.url} ({row.raw_page}): {row.rule}: {row.reason}" for row in category.rejected[:100]
                ],
                "cleaning": dict(applied),
                "seconds": round(time.perf_counter() - started, 3),
                "preview": preview([_shown(book) for book in category.books]),
            }
            _add_metadata(context, source, key, figures)
            progress.advance("clean", key)
        yield from findings.events(context)

    return cleaned_books


def _clean_category(source: Source, key: str, files: DataFolder) -> tuple[CleanedCategory | None, Counter[str]]:
    """The newest kept crawl of a category, cleaned; None for a category that this source does not have."""
    crawl = sources.latest(files.raw, source.name, key)
    before = files.read_cleaned(source.name, key)
    if crawl is None or (before is not None and before.is_gone and before.crawled_at > crawl.finished_at):
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
