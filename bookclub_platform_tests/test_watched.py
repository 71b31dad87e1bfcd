"""What an operator sees of the API: lines of JSON that name their request, figures, and a dashboard that draws them."""

from __future__ import annotations

import json
import logging
import re
import signal
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from bookclub_platform.core import audit
from bookclub_platform_tests import api_fixtures as given
from bookclub_platform_tests.api_fixtures import World, get, ids_of, problem
from bookclub_platform_tests.test_serving_imports import process
from serving.app import create_app
from serving.http import tracing
from serving.monitoring.metrics import VERSIONS_SHOWN
from serving.process.logs import JsonLines

world, client, after = given.world, given.client, given.after

DASHBOARD = Path(__file__).parents[1] / "deploy" / "grafana" / "bookclub.json"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


def series(client: httpx.Client) -> dict[str, set[frozenset[tuple[str, str]]]]:
    """Name of each series -> the labels that it is there with."""
    found: dict[str, set[frozenset[tuple[str, str]]]] = {}
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).add(frozenset(sample.labels.items()))
    return found


def test_every_figure_and_label_that_the_dashboard_draws_is_in_metrics(world: World) -> None:
    settings = given.settings(world.home, answer_cache_mb=1)
    with given.serving(create_app(settings, world.database_url, world.tracking_uri)) as client:
        given.wait_for(lambda: client.get("/ready").is_success)
        get(client, f"/books/{ids_of(world)[0]}/recommendations")
        given.wait_for(lambda: "bookclub_data_version" in client.get("/metrics").text)
        there = series(client)
    asked = 0
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel["targets"]:
            names = set(re.findall(r"\bbookclub_\w+", target["expr"]))
            assert names and names <= there.keys(), (panel["title"], names - there.keys())
            labels = {label for name in names for pairs in there[name] for label, _ in pairs} | {"instance"}
            by = re.findall(r"by \(([^)]*)\)", target["expr"])
            used = {label.strip() for group in by for label in group.split(",")}
            used |= set(re.findall(r"(\w+)=~?\"", target["expr"])) | set(
                re.findall(r"{{(\w+)}}", target["legendFormat"])
            )
            assert used <= labels, (panel["title"], used - labels)
            asked += len(names)
    assert asked >= 11


def test_latency_is_told_by_route_model_and_data_version_of_the_last_few_versions(after: World) -> None:
    book_id = ids_of(after)[1]
    path = f"/books/{book_id}/recommendations"
    books = given.catalogue()["sea"]
    versions = []
    for count in range(12, 12 - VERSIONS_SHOWN - 2, -1):
        given.load(after.database_url, "sea", books[:count])
        # For a moment a list is still ranked on the books before.
        given.wait_for(lambda: after.client.get(path).headers["bookclub-data-version"] not in versions)
        versions.append(after.client.get(path).headers["bookclub-data-version"])
    shown = {
        dict(labels)["data_version"]
        for labels in series(after.client)["bookclub_answer_seconds_count"]
        if dict(labels)["route"] == "/books/{book_id}/recommendations"
        and dict(labels)["model"] == f"tfidf_model/{after.first.version}"
    }
    assert shown == set(versions[-VERSIONS_SHOWN:])


def test_a_request_keeps_the_id_and_the_trace_that_it_came_with(client: httpx.Client) -> None:
    assert client.get("/health", headers={"X-Request-ID": "shop-7.1"}).headers["x-request-id"] == "shop-7.1"
    made = {client.get("/health").headers["x-request-id"] for _ in range(3)}
    assert len(made) == 3 and all(re.fullmatch("[0-9a-f]{16}", one) for one in made)
    assert client.get("/health", headers={"X-Request-ID": "x" * 129}).headers["x-request-id"] != "x" * 129
    failed = client.get("/fault", headers={"X-Request-ID": "seen-by-them"})
    assert problem(failed, 500) and failed.headers["x-request-id"] == "seen-by-them"


