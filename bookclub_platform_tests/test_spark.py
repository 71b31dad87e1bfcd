"""spark/ beside the fit in one process: real Spark on this machine, alone and through the asset. Needs the extra."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest
import sqlalchemy as sa

from benchmarks._texts import made_up
from bookclub_platform import sandbox
from bookclub_platform.assets._common import CATEGORIES, range_tags
from bookclub_platform.core.errors import ConfigurationError, ModelError
from bookclub_platform.core.settings import load_settings
from bookclub_platform.core.tables import select_training_rows
from bookclub_platform.models import BookText, Registry, Tfidf
from bookclub_platform.spark import check_installed, read_counted
from bookclub_platform_tests import test_graph as graph
from bookclub_platform_tests.test_tfidf import SHARED, real_books, shelf

environment = graph.environment


def has_spark() -> bool:
    try:
        check_installed()
    except ConfigurationError:
        return False
    return True


needs_spark = pytest.mark.skipif(not has_spark(), reason="needs the extra `spark`, and Java")


@pytest.fixture(scope="module", autouse=True)
def _short_jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """As an operator says it, in Spark's own file: nothing is worth compiling or dealing out far for so few books."""
    folder = tmp_path_factory.mktemp("conf")
    settings = ["spark.sql.shuffle.partitions 3", "spark.driver.extraJavaOptions -XX:TieredStopAtLevel=1"]
    (folder / "spark-defaults.conf").write_text("\n".join(settings))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARK_CONF_DIR", str(folder))
        yield


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from bookclub_platform.spark.__main__ import session

    with pytest.MonkeyPatch.context() as patch:
        for name in ("PYSPARK_PYTHON", "SPARK_LOCAL_IP"):
            patch.setenv(name, "")  # what the session sets for itself is taken back at the end
            patch.delenv(name)
        with session("local[2]", tmp_path_factory.mktemp("scratch")) as found:
            yield found


def sandbox_books(books: int) -> list[BookText]:
    catalogue = sandbox.generate(books, 2)
    genres = dict(catalogue.genres)
    return [
        BookText(
            at + 10,
            book.title,
            catalogue.description(book) or None,
            genres[book.genre].slug,
            genres[book.genre].name,
        )
        for at, book in enumerate(catalogue.books)
    ]


