"""What the assets share: partitions, owners, and how figures become metadata."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import dagster as dg

from bookclub_platform.core.book import slug_of
from bookclub_platform.sources import Source

# One set of partitions for every shop: a partition is a category of our catalogue, and each shop fills its own part of
# it. See docs/decisions/0001-partitions.md.
CATEGORIES = "categories"
categories = dg.DynamicPartitionsDefinition(name=CATEGORIES)
ALL_IN_ONE_RUN = dg.BackfillPolicy.single_run()
PREVIEW_ROWS = 5
DATA_ENGINEERING = "team:data-engineering"
DATA_SCIENCE = "team:data-science"


def whole_key(source_name: str) -> str:
    """The key that stands for the whole of a source without categories: the slug of its name."""
    return slug_of(source_name)


def category_keys(context: dg.AssetExecutionContext, source: Source) -> Sequence[str]:
    """The slugs of the categories to process: the run's partitions, or the one that stands for the whole source."""
    return context.partition_keys if source.has_categories else [whole_key(source.name)]


def preview(rows: Sequence[Mapping[str, Any]]) -> dg.MetadataValue:
    """The first rows as a table for the UI."""
    records = [dg.TableRecord({name: _short(str(value)) for name, value in row.items()}) for row in rows[:PREVIEW_ROWS]]
    columns = [dg.TableColumn(name, "string") for name in (rows[0] if rows else ())]
    return dg.MetadataValue.table(records, schema=dg.TableSchema(columns))


def link(address: str) -> dg.MetadataValue:
    """A link for the UI: a web page, or the path of a file on this machine."""
    is_web = address.startswith(("http://", "https://"))
    return dg.MetadataValue.url(address) if is_web else dg.MetadataValue.path(address)


def shop_link(source: Source) -> dg.MetadataValue:
    """A link to the source itself."""
    return link(source.address)


def _short(text: str, width: int = 100) -> str:
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"


def range_tags(keys: Sequence[str]) -> dict[str, str]:
    """Run tags that make one run of all `keys`, which must be consecutive in the order of the partitions."""
    return {"dagster/asset_partition_range_start": keys[0], "dagster/asset_partition_range_end": keys[-1]}


def stretches(keys: Sequence[str], left_out: Collection[str]) -> list[list[str]]:
    """`keys` without those in `left_out`, as lists of consecutive keys."""
    grouped = itertools.groupby(keys, key=lambda key: key in left_out)
    return [list(stretch) for is_out, stretch in grouped if not is_out]
