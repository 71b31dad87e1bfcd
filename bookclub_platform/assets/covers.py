"""Cleaned rows of a source -> `<source>/covers`: their cover images, checked, with thumbnails."""

from collections.abc import Sequence
from typing import Any

import dagster as dg

from bookclub_platform.assets._columns import of_rows
from bookclub_platform.assets._common import (
    ALL_IN_ONE_RUN,
    DATA_ENGINEERING,
    categories,
    category_keys,
    preview,
    shop_link,
)
from bookclub_platform.core.covers import Cover
from bookclub_platform.core.errors import PermanentSourceError, SourceError
from bookclub_platform.core.progress import Progress
from bookclub_platform.resources import DataFolder
from bookclub_platform.sources import CoverReport, Source, collect_covers


def covers_asset(source: Source) -> dg.AssetsDefinition:
    """The covers asset of one source; it fetches only new images."""

    @dg.asset(
        key_prefix=source.name,
        name="covers",
        description="Cover images, each once by its content, with a thumbnail; what was no image is kept as a reason.",
        deps=[dg.AssetKey([source.name, "cleaned_books"])],
        partitions_def=categories if source.has_categories else None,
        backfill_policy=ALL_IN_ONE_RUN if source.has_categories else None,
        group_name=source.name,
        owners=[DATA_ENGINEERING],
        kinds={"python", "image"},
        code_version="1",
        pool=source.name,
        metadata={"shop": shop_link(source)} | of_rows(Cover),
    )
    def covers(
        context: dg.AssetExecutionContext, files: DataFolder, progress: dg.ResourceParam[Progress]
    ) -> dg.MaterializeResult:
        try:
            opened = source.cover_fetcher()
            if opened is None:
                reason = "a file names no images to fetch"
                return dg.MaterializeResult(metadata={"dagster/row_count": 0, "reason": reason})
            with opened as fetcher:
                for key in category_keys(context, source):
                    cleaned = files.read_cleaned(source.name, key)
                    urls = [book.image_url for book in cleaned.books if book.image_url] if cleaned else []
                    report = collect_covers(urls, fetcher, files.covers(source.name))
                    metadata = _metadata(source, report, urls)
                    context.add_asset_metadata(metadata, partition_key=key if source.has_categories else None)
                    progress.advance("covers", key)
        except SourceError as error:
            raise dg.Failure(str(error), allow_retries=not isinstance(error, PermanentSourceError)) from error
        return dg.MaterializeResult()

    return covers


def _metadata(source: Source, report: CoverReport, urls: Sequence[str]) -> dict[str, Any]:
    faults = [*report.rejected, *report.failed]
    return {
        "dagster/row_count": len(urls),
        "new": report.new,
        "same_bytes": report.same_bytes,
        "known": report.known,
        "rejected": len(report.rejected),
        "failed": len(report.failed),
        "bytes": report.bytes,
        "seconds": round(report.seconds, 3),
        "folder": dg.MetadataValue.path(report.folder),
        "faults": preview([{"url": page.url, "reason": page.reason} for page in faults]),
        "preview": preview([{"url": url} for url in urls]),
        "shop": shop_link(source),
    }
