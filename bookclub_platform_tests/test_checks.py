"""Asset checks, each seen to pass and to fail: as pure functions, then by Dagster's own runs on a shop that changes."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

from bookclub_platform import sandbox
from bookclub_platform.assets._checks import Check, Events, Findings
from bookclub_platform.assets._common import CATEGORIES, categories, range_tags
from bookclub_platform.assets._row_checks import ROW_CHECKS, check_rows, least_share
from bookclub_platform.core import tables
from bookclub_platform.core.book import Book, RejectedBook
from bookclub_platform.core.settings import load_settings
from bookclub_platform.definitions import build_definitions
from bookclub_platform_tests.local_http import ChangingShop, changing_shop
from bookclub_platform_tests.test_tables import BOOK, NOON, OTHER, REST

SHELF = [BOOK, OTHER, *REST]
BESIDE = [replace(book, source_id=f"{book.source_id}-b") for book in SHELF]
REJECTED = RejectedBook("shop", "travel", "http://shop/x", "title: there is none", NOON, None, "title_given")


def faults(books: Sequence[Book], rejected: Sequence[RejectedBook] = ()) -> dict[str, str]:
    findings = Findings(ROW_CHECKS)
    check_rows(findings, "travel", books, rejected)
    return {check.name: fault for check in ROW_CHECKS if (fault := findings.fault(check, "travel"))}


def test_good_rows_pass_every_check() -> None:
    assert faults(SHELF) == {}
    assert faults([*SHELF, *BESIDE], [REJECTED]) == {}


@pytest.mark.parametrize(
    ("books", "rejected", "name", "fault"),
    [
        (
            [*SHELF, replace(BOOK, source_id="x", rating=6)],
            [],
            "rows_fit",
            "1 of 6 rows break a rule, first http://shop/salt-road (rating=6)",
        ),
        ([BOOK, OTHER, BOOK], [], "key_unique", "1 keys stand twice, 'upc-1' among them"),
        (SHELF, [REJECTED], "few_rejected", "1 of 6 were rejected: title_given 1"),
        ([], [], "has_books", "no page of a book came"),
        (
            [replace(book, description=None) for book in SHELF],
            [],
            "has_descriptions",
            "5 of 5 rows have no description",
        ),
    ],
)
def test_each_check_of_the_rows_fails_alone(
    books: list[Book], rejected: list[RejectedBook], name: str, fault: str
) -> None:
    assert faults(books, rejected) == {name: fault}


def test_the_only_book_of_a_category_may_lack_its_description() -> None:
    assert faults([replace(BOOK, description=None)]) == {}
    assert least_share(1, 1) < 0.25 < least_share(2, 2) < 1
    assert least_share(0, 0) == 0.0


FITS = Check("fits", "For the tests below.", is_blocking=True)


def tiny_graph(odd: set[str], loaded: list[str]) -> list[dg.AssetsDefinition]:
    """`rows` with the check FITS, which the categories `odd` fail, and `table`, which notes what it was run for."""

    @dg.asset(
        partitions_def=categories, backfill_policy=dg.BackfillPolicy.single_run(), check_specs=[FITS.spec(["rows"])]
    )
    def rows(context: dg.AssetExecutionContext) -> Events:
        findings = Findings([FITS])
        for key in context.partition_keys:
            findings.note(FITS, key, "does not fit" if key in odd else None)
        yield from findings.events(context)

    @dg.asset(deps=[rows], partitions_def=categories, backfill_policy=dg.BackfillPolicy.single_run())
    def table(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        loaded.extend(context.partition_keys)
        return dg.MaterializeResult()

    return [rows, table]


@pytest.mark.parametrize(
    ("odd", "chosen", "is_stopped"),
    [
        (set(), ["a", "b", "c"], False),
        ({"b"}, ["a", "b", "c"], False),
        ({"b"}, ["b"], True),
        ({"a", "b", "c"}, ["a", "b", "c"], True),
    ],
)
def test_a_blocking_check_stops_the_run_only_if_no_category_passes(
    odd: set[str], chosen: list[str], is_stopped: bool
) -> None:
    loaded: list[str] = []
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions(CATEGORIES, ["a", "b", "c"])
        result = dg.materialize(
            tiny_graph(odd, loaded), instance=instance, tags=range_tags(chosen), raise_on_error=False
        )
        seen = {found.partition: found.passed for found in result.get_asset_check_evaluations() if found.partition}
        assert seen == {key: key not in odd for key in chosen}
        shown = newest(instance, "rows", "fits")
        assert shown.passed is not bool(odd) and all(key in (shown.description or "") for key in odd)
        assert statuses(instance, "rows", "fits") == seen
    assert result.success is not is_stopped
    assert loaded == ([] if is_stopped else chosen)


def statuses(instance: dg.DagsterInstance, asset: str, check: str) -> dict[str, bool]:
    """Partition -> passed, as the UI reads it: only results that belong to the newest materialisation."""
    key = dg.AssetCheckKey(dg.AssetKey.from_user_string(asset), check)
    infos = instance.event_log_storage.get_asset_check_partition_info([key])
    partitions = {info.partition_key: info for info in infos if info.partition_key is not None}
    assert all(info.is_current for info in partitions.values())
    succeeded = AssetCheckExecutionRecordStatus.SUCCEEDED
    return {name: info.latest_execution_status == succeeded for name, info in partitions.items()}


def newest(instance: dg.DagsterInstance, asset: str, check: str) -> dg.AssetCheckEvaluation:
    """The result that the overview of an asset shows."""
    key = dg.AssetCheckKey(dg.AssetKey.from_user_string(asset), check)
    record = instance.event_log_storage.get_latest_asset_check_execution_by_key([key])[key]
    assert record.evaluation is not None
    return record.evaluation


CATEGORY_FAULTS = ["cut", "dear", "collapsed", "broken", "mute", "starless", "emptied", "well"]  # largest first


@dataclass
class Platform:
    """A platform over one shop, crawled on a good night and then on a bad one.

    Attributes:
        keys: what went wrong in the bad night (one of CATEGORY_FAULTS) -> the category that it happened to.
        good: the rows of each of these after the good night.
    """

    instance: dg.DagsterInstance
    shop: ChangingShop
    engine: sa.Engine
    keys: dict[str, str]
    good: dict[str, list[Any]] = field(default_factory=dict)

    def crawl(self, keys: Sequence[str], *chosen: str, **config: Any) -> dg.ExecuteInProcessResult:
        definitions = build_definitions(load_settings(shop_url=self.shop.url))
        assets = ["books_toscrape/raw_pages", "books_toscrape/cleaned_books", "books"]
        return dg.materialize(
            list(definitions.assets or []),
            instance=self.instance,
            resources=dict(definitions.resources or {}),
            selection=dg.AssetSelection.assets(*(chosen or assets)),
            tags=range_tags(keys),
            run_config={"ops": {"books": {"config": config}}} if config else None,
            raise_on_error=False,
        )

    def failed(self) -> set[tuple[str, str]]:
        """(what went wrong, check) of every check that does not pass, as the UI shows it."""
        graph = build_definitions(load_settings(shop_url=self.shop.url)).resolve_asset_graph()
        faults = {key: fault for fault, key in self.keys.items()}
        return {
            (faults[str(key)], check.name)
            for check in graph.asset_check_keys
            if check.asset_key != dg.AssetKey("tfidf_model")
            for key, passed in statuses(self.instance, check.asset_key.to_user_string(), check.name).items()
            if not passed
        }

    def rows(self, fault: str) -> list[Any]:
        with self.engine.connect() as connection:
            return list(connection.execute(tables.select_books(category=self.keys[fault])).mappings())


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory, database_url: str) -> Iterator[Platform]:
    shelves = sandbox.generate(60, 2)
    largest = sorted(shelves.genres, key=lambda found: -len(shelves.members[found[0]]))
    keys = {fault: genre.slug for fault, (_, genre) in zip(CATEGORY_FAULTS, largest, strict=False)}
    with (
        pytest.MonkeyPatch.context() as patch,
        changing_shop(60) as shop,
        dg.DagsterInstance.ephemeral() as instance,
    ):
        patch.setenv("BOOKCLUB_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("BOOKCLUB_DATABASE_URL", database_url)
        instance.add_dynamic_partitions(CATEGORIES, list(keys.values()))
        platform = Platform(instance, shop, sa.create_engine(database_url, poolclass=sa.NullPool), keys)
        assert platform.crawl(list(keys.values())).success
        assert platform.failed() == set()
        platform.good = {fault: platform.rows(fault) for fault in keys}
        shop.change = bad_night(keys)
        assert platform.crawl(list(keys.values())).success, "one category holds no other back"
        yield platform


def is_listing(path: str, category: str) -> bool:
    return f"/category/books/{category}_" in path


def on_books_of(category: str, change: Callable[[str], str]) -> Callable[[str, str], str]:
    """Changes the pages of the books of one category."""

    def changed(path: str, page: str) -> str:
        is_book = "/category/" not in path and f"/books/{category}_" in page and path.startswith("/catalogue/")
        return change(page) if is_book else page

    return changed


def listing_of(category: str, most: int) -> Callable[[str, str], str]:
    """The listing of one category shows `most` books and says so."""

    def changed(path: str, page: str) -> str:
        if not is_listing(path, category):
            return page
        head, *pods = page.split('<li class="col-xs-6 col-sm-4 col-md-3 col-lg-3">')
        tail = pods[-1].partition("</li>")[2]
        shown = [f'<li class="col-xs-6 col-sm-4 col-md-3 col-lg-3">{pod.partition("</li>")[0]}</li>' for pod in pods]
        head = re.sub(r"<strong>[0-9]+</strong> results?", f"<strong>{most}</strong> results", head)
        return head + "".join(shown[:most]) + tail

    return changed


def one_link_broken(page: str) -> str:
    link = re.search(r"[a-z0-9-]+_[0-9]+/index.html", page.partition("product_pod")[2])
    assert link is not None
    return page.replace(link[0], "gone_9999/index.html")


def bad_night(keys: dict[str, str]) -> Callable[[str, str], str]:
    changes = [
        listing_of(keys["collapsed"], 2),
        listing_of(keys["emptied"], 0),
        on_books_of(keys["dear"], lambda page: re.sub(r"£([0-9]+)\.([0-9])", r"£\1\2.", page)),
        on_books_of(keys["broken"], lambda page: page.replace("<h1>", "<h4>").replace("</h1>", "</h4>")),
        on_books_of(keys["mute"], lambda page: page.replace("product_description", "no_description")),
        on_books_of(keys["starless"], lambda page: page.replace("star-rating ", "star-rating x")),
        lambda path, page: one_link_broken(page) if is_listing(path, keys["cut"]) else page,
    ]

    def changed(path: str, page: str) -> str:
        for change in changes:
            page = change(path, page)
        return page

    return changed


def metadata(platform: Platform, asset: str, key: str) -> dict[str, Any]:
    records = platform.instance.fetch_materializations(
        dg.AssetRecordsFilter(dg.AssetKey.from_user_string(asset), asset_partitions=[key]), limit=1
    ).records
    found = records[0].asset_materialization
    assert found is not None
    return {name: value.value for name, value in found.metadata.items()}


def test_in_a_bad_night_each_check_fails_for_its_category_alone(platform: Platform) -> None:
    assert platform.failed() == {
        ("collapsed", "count_did_not_collapse"),
        ("dear", "price_drift"),
        ("broken", "few_rejected"),
        ("mute", "has_descriptions"),
        ("starless", "rating_drift"),
        ("emptied", "count_did_not_collapse"),
        ("emptied", "has_books"),
        ("cut", "all_pages_came"),
    }


def test_what_is_believed_is_loaded_and_what_is_not_leaves_the_table_as_it_was(platform: Platform) -> None:
    for fault in ("collapsed", "emptied", "broken"):
        assert platform.rows(fault) == platform.good[fault]
    for fault in ("dear", "mute", "starless", "well"):
        pairs = list(zip(platform.rows(fault), platform.good[fault], strict=True))
        assert pairs and all(now["last_seen_at"] > before["last_seen_at"] for now, before in pairs)
    assert metadata(platform, "books", platform.keys["collapsed"])["dagster/row_count"] == 0


def test_rejected_rows_are_counted_by_rule_in_the_metadata_and_kept_with_it_in_the_table(platform: Platform) -> None:
    count = len(platform.good["broken"])
    figures = metadata(platform, "books_toscrape/cleaned_books", platform.keys["broken"])
    assert figures["rejected_by_rule"] == {"title_given": count}
    with platform.engine.connect() as connection:
        kept = connection.execute(sa.select(tables.rejected_books.c["rule", "category"])).all()
    assert kept == [("title_given", platform.keys["broken"])] * count


def test_where_no_category_passes_the_run_stops_and_a_person_can_have_it_believed(platform: Platform) -> None:
    collapsed = [platform.keys["collapsed"]]
    assert not platform.crawl(collapsed, "books").success
    assert platform.crawl(collapsed, "books", least_share=0).success
    assert ("collapsed", "count_did_not_collapse") not in platform.failed()
    assert len(platform.rows("collapsed")) == 2


def test_a_file_has_one_result_and_no_partition(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "list.csv").write_text("key,name,cost,about\n1,Salt,£3.00,A walk\n2,Rye,dear,A field\n")
    listed = tmp_path / "sources.yaml"
    listed.write_text(
        "sources:\n  - name: reading_list\n    kind: table_file\n    address: list.csv\n    format: csv\n"
        "    fields: {source_id: key, title: name, price: cost, description: about}\n"
    )
    monkeypatch.setenv("BOOKCLUB_HOME", str(tmp_path))
    monkeypatch.setenv("BOOKCLUB_DATABASE_URL", database_url)
    definitions = build_definitions(load_settings(sources=listed, files=tmp_path))
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions(CATEGORIES, ["reading-list"])
        result = dg.materialize(
            list(definitions.assets or []),
            instance=instance,
            resources=dict(definitions.resources or {}),
            selection=dg.AssetSelection.assets("reading_list/raw_pages", "reading_list/cleaned_books", "books"),
            tags=range_tags(["reading-list"]),
        )
    (told,) = (event for event in result.asset_materializations_for_node("books") if event.partition)
    assert [row.data["title"] for row in told.metadata["preview"].value.records] == ["Salt"]  # type: ignore[union-attr]
    assert {"prices", "price_history"} < told.metadata.keys()
    assert str(told.metadata["api"].value).endswith("/books")
    found = {(check.check_name, check.partition): check for check in result.get_asset_check_evaluations()}
    assert {key for key, check in found.items() if not check.passed} == {("few_rejected", None)}
    assert found["few_rejected", None].description == "1 of 2 were rejected: price_readable 1"
    assert found["count_did_not_collapse", "reading-list"].passed
