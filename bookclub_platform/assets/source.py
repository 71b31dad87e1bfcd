"""One source -> `<source>/raw_pages` (pages as they came) -> `<source>/cleaned_books` (rows fit for the table).

A source with categories has a partition for each; one without (a file, a web API) is materialised as a whole.
"""

import itertools
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from bookclub_platform import sources
from bookclub_platform.assets._common import (
    ALL_IN_ONE_RUN,
    DATA_ENGINEERING,
    PREVIEW_ROWS,
    categories,
    category_keys,
    preview,
)
from bookclub_platform.assets._plots import crawl_plot
from bookclub_platform.cleaning import clean
from bookclub_platform.core.book import Book, Category, RawBook, RejectedBook
from bookclub_platform.core.cleaned import CleanedCategory
from bookclub_platform.core.errors import PermanentSourceError, SourceError
from bookclub_platform.core.progress import Progress
from bookclub_platform.resources import DataFolder
from bookclub_platform.sources import CrawlReport, Source

MOST_REJECTED = 0.1
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
        check_specs=[
            dg.AssetCheckSpec(
                "all_pages_came",
                asset=dg.AssetKey([source.name, "raw_pages"]),
                description="Every page that the source lists was fetched.",
            )
        ],
    )
    def raw_pages(
        context: dg.AssetExecutionContext, files: DataFolder, progress: dg.ResourceParam[Progress]
    ) -> dg.MaterializeResult:
        # Ids sort by time, and two crawls may begin within a second.
        crawl_id = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}-{context.run_id[:8]}"
        reports = []
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
                    progress.advance("crawl", key)
                    reports.append(report)
        except SourceError as error:
            raise dg.Failure(str(error), allow_retries=not isinstance(error, PermanentSourceError)) from error
        return dg.MaterializeResult(check_results=[_all_pages_came(reports)])

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


def _all_pages_came(reports: Sequence[CrawlReport]) -> dg.AssetCheckResult:
    failed = {report.category: len(report.failed) for report in reports if not report.is_complete}
    return dg.AssetCheckResult(
        check_name="all_pages_came",
        passed=not failed,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"incomplete_categories": failed},
    )


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
        check_specs=[
            dg.AssetCheckSpec(
                "rows_fit",
                asset=dg.AssetKey([source.name, "cleaned_books"]),
                blocking=True,
                description="No key stands twice, and each row is one that the table can hold.",
            ),
            dg.AssetCheckSpec(
                "few_rejected",
                asset=dg.AssetKey([source.name, "cleaned_books"]),
                description="At most a tenth of a category was rejected: more of it smells of a changed layout.",
            ),
        ],
    )
    def cleaned_books(
        context: dg.AssetExecutionContext, files: DataFolder, progress: dg.ResourceParam[Progress]
    ) -> dg.MaterializeResult:
        cleaned: dict[str, CleanedCategory] = {}
        for key in category_keys(context, source):
            started = time.perf_counter()
            category, applied = _clean_category(source, key, files)
            if category is None:
                _add_metadata(context, source, key, {"dagster/row_count": 0})
                continue
            cleaned[key] = category
            figures = {
                "dagster/row_count": len(category.books),
                "rejected": len(category.rejected),
                "reasons": dict(Counter(row.reason for row in category.rejected)),
                "rejected_pages": [f"{row.url} ({row.raw_page}): {row.reason}" for row in category.rejected[:100]],
                "cleaning": dict(applied),
                "seconds": round(time.perf_counter() - started, 3),
                "preview": preview([_shown(book) for book in category.books]),
            }
            _add_metadata(context, source, key, figures)
            progress.advance("clean", key)
        return dg.MaterializeResult(check_results=[_rows_fit(cleaned), _few_rejected(cleaned)])

    return cleaned_books


def _clean_category(source: Source, key: str, files: DataFolder) -> tuple[CleanedCategory | None, Counter[str]]:
    """Clean the newest kept crawl of a category, and store the result; None for one that this source does not have."""
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
    files.write_cleaned(source.name, key, category)
    return category, cleaned.applied


def _readable(rows: Iterable[RawBook | RejectedBook], unreadable: list[RejectedBook]) -> Iterator[RawBook]:
    """The books of `rows`; the others are appended to `unreadable`."""
    for row in rows:
        if isinstance(row, RejectedBook):
            unreadable.append(row)
        else:
            yield row


def _rows_fit(cleaned: Mapping[str, CleanedCategory]) -> dg.AssetCheckResult:
    faults = {key: fault for key, category in cleaned.items() if (fault := rows_fault(category.books))}
    return dg.AssetCheckResult(check_name="rows_fit", passed=not faults, metadata={"faults": faults})


def rows_fault(books: Collection[Book]) -> str | None:
    """What keeps these rows from the table; None if nothing does."""
    keys = Counter(book.source_id for book in books)
    doubles = [key for key, count in keys.items() if count > 1]
    if doubles:
        return f"{len(doubles)} keys stand twice, {doubles[0]} among them"
    unfit = [book.url for book in books if book.price < 0 or not (book.rating is None or 1 <= book.rating <= 5)]
    return f"{len(unfit)} rows have an impossible price or rating, {unfit[0]} among them" if unfit else None


def _few_rejected(cleaned: Mapping[str, CleanedCategory]) -> dg.AssetCheckResult:
    shares = {key: f"{len(rows.rejected)} of {len(rows.rejected) + len(rows.books)}" for key, rows in cleaned.items()}
    many = {key: shares[key] for key, rows in cleaned.items() if len(rows.rejected) > MOST_REJECTED * _size(rows)}
    return dg.AssetCheckResult(check_name="few_rejected", passed=not many, metadata={"rejected": many})


def _size(category: CleanedCategory) -> int:
    return len(category.books) + len(category.rejected)


def _shown(book: Book) -> dict[str, Any]:
    return {name: getattr(book, name) for name in ("upc", "title", "price", "rating", "stock", "description")}
