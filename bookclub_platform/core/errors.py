"""The exception hierarchy: one branch for each way in which a caller can react.

    BookclubError                   anything that we raise on purpose; its text says what, where and what to do
    ├── ConfigurationError          the operator must change a setting or the machine
    │   ├── PortTaken                   ... free a port or set another
    │   └── AlreadyRunning              ... use or stop what is already running
    ├── SourceError                 a shop did not deliver what was requested
    │   ├── TransientSourceError        ... may recover: try again later
    │   │   ├── ShopUnavailable             ... the whole shop is down or refuses visits: stop sending requests
    │   │   └── CrawlUnderWay               ... another crawl of it is running: wait for that
    │   └── PermanentSourceError        ... will not recover: report it
    │       └── PageRejected                ... the page lacks the structure of its kind: keep it, count it
    ├── DatabaseUnavailable         Postgres does not respond: try again later
    └── ModelError                  a model cannot be used
        ├── NoChampion                  ... there is none yet: train one
        ├── ArtifactInvalid             ... its files are damaged or foreign: keep the one in use
        └── RegistryUnavailable         ... MLflow does not respond: keep the one in use, try again later

They become a Dagster Failure, an exit status or an HTTP status only at the outer edge.
"""

from __future__ import annotations


class BookclubError(Exception):
    """Base class of all; `str()` is a sentence for people."""


class ConfigurationError(BookclubError):
    """A setting or the machine is not as it must be."""


class PortTaken(ConfigurationError):
    """Another program listens on the port that `setting` names."""

    def __init__(self, host: str, port: int, setting: str) -> None:
        super().__init__(
            f"{host}:{port} is taken by another program. End that program, or set {setting} to a free port."
        )
        self.host, self.port, self.setting = host, port, setting


class AlreadyRunning(ConfigurationError):
    """Another process holds this BOOKCLUB_HOME."""


class SourceError(BookclubError):
    """`url` could not be fetched or used, for the given `reason`."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"{url}: {reason}")
        self.url, self.reason = url, reason


class TransientSourceError(SourceError):
    """May recover by itself."""


class ShopUnavailable(TransientSourceError):
    """No page of the shop is available now; requesting the next one would only burden it."""


class CrawlUnderWay(TransientSourceError):
    """Another crawl of the same category holds its files."""


class PermanentSourceError(SourceError):
    """Will not recover by itself."""


class PageRejected(PermanentSourceError):
    """The page does not have the structure that its kind has."""


class DatabaseUnavailable(BookclubError):
    """Postgres does not respond."""


class ModelError(BookclubError):
    """A model cannot be used."""


class NoChampion(ModelError):
    """The registry has no champion."""


class ArtifactInvalid(ModelError):
    """The files of a model do not match its manifest."""


class RegistryUnavailable(ModelError):
    """MLflow does not respond, or not correctly."""
