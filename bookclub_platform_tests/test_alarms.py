"""alarms.py, failures.py and core/alarms.py: real failed runs and checks, and a real receiver that is down at first."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from bookclub_platform import sandbox
from bookclub_platform.alarms import _sender, new_alarms
from bookclub_platform.assets._common import CATEGORIES, range_tags
from bookclub_platform.cli import main
from bookclub_platform.core.alarms import Alarm, deliver, outbox, put, redacted, select_pending
from bookclub_platform.core.book import Category
from bookclub_platform.core.categories import note_listing, restore, retire, retired_slugs
from bookclub_platform.core.settings import load_settings
from bookclub_platform.definitions import build_definitions
from bookclub_platform.failures import standing_failures
from bookclub_platform.local.doctor._services import _partitions
from bookclub_platform.local.home import dagster_home
from bookclub_platform_tests.local_http import Handler, in_thread
from bookclub_platform_tests.mlflow_store import store_in
from bookclub_platform_tests.test_checks import tiny_graph

NOW = datetime(2026, 11, 22, 3, tzinfo=UTC)
ALARM = Alarm(
    id="run 1",
    kind="run",
    severity="ERROR",
    subject="books",
    partition="travel",
    owners=("team:data-engineering",),
    cause="Postgres does not answer",
    what_to_do="Start it.",
    url="http://127.0.0.1:3000/runs/1",
    raised_at=NOW,
)


class Receiver(ThreadingHTTPServer):
    """Takes what is posted to it, or answers with `status`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.taken: list[dict[str, Any]] = []
        self.status = 200

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/hooks/s3cr3t-path"


