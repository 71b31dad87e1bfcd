"""Settings of a source -> its Fetcher: the politeness towards a web source, determined in one place for every kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from bookclub_platform.core.settings import POLITE_DELAY_S, Settings, is_loopback
from bookclub_platform.sources._config import SourceConfig
from bookclub_platform.sources._contract import Page
from bookclub_platform.sources._fetch import is_whole
from bookclub_platform.sources._fetcher import Fetcher
from bookclub_platform.sources._politeness import Patience


@dataclass(frozen=True, slots=True)
class Web:
    """The access to one web source.

    Attributes:
        delay_s: seconds between the starts of two requests.
        concurrency: the maximum of concurrent requests.
        contact: how the source can reach us, None if not configured.
        shops: the source's own address, and those that it may redirect to.
        is_whole: whether a response is complete; one that is not is requested again.
    """

    delay_s: float = POLITE_DELAY_S
    concurrency: int = 8
    contact: str | None = None
    shops: tuple[str, ...] | None = None
    patience: Patience = field(default_factory=Patience)
    is_whole: Callable[[Page], bool] = is_whole

    @classmethod
    def of(
        cls,
        config: SourceConfig,
        settings: Settings,
        patience: Patience | None = None,
        is_whole: Callable[[Page], bool] = is_whole,
    ) -> Web:
        polite, is_local = config.politeness, is_loopback(config.address)
        delay_s = polite.delay_s
        if delay_s is None and (settings.crawl_delay_s or is_local):
            delay_s = settings.crawl_delay_s or 0.0
        return cls(
            delay_s=POLITE_DELAY_S if delay_s is None else delay_s,
            concurrency=polite.concurrency or settings.crawl_concurrency,
            contact=polite.contact or settings.crawl_contact,
            shops=(config.address, *config.redirects_to),
            patience=patience or Patience(),
            is_whole=is_whole,
        )

    def open(self) -> Fetcher:
        """A Fetcher for the source. Raises ConfigurationError if `contact` is not a valid one."""
        return Fetcher(
            delay_s=self.delay_s,
            concurrency=self.concurrency,
            patience=self.patience,
            contact=self.contact,
            shops=self.shops,
            is_whole=self.is_whole,
        )
