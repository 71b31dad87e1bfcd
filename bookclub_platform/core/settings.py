"""Environment and `.env` -> Settings: every variable that the platform reads, typed, in one place.

    python -c "from bookclub_platform.core.settings import Settings; print(Settings())"

A composition root (cli/, definitions.py, serving/app.py) reads it once and passes on what is needed.
"""

from __future__ import annotations

import ipaddress
import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, AliasChoices, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from bookclub_platform.core.errors import ConfigurationError

POLITE_DELAY_S = 0.5
LOOPBACK = {"127.0.0.1", "localhost", "::1"}

_SPARK_MASTER = re.compile(r"local|local\[(\d+|\*)(,\d+)?\]|yarn|(spark|k8s)://\S+")

Port = Annotated[int, Field(ge=1, le=65535)]


def _absolute(path: Path) -> Path:
    return path.expanduser().absolute()


def _absolute_or_none(path: Path | None) -> Path | None:
    return _absolute(path) if path is not None else None


def _http_url(url: str) -> str:
    if urlsplit(url).scheme not in {"http", "https"} or not urlsplit(url).hostname:
        raise ValueError("must be an address such as http://books.toscrape.com")
    return url.rstrip("/")


def _http_url_or_none(url: str | None) -> str | None:
    return None if url is None else _http_url(url)


def _postgres_url(url: str | None) -> str | None:
    if url is not None and not url.startswith(("postgresql://", "postgresql+", "postgres://")):
        raise ValueError("must be an address such as postgresql://user:password@host:5432/bookclub")
    return url


def _time_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError("must be a time zone such as Europe/Vienna or UTC") from error
    return name


def _cron(times: str) -> str:
    try:
        CronSim(times, datetime.now(UTC))
        if len(times.split()) != 5:
            raise CronSimError("Wrong number of fields")
    except CronSimError as error:
        example = "such as 0 3 * * * for every day at three"
        raise ValueError(f"must be minute, hour, day, month and weekday, {example} ({error})") from error
    return times


def _secret_http_url(url: SecretStr | None) -> SecretStr | None:
    return SecretStr(_http_url(url.get_secret_value())) if url is not None else None


def _spark_master(master: str | None) -> str | None:
    if master is not None and not _SPARK_MASTER.fullmatch(master):
        raise ValueError("must be a Spark master, such as local[2], spark://host:7077, yarn or k8s://https://host:6443")
    return master


Cron = Annotated[str, AfterValidator(_cron)]


