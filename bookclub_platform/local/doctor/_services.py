"""What answers over HTTP: the shop, MLflow and its champion, Dagster with its schedules and partitions, the API."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from bookclub_platform.core.errors import ModelError
from bookclub_platform.core.settings import Settings
from bookclub_platform.local.doctor._data import retired, told
from bookclub_platform.local.doctor._finding import START, Finding, NoAnswer, ask, ask_json
from bookclub_platform.local.home import SANDBOX, held_shop
from bookclub_platform.models import Tfidf, reader
from bookclub_platform.models._registry_http import address_and_headers

MODEL_MAX_AGE = timedelta(days=8)  # a week and a day
_NAMED = 5  # of the failed partitions of an asset
_QUESTION = """{
  version
  workspaceOrError { ... on Workspace { locationEntries { name locationOrLoadError {
    ... on PythonError { message }
    ... on RepositoryLocation { repositories {
      schedules { name scheduleState { status ticks(limit: 1) { status error { message } } } }
      sensors { name sensorState { status ticks(limit: 1) { status error { message } } } }
    } } } } } }
  instance { daemonHealth { allDaemonStatuses { daemonType required healthy lastHeartbeatErrors { message } } } }
  assetNodes { assetKey { path } assetPartitionStatuses { ... on DefaultPartitionStatuses { failedPartitions } }
    assetChecksOrError { ... on AssetChecks { checks { name
      partitionStatuses { ... on AssetCheckDefaultPartitionStatuses { failedPartitions } }
      executionForLatestMaterialization { status evaluation { severity } }
    } } } }
}"""


def shop(settings: Settings) -> list[Finding]:
    is_sandbox = "shop_url" not in settings.model_fields_set and held_shop(settings.home) == SANDBOX
    url = f"http://127.0.0.1:{settings.sandbox_port}/" if is_sandbox else f"{settings.shop_url}/"
    try:
        ask(url)
    except NoAnswer as fault:
        mend = START if is_sandbox else "Set BOOKCLUB_SHOP_URL to a shop that is up; `make run` alone brings its own."
        return [Finding("shop", False, str(fault), mend)]
    return [Finding("shop", True, f"answers at {url}")]


def mlflow(settings: Settings) -> list[Finding]:
    uri = _tracking_uri(settings)
    if not uri.startswith("http"):
        return [Finding("mlflow", True, "no server: the registry is a database, see `model`")]
    address, headers = address_and_headers(uri)
    try:
        version = ask(f"{address}/version", headers=headers).decode()
    except NoAnswer as fault:
        mend = START if settings.mlflow_tracking_uri is None else "Start it, or set MLFLOW_TRACKING_URI."
        return [Finding("mlflow", False, str(fault), mend)]
    return [Finding("mlflow", True, f"MLflow {version} answers at {address}")]


def model(settings: Settings) -> list[Finding]:
    """The champion and its age."""
    mend = "Train one: job `retrain` in Dagster, or `bookclub build`."
    try:
        version, made_at = _champion(_tracking_uri(settings), Tfidf.name)
    except (NoAnswer, ModelError) as fault:
        return [Finding("model", False, f"no champion can be had: {fault}", mend)]
    age = datetime.now(UTC) - made_at
    text = f"{Tfidf.name} version {version}, {told(age)} old"
    return [Finding("model", age <= MODEL_MAX_AGE, text, f"See why weekly_retrain did not run. {mend}")]


def _champion(uri: str, name: str) -> tuple[str, datetime]:
    champion = reader(uri).champion(name)  # over HTTP without MLflow's client, whose import takes longer than all else
    return champion.version, champion.registered_at


def _tracking_uri(settings: Settings) -> str:
    return (settings.mlflow_tracking_uri or f"http://127.0.0.1:{settings.mlflow_port}").rstrip("/")


def dagster(settings: Settings) -> list[Finding]:
    """The web server and the code it loads, the schedules, sensors and daemons, the failed partitions."""
    url = f"http://127.0.0.1:{settings.dagster_port}"
    try:
        answer = ask_json(f"{url}/graphql", {"query": _QUESTION})
        if "data" not in answer:
            raise NoAnswer(f"{url}/graphql: {answer}")
    except NoAnswer as fault:
        unknown = [
            Finding(part, False, "not known: Dagster does not answer", START) for part in ("schedules", "partitions")
        ]
        return [Finding("dagster", False, str(fault), START), *unknown]
    data = answer["data"]
    return [_location(url, data), _schedules(url, data), _partitions(url, data, settings)]


def _location(url: str, data: Any) -> Finding:
    entries = data["workspaceOrError"].get("locationEntries", [])
    broken = [
        f"{entry['name']}: {entry['locationOrLoadError']['message'].strip()}"
        for entry in entries
        if entry["locationOrLoadError"] and "message" in entry["locationOrLoadError"]
    ]
    if broken or not entries:
        text = "; ".join(broken) or "no code location"
        return Finding("dagster", False, f"{url} does not load {text}", f"Mend it, then reload it at {url}/locations.")
    return Finding("dagster", True, f"Dagster {data['version']} answers at {url}")


def _schedules(url: str, data: Any) -> Finding:
    """Schedules and sensors are on, their last tick went well, and the daemons that tick them are alive."""
    ticking = [
        (one["name"], one.get("scheduleState") or one.get("sensorState"))
        for entry in data["workspaceOrError"].get("locationEntries", [])
        for repository in (entry["locationOrLoadError"] or {}).get("repositories", [])
        for one in [*repository["schedules"], *repository["sensors"]]
    ]
    wrong = [f"{name} is {state['status'].lower()}" for name, state in ticking if state["status"] != "RUNNING"]
    wrong += [
        f"the last tick of {name} failed: {tick['error']['message'].strip() if tick['error'] else 'see its page'}"
        for name, state in ticking
        for tick in state["ticks"]
        if tick["status"] == "FAILURE"
    ]
    wrong += [
        f"daemon {daemon['daemonType'].lower()} is not well"
        + "".join(f" ({error['message'].strip().splitlines()[0]})" for error in daemon["lastHeartbeatErrors"][:1])
        for daemon in data["instance"]["daemonHealth"]["allDaemonStatuses"]
        if daemon["required"] and not daemon["healthy"]
    ]
    if wrong or not ticking:
        mend = f"Switch them on, or see the cause, at {url}/automation; daemons are at {url}/health."
        return Finding("schedules", False, "; ".join(wrong) or "there are none", mend)
    return Finding("schedules", True, f"on: {', '.join(name for name, _ in ticking)}")


def _partitions(url: str, data: Any, settings: Settings) -> Finding:
    """The partitions that no run has mended, and the checks with severity ERROR; a warning is no fault, nor is what is
    retired."""
    wrong, pages = [], []
    gone = retired(settings, {_source_of(node) for node in data["assetNodes"]})
    for node in data["assetNodes"]:
        asset, is_gone = "/".join(node["assetKey"]["path"]), gone.get(_source_of(node), set())
        failed = (node["assetPartitionStatuses"] or {}).get("failedPartitions") or []
        if keys := [key for key in failed if key not in is_gone]:
            wrong.append(f"{asset}: {_few(keys)}")
            pages.append(f"{url}/assets/{asset}?view=partitions")
        checks = [told for check in node["assetChecksOrError"].get("checks", []) if (told := _failed(check, is_gone))]
        if checks:
            wrong.append(f"{asset}: {', '.join(checks)}")
            pages.append(f"{url}/assets/{asset}?view=checks")
    if not wrong:
        return Finding("partitions", True, "none failed")
    mend = f"See the causes with `bookclub failures`, and materialise again: {', '.join(pages)}"
    return Finding("partitions", False, f"failed: {'; '.join(wrong)}", mend)


def _source_of(node: Any) -> str | None:
    """The source whose asset it is; None for one over all sources."""
    source, *asset = node["assetKey"]["path"]
    return str(source) if asset else None


def _failed(check: Any, gone: Collection[str]) -> str | None:
    """The name of a failed check with its partitions; None for one that passed, or only warns."""
    newest = check["executionForLatestMaterialization"]
    if newest is None or (newest["evaluation"] or {}).get("severity") == "WARN":
        return None
    if check["partitionStatuses"] is None:
        return f"check {check['name']}" if newest["status"] == "FAILED" else None
    keys = [key for key in check["partitionStatuses"].get("failedPartitions") or [] if key not in gone]
    return f"check {check['name']} of {_few(keys)}" if keys else None


def _few(keys: Sequence[str]) -> str:
    return ", ".join(keys[:_NAMED]) + (f" and {len(keys) - _NAMED} more" if len(keys) > _NAMED else "")


def api(settings: Settings) -> list[Finding]:
    url = settings.api_url
    mend = f"{START} Or the API alone: `bookclub serve`."
    try:
        model = ask_json(f"{url}/ready")["checks"]["model"]["detail"]  # open to all, also where a login is required
    except NoAnswer as fault:
        return [Finding("api", False, str(fault), mend)]
    except (LookupError, TypeError):
        return [Finding("api", False, f"{url}/ready does not answer as the API does: another program is there", mend)]
    return [Finding("api", True, f"ready at {url}, answers with {model}")]
