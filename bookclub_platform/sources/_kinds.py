"""sources.yaml -> [Source]: finds the kinds in this folder, and builds the sources that can be built.

A source that cannot be built (a fault in its entry, a package that is not installed) becomes a BrokenSource, which
fails when it is crawled: the others are not affected.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from importlib.resources import files
from operator import or_
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, NoReturn

from pydantic import Field, TypeAdapter

from bookclub_platform.core.book import Category
from bookclub_platform.core.errors import ConfigurationError, PermanentSourceError
from bookclub_platform.core.settings import Settings
from bookclub_platform.sources._config import Fault, Found, SourceConfig, read
from bookclub_platform.sources._contract import CrawlFetcher, Listing, Page, PageFetcher, Source

_PACKAGE = "bookclub_platform.sources"
_FILE = "sources.yaml"


@dataclass(frozen=True, slots=True)
class BrokenSource:
    """A source that cannot be crawled, for `reason`; every use raises PermanentSourceError."""

    name: str
    address: str
    reason: str
    has_categories: bool

    @contextmanager
    def fetcher(self) -> Iterator[CrawlFetcher]:
        self._fail()
        yield

    def cover_fetcher(self) -> NoReturn:
        self._fail()

    def categories(self, fetcher: PageFetcher) -> Sequence[Category]:
        self._fail()

    def listing(self, page: Page) -> Listing:
        self._fail()

    def rows(self, page: Page, category: Category) -> NoReturn:
        self._fail()

    def _fail(self) -> NoReturn:
        raise PermanentSourceError(f"source {self.name}", self.reason)


def sources(settings: Settings) -> list[Source]:
    """Every source in sources.yaml, in its order.

    Raises:
        ConfigurationError: the file as a whole cannot be used; lists every fault in it.
    """
    kinds, missing = _kinds()
    found = _read(settings, kinds)
    if any(fault.source is None for fault in found.faults):
        raise ConfigurationError("sources.yaml is wrong:\n" + "\n".join(map(str, found.faults)))
    return [_build(name, found, kinds, missing, settings) for name in found.names]


def faults(settings: Settings) -> list[str]:
    """Every fault in sources.yaml, one line each: file, line, field, reason."""
    kinds, _ = _kinds()
    return [str(fault) for fault in _read(settings, kinds).faults]


def schema() -> dict[str, Any]:
    """JSON schema of sources.yaml, for editors."""
    kinds, _ = _kinds()
    entry = reduce(or_, (module.Config for module in kinds.values()))
    listed = TypeAdapter(list[Annotated[entry, Field(discriminator="kind")]]).json_schema()  # type: ignore[valid-type]
    definitions = listed.pop("$defs")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {"sources": listed | {"minItems": 1}},
        "required": ["sources"],
        "additionalProperties": False,
        "$defs": definitions,
    }


def sources_file(settings: Settings) -> Path:
    """The file in the setting, else the one in the working folder, else the one that ships with the platform."""
    if settings.sources is not None:
        return settings.sources
    own = Path(_FILE).absolute()
    return own if own.exists() else Path(str(files(_PACKAGE) / _FILE))


def _read(settings: Settings, kinds: dict[str, ModuleType]) -> Found:
    return read(sources_file(settings), {kind: module.Config for kind, module in kinds.items()}, settings.variable)


def _kinds() -> tuple[dict[str, ModuleType], dict[str, str]]:
    """(kind -> its module, kind -> why it cannot be imported); files that start with _ are internal."""
    package = importlib.import_module(_PACKAGE)
    names = sorted(module.name for module in pkgutil.iter_modules(package.__path__) if not module.name.startswith("_"))
    kinds, missing = {}, {}
    for name in names:
        try:
            kinds[name] = importlib.import_module(f"{_PACKAGE}.{name}")
        except ImportError as error:
            missing[name] = f"kind {name} cannot be used on this machine: {error}"
    return kinds, missing


def _build(
    name: str, found: Found, kinds: dict[str, ModuleType], missing: dict[str, str], settings: Settings
) -> Source:
    config = found.entries.get(name)
    if config is None:
        return _broken(name, [fault for fault in found.faults if fault.source == name], kinds, missing)
    try:
        source: Source = kinds[config.kind].build(config, settings)
    except (ImportError, ConfigurationError) as error:
        return BrokenSource(name, config.address, str(error), config.has_categories)
    return source


def _broken(name: str, faults: list[Fault], kinds: dict[str, ModuleType], missing: dict[str, str]) -> BrokenSource:
    kind = next((fault.kind for fault in faults if fault.kind), None)
    config: type[SourceConfig] | None = kinds[kind].Config if kind in kinds else None
    reason = missing.get(kind or "") or "; ".join(map(str, faults))
    return BrokenSource(name, "sources.yaml", reason, config.has_categories if config else True)
