"""Settings of a source -> its Fetcher: how politely a web source is asked, worked out once for every kind."""

from __future__ import annotations

from dataclasses import dataclass, field

from bookclub_platform.core.settings import POLITE_DELAY_S, Settings, is_loopback
from bookclub_platform.sources._config import SourceConfig
from bookclub_platform.sources._fetcher import Fetcher
from bookclub_platform.sources._politeness import Patience


@dataclass(frozen=True, slots=True)
class Web:
    """The way to one web source.

    Attributes:
        delay_s: seconds between the starts of two requests.
        concurrency: requests under way at once.
        contact: where the source reaches us, None if nobody said.
    """

    delay_s: float = POLITE_DELAY_S
    concurrency: int = 8
    contact: str | None = None
    patience: Patience = field(default_factory=Patience)

    @classmethod
    def of(cls, config: SourceConfig, settings: Settings, patience: Patience | None = None) -> Web:
        polite, is_local = config.politeness, is_loopback(config.address)
        delay_s = polite.delay_s
        if delay_s is None and (settings.crawl_delay_s or is_local):
            delay_s = settings.crawl_delay_s or 0.0
        return cls(
            delay_s=POLITE_DELAY_S if delay_s is None else delay_s,
            concurrency=polite.concurrency or settings.crawl_concurrency,
            contact=polite.contact or settings.crawl_contact,
            patience=patience or Patience(),
        )

    def open(self) -> Fetcher:
        return Fetcher(delay_s=self.delay_s, concurrency=self.concurrency, patience=self.patience)
