"""One shop -> `<shop>/raw_pages` (pages as they came) -> `<shop>/cleaned_books` (rows fit for the table)."""

import itertools
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from bookclub_platform import sources
from bookclub_platform.assets._common import ALL_IN_ONE_RUN, DATA_ENGINEERING, PREVIEW_ROWS, categories, preview
from bookclub_platform.cleaning import clean
from bookclub_platform.core.book import Book, Category
from bookclub_platform.core.errors import PermanentSourceError, SourceError
from bookclub_platform.core.progress import Progress
from bookclub_platform.resources import CleanedCategory, DataFolder, ShopFetcher
from bookclub_platform.sources import CrawlReport, Source

_RETRY = dg.RetryPolicy(max_retries=2, delay=10, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.FULL)


def shop_assets(source: Source) -> list[dg.AssetsDefinition]:
    """The assets of one shop, keyed and grouped by its name."""
    return [_raw_pages(source), _cleaned_books(source)]


def _raw_pages(source: Source) -> dg.AssetsDefinition:
    @dg.asset(
        key_prefix=source.name,
        name="raw_pages",
        description=f"Pages of {source.address} as they came, in WARC files: one per category and crawl.",
        partitions_def=categories,
        backfill_policy=ALL_IN_ONE_RUN,
        group_name=source.name,
        owners=[DATA_ENGINEERING],
        kinds={"python", "html"},
        code_version="1",
        retry_policy=_RETRY,
        check_specs=[
            dg.AssetCheckSpec(
                "all_pages_came",
                asset=dg.AssetKey([source.name, "raw_pages"]),
                description="Every page that the shop lists was fetched.",
            )
        ],
        metadata={"shop": dg.MetadataValue.url(source.address)},
    )
    def raw_pages(
        context: dg.AssetExecutionContext, files: DataFolder, shop: ShopFetcher, progress: dg.ResourceParam[Progress]
    ) -> dg.MaterializeResult:
        crawl_id = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{context.run_id[:8]}"
        reports = []
        with shop.open() as fetcher:
            try:
                listed = {category.slug: category for category in source.categories(fetcher)}
                for key in context.partition_keys:
                    category = _listed(listed, key, source)
                    report = sources.crawl_category(source, category, fetcher, files.raw, crawl_id)
                    context.add_asset_metadata(_crawl_metadata(category, report), partition_key=key)
                    context.log.info(f"{key}: {report.pages} pages, {report.books} books in {report.seconds:.1f} s")
                    progress.advance("crawl", key)
                    reports.append(report)
            except SourceError as error:
                is_permanent = isinstance(error, PermanentSourceError)
                raise dg.Failure(str(error), allow_retries=not is_permanent) from error
        return dg.MaterializeResult(check_results=[_all_pages_came(reports)])

    return raw_pages


def _listed(listed: dict[str, Category], key: str, source: Source) -> Category:
    if key not in listed:
        raise PermanentSourceError(source.address, f"has no category {key!r} any more; it lists {len(listed)} others")
    return listed[key]


def _crawl_metadata(category: Category, report: CrawlReport) -> dict[str, Any]:
    return {
        "dagster/row_count": report.books,
        "pages": report.pages,
        "bytes": report.bytes,
        "requests": report.requests,
        "retries": report.retries,
        "seconds": round(report.seconds, 3),
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


def _cleaned_books(source: Source) -> dg.AssetsDefinition:
    @dg.asset(
        key_prefix=source.name,
        name="cleaned_books",
        description="Rows read from the kept pages, cleaned; rows that cannot stand are kept apart with the reason.",
        deps=[dg.AssetKey([source.name, "raw_pages"])],
        partitions_def=categories,
        backfill_policy=ALL_IN_ONE_RUN,
        group_name=source.name,
        owners=[DATA_ENGINEERING],
        kinds={"python", "beautifulsoup"},
        code_version="1",
        check_specs=[
            dg.AssetCheckSpec(
                "rows_fit",
                asset=dg.AssetKey([source.name, "cleaned_books"]),
                blocking=True,
                description="Keys are unique, and no more than a tenth of the pages of a category was rejected.",
            )
        ],
    )
    def cleaned_books(
        context: dg.AssetExecutionContext, files: DataFolder, progress: dg.ResourceParam[Progress]
    ) -> dg.MaterializeResult:
        faults: dict[str, str] = {}
        for key in context.partition_keys:
            started = time.perf_counter()
            category, applied = _clean_category(source, key, files)
            fault = rows_fault(category)
            if fault:
                faults[key] = fault
            figures = {
                "dagster/row_count": len(category.books),
                "rejected": len(category.rejected),
                "reasons": dict(Counter(row.reason for row in category.rejected)),
                "cleaning": dict(applied),
                "seconds": round(time.perf_counter() - started, 3),
                "preview": preview([_shown(book) for book in category.books]),
            }
            context.add_asset_metadata(figures, partition_key=key)
            progress.advance("clean", key)
        check = dg.AssetCheckResult(check_name="rows_fit", passed=not faults, metadata={"faults": faults})
        return dg.MaterializeResult(check_results=[check])

    return cleaned_books


def _clean_category(source: Source, key: str, files: DataFolder) -> tuple[CleanedCategory, Counter[str]]:
    """Clean the newest kept crawl of a category, and store the result."""
    crawl = sources.latest(files.raw, source.name, key)
    if crawl is None:
        raise dg.Failure(f"No kept pages of {key} below {files.raw}: materialise raw_pages first.", allow_retries=False)
    raw_books, unreadable = sources.read_raw_books(source, key, crawl.path)
    cleaned = clean(raw_books)
    category = CleanedCategory(
        crawl_id=crawl.crawl_id,
        crawled_at=crawl.finished_at,
        is_complete=crawl.is_complete,
        books=cleaned.books,
        rejected=[*unreadable, *cleaned.rejected],
    )
    files.write_cleaned(source.name, key, category)
    return category, cleaned.applied


def rows_fault(category: CleanedCategory) -> str | None:
    """What keeps these rows from the table; None if nothing does."""
    keys = Counter(book.source_id for book in category.books)
    doubles = [key for key, count in keys.items() if count > 1]
    if doubles:
        return f"{len(doubles)} keys stand twice, {doubles[0]} among them"
    if len(category.rejected) * 10 > len(category.books) + len(category.rejected):
        return f"{len(category.rejected)} of {len(category.books) + len(category.rejected)} pages rejected"
    return None


def _shown(book: Book) -> dict[str, Any]:
    return {name: getattr(book, name) for name in ("upc", "title", "price", "rating", "stock", "description")}


def _all_pages_came(reports: Sequence[CrawlReport]) -> dg.AssetCheckResult:
    failed = {report.category: len(report.failed) for report in reports if not report.is_complete}
    return dg.AssetCheckResult(
        check_name="all_pages_came",
        passed=not failed,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"incomplete_categories": failed},
    )