def write(rows: list[BookText], path: Path) -> str:
    """As the asset has it from the export, in no order and in small pieces."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    mixed = random.Random(0).sample(rows, len(rows))
    table = pa.table(dict(zip(BookText._fields, map(list, zip(*mixed, strict=True)), strict=True)))
    pq.write_table(table, path, row_group_size=50)
    return path.as_uri()


def by_spark(spark: Any, model: Tfidf, rows: list[BookText], folder: Path, partitions: int) -> Tfidf:
    from bookclub_platform.spark._count import count

    figures = count(spark, write(rows, folder / "books.parquet"), folder / "counted", model, partitions)
    assert (figures["books"], figures["partitions"]) == (len(rows), partitions)
    return model.learn(read_counted(folder / "counted"))


def assert_same(found: Any, expected: Any) -> None:
    """The same numbers, texts and arrays of the same types all through; weights to within rounding."""
    assert type(found) is type(expected)
    if isinstance(expected, np.ndarray):
        assert found.dtype == expected.dtype
        if expected.dtype.kind == "f":
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
        else:
            np.testing.assert_array_equal(found, expected)
    elif hasattr(expected, "__dict__") or hasattr(expected, "__slots__"):
        names = getattr(expected, "__dataclass_fields__", None) or getattr(expected, "_fields", None) or vars(expected)
        for name in set(names) - {"figures_"}:
            assert_same(getattr(found, name), getattr(expected, name))
    else:
        assert found == expected


def assert_same_lists(found: Tfidf, expected: Tfidf) -> None:
    assert_same(found, expected)
    for book in expected.book_ids.tolist():
        near = expected.recommend(book, 10)
        assert [other.book_id for other in found.recommend(book, 10)] == [other.book_id for other in near]
        assert [other.why for other in found.recommend(book, 10)] == [other.why for other in near]


@needs_spark
@pytest.mark.parametrize("partitions", [1, 4])
def test_however_the_books_are_dealt_out_the_model_is_that_of_one_process(
    spark: Any, tmp_path: Path, partitions: int
) -> None:
    rows = sandbox_books(300)
    assert_same_lists(by_spark(spark, Tfidf(), rows, tmp_path, partitions), Tfidf().fit(rows))


@needs_spark
def test_parameters_reach_the_workers_and_words_are_chosen_alike(spark: Any, tmp_path: Path) -> None:
    texts = [
        "POLISH Polish",
        "polish fable's",
        "Ärger ärger \U0001f4da",
        None,
        "",
        "don't the of",
        "ship ships",
        "SHIPS",
    ]
    rows = [BookText(7 * at, f"Naïve Ship {at % 3}", text, "c", "Ships at sea") for at, text in enumerate(texts)]
    rows[-1] = rows[-1]._replace(category="default", category_name="Later Name")
    chosen: dict[str, Any] = {"title_weight": 3, "category_name_weight": 2, "min_df": 1, "embedding": "none"}
    expected = Tfidf(**chosen).fit(rows)
    assert {"polish", "ärger", "Ship"} <= set(expected.vocabulary_)
    assert_same_lists(by_spark(spark, Tfidf(**chosen), rows, tmp_path, 3), expected)


@needs_spark
def test_lists_made_once_are_the_same(spark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bookclub_platform.models.tfidf.UP_TO", 400)
    rows = list(made_up(500, seed=3))
    expected = Tfidf(embedding="none").fit(rows)
    assert expected.lists_ is not None
    assert_same_lists(by_spark(spark, Tfidf(embedding="none"), rows, tmp_path, 3), expected)


@needs_spark
def test_sentences_are_embedded_where_the_texts_are(spark: Any, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="needs the extra `embedding`")
    model = by_spark(spark, Tfidf(embedding="minilm"), shelf(), tmp_path, 3)
    assert model.embedding_ is not None and model.embedding_.shape == (len(shelf()), 384)
    assert_same_lists(model, Tfidf(embedding="minilm").fit(shelf()))


@needs_spark
@pytest.mark.skipif(not (SHARED / "shop").is_dir(), reason="no ../shared here")
def test_the_real_shop_gives_the_same_model(spark: Any, tmp_path: Path) -> None:
    rows = [row for _, row in real_books()]
    assert_same_lists(by_spark(spark, Tfidf(), rows, tmp_path, 4), Tfidf().fit(rows))


@needs_spark
def test_books_without_a_common_word_teach_nothing_there_either(spark: Any, tmp_path: Path) -> None:
    rows = [BookText(1, "Ash", None, "a", "The"), BookText(2, "Birch", None, "a", "The")]
    with pytest.raises(ModelError, match="no word is in 2 of them"):
        by_spark(spark, Tfidf(), rows, tmp_path, 2)


@needs_spark
def test_a_part_that_is_missing_is_noticed(spark: Any, tmp_path: Path) -> None:
    by_spark(spark, Tfidf(), sandbox_books(60), tmp_path, 3)
    next((tmp_path / "counted" / "books").glob("*.parquet")).unlink()
    with pytest.raises(ModelError, match="does not add up"):
        read_counted(tmp_path / "counted")


def loaded(instance: dg.DagsterInstance) -> str:
    """Forty books of the sandbox in the table; where the sandbox was."""
    with sandbox.running(books=40, seed=2) as url:
        keys = [category.slug for category in graph.shop_categories(url)]
        instance.add_dynamic_partitions(CATEGORIES, keys)
        assert graph.materialize(url, instance, graph.PARTITIONED, range_tags(keys))
    return url


def failure(instance: dg.DagsterInstance) -> str:
    logs = instance.all_logs(instance.get_runs(limit=1)[0].run_id)
    failures = [
        log.dagster_event.step_failure_data for log in logs if log.dagster_event and log.dagster_event.is_step_failure
    ]
    assert len(failures) == 1
    return failures[0].error_display_string


@needs_spark
def test_one_setting_has_the_asset_fit_by_spark_and_a_job_that_fails_fails_it(
    environment: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        url = loaded(instance)
        monkeypatch.setenv("BOOKCLUB_SPARK_MASTER", "local[2]")
        assert graph.materialize(url, instance, ["tfidf_model"], {})
        event = instance.get_latest_materialization_event(dg.AssetKey("tfidf_model"))
        assert event is not None and event.asset_materialization is not None
        facts = {name: value.value for name, value in event.asset_materialization.metadata.items()}
        assert facts["spark_master"] == "local[2]" and facts["spark_partitions"] >= 1
        assert list((environment / "spark").iterdir()) == []
        engine = sa.create_engine(database_url, poolclass=sa.NullPool)
        with engine.connect() as connection:
            rows = [BookText(*row) for row in connection.execute(select_training_rows())]
        registry = Registry(load_settings().mlflow_tracking_uri or "")
        found = Tfidf.load(registry.download(registry.champion("tfidf_model"), environment / "download"))
        assert_same_lists(found, Tfidf().fit(rows))
        monkeypatch.setenv("PYSPARK_SUBMIT_ARGS", "--no-such-option pyspark-shell")
        assert not graph.materialize(url, instance, ["tfidf_model"], {})
        told = failure(instance)
    assert "Spark job at local[2] failed" in told and "JAVA_GATEWAY_EXITED" in told and "BOOKCLUB_SPARK_MASTER" in told


def test_what_is_not_installed_is_named_with_its_mend(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOOKCLUB_SPARK_MASTER", "local[2]")
    monkeypatch.setitem(sys.modules, "pyspark", None)
    with dg.DagsterInstance.ephemeral() as instance:
        assert not graph.materialize("http://127.0.0.1:1", instance, ["tfidf_model"], {})
        assert "pip install -c constraints.txt -e '.[spark]'" in failure(instance)


@needs_spark
def test_a_missing_java_is_named_with_its_mend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(ConfigurationError, match=r"Java 17 or newer.*JAVA_HOME.*unset BOOKCLUB_SPARK_MASTER"):
        check_installed()
    monkeypatch.delenv("JAVA_HOME")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigurationError, match="on the PATH"):
        check_installed()


@pytest.mark.parametrize("master", ["local", "local[4]", "local[*]", "local[2,3]", "yarn", "spark://a:7077,b:7077"])
def test_a_spark_master_is_taken(master: str) -> None:
    assert load_settings(spark_master=master).spark_master == master


@pytest.mark.parametrize("master", ["spark", "local[]", "http://a", "local[2]; rm"])
def test_what_is_no_spark_master_is_refused(master: str) -> None:
    with pytest.raises(ConfigurationError, match="BOOKCLUB_SPARK_MASTER"):
        load_settings(spark_master=master)
