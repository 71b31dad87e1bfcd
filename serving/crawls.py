"""Categories to crawl -> runs of the Dagster job `crawl`, started and followed through Dagster's GraphQL API.

    dagster = Dagster("http://127.0.0.1:3000"); await dagster.start([["mystery", "poetry"], ["travel"]], crawl_id)

The runs of one crawl share a tag, and nothing else is stored about it: Dagster knows the rest. Blocking HTTP in a
thread is enough for something that an administrator does occasionally.
"""

from __future__ import annotations

import asyncio
import json
import logging
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from http.client import HTTPException
from typing import Any, TypeVar
from uuid import UUID

from serving.http import problems, tracing
from serving.schemas.crawls import Crawl, CrawlRun, RunStatus

log = logging.getLogger(__name__)

T = TypeVar("T")

ANSWER_WITHIN_S = 20.0  # the first query makes Dagster load the platform's code
_AT_ONCE = 2  # queries
_RUN_WITHIN_S = 5.0  # added for each run to start: Dagster starts them one after the other
CRAWL_TAG = "bookclub/crawl"
JOB = "crawl"
_LOCATION = {"repositoryLocationName": "bookclub_platform", "repositoryName": "__repository__"}
_KEYS = """query Keys($location: RepositorySelector!) { repositoryOrError(repositorySelector: $location) { __typename
  ... on Repository { assetNodes { assetKey { path } partitionKeys } } ... on PythonError { message } } }"""
_LAUNCH = """mutation Launch($params: [ExecutionParams!]!) {
  launchMultipleRuns(executionParamsList: $params) { __typename
  ... on LaunchMultipleRunsResult { launchMultipleRunsResult { __typename
    ... on LaunchRunSuccess { run { runId status startTime endTime tags { key value } } }
    ... on PythonError { message } } }
  ... on PythonError { message } } }"""
_RUNS = """query Runs($filter: RunsFilter!) { runsOrError(filter: $filter) { __typename
  ... on Runs { results { runId status startTime endTime tags { key value } } } ... on PythonError { message } } }"""
_STATUSES: dict[str, RunStatus] = {"SUCCESS": "succeeded", "FAILURE": "failed", "CANCELED": "failed"}
_STATUSES |= {"STARTED": "running", "CANCELING": "running"}


class Dagster:
    """A client of the Dagster at `url`.

    Every method raises Problem 503 if Dagster does not respond, or not as expected."""

    def __init__(self, url: str) -> None:
        self._url = f"{url.rstrip('/')}/graphql"
        # Its own threads: while Dagster hangs, each question holds one for long, and others need those of the loop.
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="dagster")

    async def keys(self) -> list[str]:
        """All categories, in Dagster's order."""

        def read(found: dict[str, Any]) -> list[str]:
            (keys,) = (node["partitionKeys"] for node in found["assetNodes"] if node["assetKey"]["path"] == ["books"])
            return list(keys)

        return await self._ask(_KEYS, {"location": _LOCATION}, "repositoryOrError", "Repository", read)

    async def start(self, stretches: Sequence[Sequence[str]], crawl_id: UUID) -> Crawl:
        """Start one run for each of `stretches` (consecutive categories in Dagster's order), all in one request."""

        def read(found: dict[str, Any]) -> Crawl:
            launched = found["launchMultipleRunsResult"]
            if told := [one for one in launched if one["__typename"] != "LaunchRunSuccess"]:
                raise _unavailable(told[0].get("message", told[0]["__typename"]))
            return _crawl(crawl_id, [one["run"] for one in launched])

        params = [_execution(keys, crawl_id) for keys in stretches]
        try:
            within_s = ANSWER_WITHIN_S + _RUN_WITHIN_S * len(params)
            asked = {"params": params}
            return await self._ask(_LAUNCH, asked, "launchMultipleRuns", "LaunchMultipleRunsResult", read, within_s)
        except problems.Problem as problem:
            # The response may be lost, or one of several runs may fail: an immediate retry could start runs twice.
            detail = (
                f"{problem} Some runs may have started: check GET /crawls/{crawl_id} before you start another crawl."
            )
            raise problems.Problem(problem.kind, detail, problem.headers, crawl_id=str(crawl_id)) from problem

    async def crawl(self, crawl_id: UUID) -> Crawl | None:
        """The crawl with that id; None if there is none."""
        chosen = {"filter": {"tags": [{"key": CRAWL_TAG, "value": str(crawl_id)}]}}

        def read(found: dict[str, Any]) -> Crawl | None:
            return _crawl(crawl_id, found["results"]) if found["results"] else None

        return await self._ask(_RUNS, chosen, "runsOrError", "Runs", read)

    def close(self) -> None:
        """Wait for nothing."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _ask(
        self,
        query: str,
        variables: Mapping[str, Any],
        field: str,
        expected: str,
        read: Callable[[dict[str, Any]], T],
        within_s: float = ANSWER_WITHIN_S,
    ) -> T:
        """What `read` makes of `field` of the response, if that is of the type `expected`."""
        body, headers = {"query": query, "variables": variables}, tracing.outgoing()
        try:
            answer = await asyncio.get_running_loop().run_in_executor(
                self._threads, self._post, body, headers, within_s
            )
            found: dict[str, Any] = answer["data"][field]
            if found["__typename"] == expected:
                return read(found)
            told = found.get("message", found["__typename"])
        except (OSError, HTTPException, ValueError, LookupError, TypeError, AttributeError) as error:
            told = f"{type(error).__name__}: {error}"
        raise _unavailable(told)

    def _post(self, body: Mapping[str, Any], headers: Mapping[str, str], within_s: float) -> Any:
        headers = {"Content-Type": "application/json", **headers}
        request = urllib.request.Request(self._url, json.dumps(body).encode(), headers, method="POST")
        with urllib.request.urlopen(request, timeout=within_s) as answer:
            return json.load(answer)


def _execution(keys: Sequence[str], crawl_id: UUID) -> dict[str, Any]:
    tags = {
        CRAWL_TAG: str(crawl_id),
        "dagster/asset_partition_range_start": keys[0],
        "dagster/asset_partition_range_end": keys[-1],
    }
    return {
        "selector": _LOCATION | {"jobName": JOB},
        "runConfigData": {},
        "executionMetadata": {"tags": [{"key": key, "value": value} for key, value in tags.items()]},
    }


def _unavailable(told: str) -> problems.Problem:
    """Dagster's message may name hosts and paths, so it goes only to the log."""
    log.warning("Dagster does not answer as it should: %s", told)
    return problems.Problem("dagster-unavailable", headers={"Retry-After": "10"})


def _crawl(crawl_id: UUID, found: Sequence[Mapping[str, Any]]) -> Crawl:
    runs = sorted(map(_run, found), key=lambda run: run.first)
    return Crawl(id=crawl_id, status=_together([run.status for run in runs]), runs=runs)


def _run(found: Mapping[str, Any]) -> CrawlRun:
    tags = {tag["key"]: tag["value"] for tag in found["tags"]}
    return CrawlRun(
        run_id=found["runId"],
        status=_STATUSES.get(found["status"], "queued"),
        first=tags["dagster/asset_partition_range_start"],
        last=tags["dagster/asset_partition_range_end"],
        started_at=_moment(found["startTime"]),
        ended_at=_moment(found["endTime"]),
    )


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _together(statuses: Sequence[RunStatus]) -> RunStatus:
    if "failed" in statuses:
        return "failed"
    if set(statuses) <= {"succeeded"}:
        return "succeeded"
    return "running" if set(statuses) & {"running", "succeeded"} else "queued"