@pytest.mark.parametrize(
    ("sent", "trace_id"),
    [
        (PARENT, TRACE),
        (f"01-{TRACE}-00f067aa0ba902b7-01-more", TRACE),
        (PARENT + "-more", None),
        (f"ff-{TRACE}-00f067aa0ba902b7-01", None),
        (f"00-{'0' * 32}-00f067aa0ba902b7-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (PARENT.upper(), None),
        ("", None),
    ],
)
def test_a_trace_is_taken_up_as_w3c_has_it(sent: str, trace_id: str | None) -> None:
    found = tracing.trace_of([(b"host", b"127.0.0.1"), (b"traceparent", sent.encode())])
    assert (found.trace_id == trace_id) if trace_id else re.fullmatch("[0-9a-f]{32}", found.trace_id)
    assert found.span_id != "00f067aa0ba902b7" and re.fullmatch("[0-9a-f]{16}", found.span_id)


@pytest.mark.parametrize(
    ("sent", "state"),
    [
        ([b"rojo=00f067aa0ba902b7,congo=t61"], "rojo=00f067aa0ba902b7,congo=t61"),
        ([b"rojo=1", b"congo=2"], "rojo=1,congo=2"),
        ([b"a=" + b"x" * 511], ""),
        ([b"a=\xff"], ""),
        ([b""], ""),
        ([], ""),
    ],
)
def test_the_state_of_a_trace_goes_on_with_it_and_not_without(sent: list[bytes], state: str) -> None:
    told = [(b"tracestate", one) for one in sent]
    assert tracing.trace_of([(b"traceparent", PARENT.encode()), *told]).state == state
    assert tracing.trace_of([(b"traceparent", b"broken"), *told]).state == ""


def test_what_is_sent_on_and_logged_within_a_request_names_it(world: World) -> None:
    app = create_app(given.settings(world.home), world.database_url, world.tracking_uri)

    async def sent_on() -> dict[str, str]:
        record = logging.LogRecord("test", logging.INFO, __file__, 1, "within\na request", (), None)
        return tracing.outgoing() | {"line": JsonLines().format(record)}

    app.add_api_route("/sent-on", sent_on)
    with given.serving(app) as client:
        found = get_with(client, "/sent-on", {"traceparent": PARENT, "tracestate": "a=b", "X-Request-ID": "r1"})
    version, trace_id, span_id, flags = found["traceparent"].split("-")
    assert (version, trace_id, flags, found["x-request-id"]) == ("00", TRACE, "01", "r1")
    assert found["tracestate"] == "a=b"
    line = json.loads(found["line"])
    assert (line["request_id"], line["trace_id"], line["span_id"]) == ("r1", TRACE, span_id)
    assert line["message"] == "within\na request" and "\n" not in found["line"]
    assert tracing.outgoing() == {}


def get_with(client: httpx.Client, path: str, headers: dict[str, str]) -> dict[str, str]:
    answer: dict[str, str] = client.get(path, headers=headers).json()
    return answer


def test_the_log_of_the_process_is_lines_of_json_with_every_request_if_so_set(world: World, tmp_path: Path) -> None:
    port = given.free_port()
    variables = {
        "BOOKCLUB_DATABASE_URL": world.database_url,
        "MLFLOW_TRACKING_URI": world.tracking_uri,
        "BOOKCLUB_REQUEST_LOG": "all",
        "BOOKCLUB_API_PORT": str(port),
    }
    with process(["-m", "serving"], tmp_path, **variables) as serving:
        given.wait_for(lambda: given.is_up(f"http://127.0.0.1:{port}/ready"), 60)
        book = f"http://127.0.0.1:{port}/books/{ids_of(world)[0]}"
        for _ in range(2):
            httpx.get(book, headers={"X-Request-ID": "asked-for", "traceparent": PARENT})
        serving.send_signal(signal.SIGINT)
        output, _ = serving.communicate(timeout=20)
    lines = [json.loads(line) for line in output.splitlines()]
    assert all({"at", "level", "logger"} <= line.keys() for line in lines)
    told = [line for line in lines if line.get("request_id") == "asked-for"]
    assert [line["status"] for line in told] == [200, 200]
    assert all((line["route"], line["trace_id"]) == ("/books/{book_id}", TRACE) for line in told)
    assert any(line.get("audit", {}).get("act") == "take-up-model" for line in lines)


def test_a_line_of_the_audit_log_is_a_part_of_the_line_and_a_trace_stays_in_one() -> None:
    record = logging.LogRecord(audit.LOGGER, logging.INFO, __file__, 1, '{"act": "login"}', (), None)
    assert json.loads(JsonLines().format(record))["audit"] == {"act": "login"}
    try:
        raise ValueError("two\nlines")
    except ValueError as error:
        failed = logging.LogRecord(
            "x", logging.ERROR, __file__, 1, "failed", (), (ValueError, error, error.__traceback__)
        )
    line = JsonLines().format(failed)
    assert "\n" not in line and "ValueError: two\nlines" in json.loads(line)["exception"]
