"""The error tree: one branch for each thing that a caller can do about it.

    BookclubError                   anything that we raise on purpose; its text says what, where and what to do
    ├── ConfigurationError          the operator changes a setting or the machine
    │   ├── PortTaken                   ... frees a port or sets another
    │   └── AlreadyRunning              ... uses or ends what runs already
    ├── SourceError                 a shop did not give what was asked of it
    │   ├── TransientSourceError        ... may heal: try again later
    │   │   ├── ShopUnavailable             ... the shop as a whole is away or wants no visit: stop asking it
    │   │   └── CrawlUnderWay               ... somebody else is crawling it: wait for them
    │   └── PermanentSourceError        ... will not heal: report it
    │       └── PageRejected                ... the page came, but is not what its kind looks like: keep it, count it
    ├── DatabaseUnavailable         Postgres does not answer: try again later
    └── ModelError                  a model cannot be used
        ├── NoChampion                  ... there is none yet: train one
        ├── ArtifactInvalid             ... its files are damaged or foreign: keep the one in use
        └── RegistryUnavailable         ... MLflow does not answer: keep the one in use, try again later

They become a Dagster Failure, an exit status or an HTTP status at the edge only.
"""

from __future__ import annotations


class BookclubError(Exception):
    """Base of all; `str()` is a sentence for people."""


class ConfigurationError(BookclubError):
    """A setting or the machine is not as it must be."""


class PortTaken(ConfigurationError):
    """Something else listens on the port that `setting` names."""

    def __init__(self, host: str, port: int, setting: str) -> None:
        super().__init__(
            f"{host}:{port} is taken by another program. End that program, or set {setting} to a free port."
        )
        self.host, self.port, self.setting = host, port, setting


class AlreadyRunning(ConfigurationError):
    """Another process holds this BOOKCLUB_HOME."""


class SourceError(BookclubError):
    """`url` could not be had or used, for the `reason` given."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"{url}: {reason}")
        self.url, self.reason = url, reason


class TransientSourceError(SourceError):
    """May heal by itself."""


class ShopUnavailable(TransientSourceError):
    """No page of the shop can be had now; asking for the next one would only trouble it."""


class CrawlUnderWay(TransientSourceError):
    """Another crawl of the same category holds its files."""


class PermanentSourceError(SourceError):
    """Will not heal by itself."""


class PageRejected(PermanentSourceError):
    """The page does not have the structure that its kind has."""


class DatabaseUnavailable(BookclubError):
    """Postgres does not answer."""


class ModelError(BookclubError):
    """A model cannot be used."""


class NoChampion(ModelError):
    """The registry has no champion."""


class ArtifactInvalid(ModelError):
    """The files of a model are not what its manifest says."""


class RegistryUnavailable(ModelError):
    """MLflow does not answer, or not as it should."""