def _listed(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def _networks(text: str) -> str:
    for item in _listed(text):
        ipaddress.ip_network(item)  # raises ValueError, also for `*`: any client could then claim any address
    return text


def _origins(text: str) -> str:
    for item in _listed(text):
        if item != "*" and _http_url(item) != item:
            raise ValueError("must be origins such as https://shop.example, without a path, separated by commas")
    return text


PerWindow = Annotated[int, Field(ge=0, le=1_000_000)]


class Settings(BaseSettings):
    """All settings; `.env.example` explains each to the operator (a test compares the two)."""

    model_config = SettingsConfigDict(
        env_prefix="BOOKCLUB_", env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True
    )

    home: Annotated[Path, AfterValidator(_absolute)] = Path(".bookclub")
    shop_url: Annotated[str, AfterValidator(_http_url)] = "http://books.toscrape.com"
    database_url: Annotated[str | None, AfterValidator(_postgres_url)] = None
    mlflow_tracking_uri: str | None = Field(default=None, validation_alias=AliasChoices("MLFLOW_TRACKING_URI"))
    api_host: str = "127.0.0.1"
    api_port: Port = 8000
    api_workers: Annotated[int, Field(ge=1, le=64)] = 1
    dagster_port: Port = 3000
    dagster_url: Annotated[str | None, AfterValidator(_http_url_or_none)] = None
    mlflow_port: Port = 5000
    sandbox_port: Port = 8765
    sandbox_books: Annotated[int, Field(ge=1)] = 1000
    sandbox_seed: int = 0
    crawl_delay_s: Annotated[float | None, Field(ge=0)] = None
    crawl_concurrency: Annotated[int, Field(ge=1, le=64)] = 8
    crawl_contact: str | None = None
    sources: Annotated[Path | None, AfterValidator(_absolute_or_none)] = None
    files: Annotated[Path, AfterValidator(_absolute)] = Path("files")
    model_poll_s: Annotated[float, Field(gt=0)] = 2.0
    answer_cache_mb: Annotated[int, Field(ge=0, le=100_000)] = 40
    request_log: Literal["faults", "all"] = "faults"
    timezone: Annotated[str, AfterValidator(_time_zone)] = "UTC"
    crawl_schedule: Cron = "0 3 * * *"
    covers_schedule: Cron = "0 6 * * *"
    retrain_schedule: Cron = "0 5 * * 1"
    retrain_coverage: Annotated[float, Field(ge=0, le=1)] = 0.9
    alarm_webhook: Annotated[SecretStr | None, AfterValidator(_secret_http_url)] = None
    embedding: Literal["none", "lsa", "minilm"] = "lsa"
    spark_master: Annotated[str | None, AfterValidator(_spark_master)] = None
    require_login: bool = False
    open_registration: bool = True
    token_keys: Annotated[Path | None, AfterValidator(_absolute_or_none)] = None
    anonymous_per_minute: PerWindow = 120
    account_per_minute: PerWindow = 1200
    address_per_minute: PerWindow = 6000
    logins_per_minute: PerWindow = 10
    registrations_per_hour: PerWindow = 10
    feedback_per_day: PerWindow = 2000
    feedback_days: Annotated[int, Field(ge=31, le=36_500)] = 400
    trusted_proxies: Annotated[str, AfterValidator(_networks)] = ""
    cors_origins: Annotated[str, AfterValidator(_origins)] = ""

    @property
    def is_shop_local(self) -> bool:
        return is_loopback(self.shop_url)

    @property
    def token_keys_file(self) -> Path:
        """Next to the embedded database, whose accounts the tokens are for: the two are moved away together."""
        return self.token_keys or self.home / "serving" / "token_keys.json"

    @property
    def trusted_proxy_list(self) -> list[str]:
        return _listed(self.trusted_proxies)

    @property
    def cors_origin_list(self) -> list[str]:
        return _listed(self.cors_origins)

    @property
    def delay_s(self) -> float:
        """Seconds between two requests to the shop; none is needed on loopback."""
        if self.crawl_delay_s is not None:
            return self.crawl_delay_s
        return 0.0 if self.is_shop_local else POLITE_DELAY_S

    @property
    def report(self) -> Path:
        """The path of the catalogue report, for its writer and for the API."""
        return self.home / "report" / "catalogue.html"

    @property
    def dagster_address(self) -> str:
        """The address at which the API reaches Dagster's GraphQL."""
        return self.dagster_url or f"http://127.0.0.1:{self.dagster_port}"

    @property
    def api_url(self) -> str:
        """The address of the API for people on this machine."""
        host = "127.0.0.1" if self.api_host in {"0.0.0.0", "::"} else self.api_host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.api_port}"

    def variable(self, name: str) -> str | None:
        """The value of `${name}` in sources.yaml: one of our settings, with its default, or an environment variable."""
        field = name.removeprefix("BOOKCLUB_").lower()
        if name.startswith("BOOKCLUB_") and field in type(self).model_fields:
            value = getattr(self, field)
            return None if value is None else str(value)
        return os.environ.get(name)


def is_loopback(url: str) -> bool:
    return urlsplit(url).hostname in LOOPBACK


def load_settings(**overrides: object) -> Settings:
    """Settings from the environment and `.env`.

    Raises:
        ConfigurationError: names every variable that is wrong, and why.
    """
    try:
        settings = Settings(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        faults = "; ".join(f"{_variable(fault['loc'])}: {fault['msg']}" for fault in error.errors())
        raise ConfigurationError(f"Settings are wrong (environment or .env): {faults}") from error
    if settings.delay_s == 0 and not settings.is_shop_local:
        raise ConfigurationError(
            f"BOOKCLUB_CRAWL_DELAY_S=0 is allowed for a shop on loopback alone, and {settings.shop_url} is none."
        )
    return settings


def _variable(location: tuple[int | str, ...]) -> str:
    name = str(location[0])
    return name if name.isupper() else f"BOOKCLUB_{name.upper()}"