class _Handler(Handler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.status == 200:
            self.server.taken.append(json.loads(body))
        self.say(self.server.status, Location="/elsewhere")

    def do_GET(self) -> None:
        self.say(200)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with in_thread(Receiver()) as receiver:
        yield receiver


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    engine = sa.create_engine(database_url, poolclass=sa.NullPool)
    yield engine
    with engine.begin() as connection:
        connection.execute(sa.delete(outbox))


@pytest.fixture
def environment(database_url: str, engine: sa.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOOKCLUB_DATABASE_URL", database_url)
    monkeypatch.setenv("BOOKCLUB_HOME", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store_in(tmp_path))


def fill(engine: sa.Engine, *numbers: int, at: datetime = NOW) -> list[Alarm]:
    with engine.begin() as connection:
        return put(connection, [replace(ALARM, id=f"run {number}") for number in numbers], at)


def pending(engine: sa.Engine) -> int:
    with engine.connect() as connection:
        return connection.execute(select_pending()).scalar_one()


class Sink:
    """Takes messages, or raises as a receiver that is down."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.is_up = True

    def __call__(self, message: dict[str, Any]) -> None:
        if not self.is_up:
            raise ConnectionRefusedError("nobody listens")
        self.taken.append(message["id"])


def test_the_same_failure_is_noted_once(engine: sa.Engine) -> None:
    assert [alarm.id for alarm in fill(engine, 1, 2, 1)] == ["run 1", "run 2"]
    assert fill(engine, 1, 2) == []
    sink = Sink()
    deliver(engine, sink, NOW)
    assert fill(engine, 1, 2) == [], "nor once it was delivered"
    assert deliver(engine, sink, NOW).delivered == 0


def test_what_is_not_taken_waits_longer_each_time_and_then_comes_in_order(engine: sa.Engine) -> None:
    sink = Sink()
    sink.is_up = False
    fill(engine, 1)
    now, pauses = NOW, []
    for _ in range(10):
        assert "nobody listens" in (deliver(engine, sink, now).error or "")
        assert deliver(engine, sink, now).error is None, "it must not be asked again at once"
        with engine.connect() as connection:
            later = connection.execute(sa.select(outbox.c.next_attempt_at)).scalar_one()
        pauses.append(later - now)
        now = later
    assert pauses[:3] == [timedelta(seconds=30), timedelta(seconds=60), timedelta(seconds=120)]
    assert pauses[-1] == timedelta(hours=1)
    fill(engine, 2, 3, at=now)
    sink.is_up = True
    assert deliver(engine, sink, now) == replace(deliver(engine, sink, now), delivered=3)
    assert sink.taken == ["run 1", "run 2", "run 3"]


def test_many_are_delivered_a_few_at_a_time_and_the_old_are_forgotten(engine: sa.Engine) -> None:
    fill(engine, *range(50))
    sink = Sink()
    assert [deliver(engine, sink, NOW).pending for _ in range(3)] == [30, 10, 0]
    assert len(sink.taken) == 50
    deliver(engine, sink, NOW + timedelta(days=91))
    with engine.connect() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(outbox)) == 0


def test_what_is_not_delivered_is_never_forgotten(engine: sa.Engine) -> None:
    sink = Sink()
    sink.is_up = False
    fill(engine, 1)
    deliver(engine, sink, NOW + timedelta(days=400))
    assert pending(engine) == 1


def test_a_text_that_postgres_cannot_store_stops_no_alarm(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        put(connection, [replace(ALARM, id="run 1", cause="503 bad\x00 \ud800x", partition="a\x00b")], NOW)
    fill(engine, 2)
    sink = Sink()
    assert deliver(engine, sink, NOW).delivered == 2 and sink.taken == ["run 1", "run 2"]
    assert "\x00" not in redacted("bad\x00")


@pytest.mark.parametrize(
    ("said", "is_taken"),
    [
        (b"no HTTP at all\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz", True),
        (b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n", False),
    ],
)
def test_a_webhook_that_breaks_off_is_tried_later_or_has_the_message(
    engine: sa.Engine, said: bytes, is_taken: bool
) -> None:
    class Odd(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while self.rfile.readline().strip():
                pass
            self.wfile.write(said)

    fill(engine, 1)
    with socketserver.TCPServer(("127.0.0.1", 0), Odd) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        delivery = deliver(engine, _sender(f"http://127.0.0.1:{server.server_address[1]}/secret"), NOW)
    assert (delivery.delivered, delivery.pending) == ((1, 0) if is_taken else (0, 1))
    assert "secret" not in (delivery.error or "")
    with pytest.raises(OSError, match="not valid") as told:
        _sender("http://127.0.0.1:1/a secret")({"id": "run 1"})
    assert "secret" not in str(told.value)


@pytest.mark.parametrize(
    "secret",
    [
        "postgresql://user:hunter2@host:5432/bookclub does not answer",
        "postgresql+psycopg://user:hunter2@host/x",
        "password=hunter2 host=x",
        'API_KEY: "hunter2"',
        "Authorization: Bearer hunter2",
        "POST https://hooks.example/hunter2 answered 500",
    ],
)
def test_no_secret_stands_in_a_message(secret: str) -> None:
    assert "hunter2" not in redacted(secret, ["https://hooks.example/hunter2"])


def test_a_message_is_short_and_wakes_nobody_by_scraped_text() -> None:
    assert len(redacted("x" * 5000)) == 1000
    text = replace(ALARM, cause="a book called <!channel> & co").message()["text"]
    assert "<!channel>" not in text
    assert "&lt;!channel&gt; &amp; co" in text


def one_log(folder: Path) -> dg.DagsterInstance:
    """An instance with one event log for all runs, as Postgres has."""
    storage = {
        "module": "dagster._core.storage.event_log",
        "class": "ConsolidatedSqliteEventLogStorage",
        "config": {"base_dir": str(folder)},
    }
    return dg.DagsterInstance.local_temp(str(folder), overrides={"event_log_storage": storage})


def failed_run(settings_url: str, instance: dg.DagsterInstance) -> str:
    """A real run of the job crawl for a category that the shop does not have."""
    job = build_definitions(load_settings(shop_url=settings_url)).resolve_job_def("crawl")
    instance.add_dynamic_partitions(CATEGORIES, ["mars"])
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    tags = {"dagster/partition": "mars"}
    result = job.execute_in_process(run_config=quiet, instance=instance, tags=tags, raise_on_error=False)
    assert not result.success
    return result.run_id


def failed_check(instance: dg.DagsterInstance, severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.WARN) -> None:
    instance.report_runless_asset_event(
        dg.AssetCheckEvaluation(
            asset_key=dg.AssetKey("books"),
            check_name="count_did_not_collapse",
            passed=False,
            severity=severity,
            metadata={"collapsed": dg.MetadataValue.json(["travel"])},
        )
    )


def tick(
    instance: dg.DagsterInstance, shop_url: str, cursor: str | None, name: str = "alarms"
) -> dg.SensorExecutionData:
    definitions = build_definitions(load_settings(shop_url=shop_url))
    context = dg.build_sensor_context(
        instance=instance, repository_def=definitions.get_repository_def(), cursor=cursor, sensor_name=name
    )
    return definitions.resolve_sensor_def(name).evaluate_tick(context)


def test_a_failed_run_and_a_failed_check_each_reach_a_receiver_that_was_down(
    environment: None, engine: sa.Engine, receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOOKCLUB_ALARM_WEBHOOK", receiver.url)
    with sandbox.running(books=40, seed=2) as shop_url, one_log(tmp_path) as instance:
        run_id = failed_run(shop_url, instance)
        failed_check(instance)
        receiver.status = 503
        cursor = tick(instance, shop_url, None).cursor
        assert receiver.taken == []
        assert pending(engine) == 2
        receiver.status = 302
        make_due(engine)
        tick(instance, shop_url, cursor)
        assert pending(engine) == 2, "an answer that leads elsewhere is no delivery"
        receiver.status = 200
        make_due(engine)
        said = str(tick(instance, shop_url, cursor).skip_message)
        assert "2 delivered, 0 wait" in said
        tick(instance, shop_url, cursor)
        tick(instance, shop_url, None)
    run, check = receiver.taken
    assert run["url"] == f"http://127.0.0.1:3000/runs/{run_id}"
    assert (run["kind"], run["partition"], run["severity"]) == ("run", "mars", "ERROR")
    assert run["subject"] == "books_toscrape/raw_pages"
    assert "has no category 'mars'" in run["cause"]
    assert run["owners"] == ["team:data-engineering"]
    assert "bookclub doctor" in run["what_to_do"]
    assert all(part in run["text"] for part in ("mars", "What to do:", "team:data-engineering", run["url"]))
    assert (check["subject"], check["severity"]) == ("books:count_did_not_collapse", "WARN")
    assert "travel" in check["cause"]
    assert check["url"].endswith("/assets/books?view=checks&checkDetail=count_did_not_collapse")


def make_due(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.execute(sa.update(outbox).values(next_attempt_at=NOW - timedelta(days=1)))


def test_without_a_webhook_the_log_is_told_and_nothing_waits(
    environment: None, engine: sa.Engine, tmp_path: Path
) -> None:
    with sandbox.running(books=40, seed=2) as shop_url, one_log(tmp_path) as instance:
        failed_check(instance)
        assert "1 new alarms, told in the log alone" in str(tick(instance, shop_url, None).skip_message)
    assert pending(engine) == 0


def crawl_of_rows(instance: dg.DagsterInstance, odd: set[str], chosen: list[str]) -> dg.Definitions:
    """A run in which the blocking check `fits` fails for the categories `odd` of those `chosen`."""
    assets = tiny_graph(odd, [])
    dg.materialize(assets, instance=instance, tags=range_tags(chosen), raise_on_error=False)
    return dg.Definitions(assets=assets)


KEYS = [f"key-{number:02d}" for number in range(12)]


@pytest.mark.parametrize(
    ("odd", "chosen", "told"),
    [
        (set(), KEYS, None),
        ({"key-01"}, KEYS, "key-01"),
        ({"key-01", "key-03"}, KEYS, "key-01, key-03"),
        ({"key-01"}, ["key-01"], "key-01"),
        ({*KEYS}, KEYS, ", ".join(KEYS[:10]) + " and 2 more"),
    ],
)
def test_a_check_that_fails_is_told_once_however_many_categories_and_whether_or_not_it_stops_the_run(
    tmp_path: Path, odd: set[str], chosen: list[str], told: str | None
) -> None:
    with one_log(tmp_path) as instance:
        instance.add_dynamic_partitions(CATEGORIES, KEYS)
        graph = crawl_of_rows(instance, odd, chosen).resolve_asset_graph()
        found, _ = new_alarms(instance, graph, None, "http://dagster", [])
        again, _ = new_alarms(instance, graph, None, "http://dagster", [])
    assert [(alarm.kind, alarm.subject, alarm.partition) for alarm in found] == (
        [("check", "rows:fits", told)] if told else []
    )
    assert all("does not fit" in alarm.cause and len(alarm.cause) <= 1000 for alarm in found)
    assert found == again


def test_a_run_that_dies_and_is_tried_again_by_itself_says_so(tmp_path: Path) -> None:
    with one_log(tmp_path) as instance:
        instance.add_dynamic_partitions(CATEGORIES, KEYS)
        graph = crawl_of_rows(instance, set(), ["key-00"]).resolve_asset_graph()
        (run,) = instance.get_runs()
        instance.report_run_failed(run, "its process is gone")
        instance.add_run_tags(run.run_id, {"dagster/will_retry": "true"})
        ((alarm,), _) = new_alarms(instance, graph, None, "http://dagster", [])
    assert "started again by itself" in alarm.what_to_do


def test_what_is_mended_category_by_category_leaves_the_standing_list(tmp_path: Path) -> None:
    with one_log(tmp_path) as instance:
        instance.add_dynamic_partitions(CATEGORIES, KEYS)
        graph = crawl_of_rows(instance, {"key-01", "key-03"}, KEYS).resolve_asset_graph()
        assert [(row.what, row.partition) for row in standing_failures(instance, graph)] == [
            ("rows:fits", "key-01"),
            ("rows:fits", "key-03"),
        ]
        for key in ("key-01", "key-03"):
            crawl_of_rows(instance, set(), [key])
        assert standing_failures(instance, graph) == []


def test_the_standing_list_has_what_failed_until_it_is_mended(environment: None, tmp_path: Path) -> None:
    with sandbox.running(books=40, seed=2) as shop_url, one_log(tmp_path) as instance:
        graph = build_definitions(load_settings(shop_url=shop_url)).resolve_asset_graph()
        assert standing_failures(instance, graph) == []
        run_id = failed_run(shop_url, instance)
        failed_check(instance)
        found = standing_failures(instance, graph)
        assets = ["books", "books_toscrape/cleaned_books", "books_toscrape/raw_pages"]
        assert [(one.what, one.partition) for one in found] == [
            *((asset, "mars") for asset in assets),
            ("books:count_did_not_collapse", None),
        ]
        assert {one.run_id for one in found[:3]} == {run_id}
        assert all("has no category 'mars'" in one.cause for one in found[:3])
        changed = tick(instance, shop_url, None, "failed_partitions")
        assert {event.asset_key.to_user_string() for event in changed.asset_events} == set(assets)
        assert not tick(instance, shop_url, changed.cursor, "failed_partitions").asset_events
        for asset in assets:
            instance.report_runless_asset_event(
                dg.AssetMaterialization(dg.AssetKey.from_user_string(asset), partition="mars")
            )
        assert [one.what for one in standing_failures(instance, graph)] == ["books:count_did_not_collapse"]
        mended = tick(instance, shop_url, changed.cursor, "failed_partitions").asset_events
        said = {event.asset_key.to_user_string(): event.description for event in mended}
        assert said["books_toscrape/raw_pages"] == "All that had failed is mended"


def test_what_is_retired_leaves_the_standing_list_and_the_findings_of_the_doctor(
    environment: None, engine: sa.Engine, tmp_path: Path
) -> None:
    with sandbox.running(books=40, seed=2) as shop_url, one_log(tmp_path) as instance:
        graph = build_definitions(load_settings(shop_url=shop_url)).resolve_asset_graph()
        failed_run(shop_url, instance)
        with engine.connect() as connection:
            retired = partial(retired_slugs, connection)
            assert {row.partition for row in standing_failures(instance, graph, retired)} == {"mars"}
            note_listing(connection, "books_toscrape", [Category("mars", "Mars", f"{shop_url}/mars")], NOW)
            retire(connection, "books_toscrape", "mars", NOW, by="operator")
            assert standing_failures(instance, graph, retired) == []
            connection.commit()
    node = {"assetPartitionStatuses": {"failedPartitions": ["mars", "venus"]}, "assetChecksOrError": {}}
    data = {"assetNodes": [node | {"assetKey": {"path": path}} for path in (["books"], ["books_toscrape", "covers"])]}
    found = _partitions("http://dagster", data, load_settings())
    assert found.text == "failed: books: venus; books_toscrape/covers: venus"
    with engine.begin() as connection:
        restore(connection, "books_toscrape", "mars")


def test_the_command_prints_the_list_and_ends_with_1(environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with sandbox.running(books=40, seed=2) as shop_url:
        monkeypatch.setenv("BOOKCLUB_SHOP_URL", shop_url)
        assert CliRunner().invoke(main, ["failures"]).output == "Nothing is failed.\n"
        with dg.DagsterInstance.from_config(str(dagster_home(load_settings().home))) as instance:
            run_id = failed_run(shop_url, instance)
        shown = CliRunner().invoke(main, ["failures"])
    assert shown.exit_code == 1
    for part in ("books_toscrape/raw_pages [mars]  failed", "has no category 'mars'", "bookclub doctor", run_id):
        assert part in shown.output
