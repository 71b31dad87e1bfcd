"""Registry -> the champion in memory, kept current in the background; a bad or missing one never replaces a good one.

    keeper = ChampionKeeper(registry, "tfidf_model", folder, poll_s=2, lineups=lineups)
    keeper.recall(); keeper.look(); keeper.champion().model.recommend(1, 10)

`run` first loads the local copy, so that a start needs no registry. Then it polls in the background: the registry for
models, and the books for what was added, changed or delisted. These are two separate loops, because a registry that
hangs must not hold up a new book.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from bookclub_platform.core import audit
from bookclub_platform.core.errors import ArtifactInvalid, DatabaseUnavailable, ModelError, NoChampion
from bookclub_platform.models import Grown, ModelVersion, RegistryReader, Tfidf
from serving.process import malloc
from serving.recommender.lineup import Lineup, Lineups
from serving.recommender.rehearsal import rehearsed
from serving.recommender.served import Served

log = logging.getLogger(__name__)

LONGEST_PAUSE_S = 60.0
_BEHIND_S = 0.02  # interval of the in-memory check whether the books have changed
_PAUSES = 19  # after a slice of background work, requests get this many times its duration
_AHEAD_PAUSES, _AHEAD_S = 2, 2.0  # the same while a new model waits; and the longest that it waits
LATE_AFTER_S, LATE_AFTER_LOOKS = 60.0, 10  # no look has ended for so long: the one that runs hangs
LONGEST_BOOKS_PAUSE_S = 10.0  # a version that is held back must get a lineup within HELD_IF_LARGE_S
LAST = "champion.json"


@dataclass(frozen=True, slots=True)
class Champion:
    """A model and its metadata in one object, so that a request never mixes two models.

    `is_confirmed`: the registry has named it since this process started; until then it is the local copy of an earlier
    process.
    """

    lineup: Lineup
    version: ModelVersion
    figures: dict[str, float]
    since: datetime
    folder: Path
    is_confirmed: bool = True

    @property
    def model(self) -> Tfidf:
        """The model as it was trained, without books added since."""
        return self.lineup.grown.base


@dataclass(frozen=True, slots=True)
class Last:
    """The content of `champion.json`, beside the downloads: which one was in use last, for a start without registry."""

    folder: str
    version: ModelVersion
    figures: dict[str, float]


_last = TypeAdapter(Last)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A version that could not be used. It is retried with growing pauses, because each try may be a large download."""

    version: ModelVersion
    reason: str
    pause_s: float
    again_at: float


class ChampionKeeper:
    """Asks the registry for the champion every `poll_s` seconds and swaps it in once it is complete, loaded and tested.

    Attributes:
        fault: why the last look did not end with the registry's champion in use; None if it did.
        asked_at: when that was, in `time.monotonic()` seconds.
        swaps: number of champions put in use since the start.
        books_fault: why the last look at the books failed; None if it succeeded.
        books_asked_at: when that was, as `asked_at`.
    """

    def __init__(
        self,
        registry: RegistryReader,
        name: str,
        folder: Path,
        poll_s: float,
        lineups: Lineups,
        served: Served | None = None,
    ) -> None:
        """Without `served`, the versions in use are not recorded."""
        self._registry, self._name, self._folder, self._poll_s = registry, name, folder, poll_s
        self._lineups, self._served = lineups, served
        self._prepared: Lineup | None = None
        self._has_ended = False
        self._swap = threading.Lock()  # two loops replace the champion: one for models, one for books
        self._reading = threading.Lock()
        self.books_fault: str | None = None
        self.books_asked_at = time.monotonic()
        self._books_pause_s = 0.0
        self._champion: Champion | None = None
        self._refusal: Refusal | None = None
        self.fault: str | None = "the registry has not been asked yet"
        self.asked_at = time.monotonic()
        self.swaps = 0

    @property
    def current(self) -> Champion | None:
        """The champion in use. Keep one reference for the whole response: the next look may replace it."""
        return self._champion

    def champion(self) -> Champion:
        """The champion in use.

        Raises:
            NoChampion: there is none yet. The message is public; the cause may name hosts and paths, and is in `fault`.
        """
        if self._champion is None:
            raise NoChampion(
                f"There is no model yet; /ready says why. Train one: materialise {self._name} in Dagster, or run "
                f"`bookclub build`. This server loads it by itself within {self._poll_s:g} s."
            )
        return self._champion

    def lasting_fault(self) -> str | None:
        """`fault`, or that no look has ended for long."""
        return self.fault or self._lateness("registry", self.asked_at)

    def lasting_books_fault(self) -> str | None:
        """`books_fault`, or that no look at the books has ended for long."""
        return self.books_fault or self._lateness("database", self.books_asked_at)

    def _lateness(self, of: str, asked_at: float) -> str | None:
        ago_s = time.monotonic() - asked_at
        if ago_s <= max(LATE_AFTER_S, LATE_AFTER_LOOKS * self._poll_s):
            return None
        return f"The {of} was asked {ago_s:.0f} s ago, and the next look has not ended since: it hangs or takes long."

    async def run(self) -> None:
        """Load the local copy, then look repeatedly, off the event loop, until cancelled."""
        try:
            await asyncio.to_thread(self.recall)
            async with asyncio.TaskGroup() as loops:
                loops.create_task(self._look_for_ever())
                loops.create_task(self._look_at_books_for_ever())
        finally:
            self._has_ended = True  # a thread does not notice that its task was cancelled

    async def _look_for_ever(self) -> None:
        while True:
            await asyncio.to_thread(self.look)
            await asyncio.sleep(self._poll_s)

    async def _look_at_books_for_ever(self) -> None:
        if self._champion is None:
            await asyncio.to_thread(self._read_ahead)
        while True:
            started = time.monotonic()
            await asyncio.to_thread(self.look_at_books)
            took_s = time.monotonic() - started
            await asyncio.to_thread(self.prepare)
            # While a large catalogue is being loaded, its state changes all the time: leave most time to requests.
            again_at = started + took_s + max(self._books_pause_s, min(5 * took_s, LONGEST_BOOKS_PAUSE_S))
            await asyncio.sleep(max(_BEHIND_S, again_at - time.monotonic()))
            while time.monotonic() - started < self._poll_s and not self._is_behind():
                await asyncio.sleep(_BEHIND_S)

    def _is_behind(self) -> bool:
        champion = self._champion
        return champion is not None and self._lineups.is_behind(champion.lineup)

    def recall(self) -> None:
        """Put the local copy of the last champion in use, if it is intact. Does not raise: a fault is logged.

        This comes before the registry is asked, because a registry that hangs would keep the customers waiting.
        """
        try:
            last = _last.validate_json((self._folder / LAST).read_bytes())
            folder = self._folder / Path(last.folder).name
            lineup = self._lineup(rehearsed(folder))
            champion = Champion(lineup, last.version, last.figures, datetime.now(UTC), folder, False)
        except FileNotFoundError:
            return  # the first start here
        except (ArtifactInvalid, OSError, ValidationError) as error:
            log.warning("The local copy of the last champion cannot be used, the registry is asked: %s", error)
            return
        if last.version.name == self._name:
            self._note(last.version)
            self._champion = champion
            log.info("Took up the local copy of %s version %s.", last.version.name, last.version.version)

    def look(self) -> None:
        """Ask the registry once and put a new champion in use. Does not raise: a fault is kept, and logged once."""
        fault = None
        if self._champion is not None:
            self._note(self._champion.version)
        try:
            self._follow(self._registry.champion(self._name))
        except NoChampion as error:
            fault = str(error)
            with self._swap:
                if self._champion is not None and not self._champion.is_confirmed:
                    self._champion = None  # the copy is from a different registry, so the books may be different, too
        except ModelError as error:
            fault = str(error)
        except Exception as error:  # the keeper must survive any fault of a registry or a disk
            fault = f"{type(error).__name__}: {error}"
            if fault != self.fault:
                log.exception("Looking for the champion failed.")
        if fault is not None and fault != self.fault:
            log.warning("%s", fault)
        self.fault, self.asked_at = fault, time.monotonic()

    def look_at_books(self) -> None:
        """Bring the champion's lineup up to date with the books. Does not raise: a fault is kept, and logged once."""
        if (champion := self._champion) is None:
            self.books_asked_at = time.monotonic()  # there is nothing to read them for
            return
        lineup = self._lineup(champion.model, champion.lineup)
        if lineup is not champion.lineup:  # else keep the same object, which callers compare by identity
            with self._swap:
                if self._champion is not None and self._champion.model is champion.model:
                    self._put_in_use(replace(self._champion, lineup=lineup))

    def _read_ahead(self) -> None:
        """Read the books while the first model loads. Does not raise: `_lineup` tries again, and reports faults."""
        try:
            with self._reading:
                self._lineups.read_ahead()
        except DatabaseUnavailable as error:
            log.warning("The books are read once there is a model: %s", error)
        except Exception:  # as with `look`
            log.exception("Reading the books ahead of the model failed.")

    def prepare(self) -> None:
        """Fill the caches for the champion's books before requests need them; stop if the champion is out of date. Does
        not raise: a fault is logged."""
        champion, lineups = self._champion, self._lineups
        if champion is None or champion.lineup is self._prepared:
            return
        try:
            for _ in _resting(lineups.prepare(champion.lineup)):
                if self._has_ended or self._champion is not champion or lineups.is_behind(champion.lineup):
                    return
                self.books_asked_at = time.monotonic()  # the watch sees no newer books: as good as a look
            self._prepared = champion.lineup
            malloc.trim()
        except DatabaseUnavailable as error:
            log.warning("What is asked for is read only then: %s", error)
        except Exception:  # as with `look`
            log.exception("Preparing the answers failed: each is made when it is asked for.")
            self._prepared = champion.lineup

    def _note(self, version: ModelVersion) -> None:
        if self._served is not None:
            self._served.note(version)

    def _put_in_use(self, champion: Champion) -> None:
        self._champion = champion
        self._lineups.put_in_use(champion.lineup)

    def _lineup(self, model: Tfidf, before: Lineup | None = None, is_new: bool = False) -> Lineup:
        """What may be recommended with `model` now; if the books cannot be read, the lineup from before.

        Raises:
            ArtifactInvalid: the model `is_new` and cannot fold in the current books.
        """
        fault, pause_s, lineup = None, 0.0, before or Lineup(Grown(model))
        try:
            with self._reading:
                lineup = self._lineups.of(model, before)
        except DatabaseUnavailable as error:
            fault, pause_s = str(error), min(self._poll_s, LONGEST_BOOKS_PAUSE_S)
        except Exception as error:  # as in `look`: whatever a database holds, the model in use stays in use
            if is_new:
                told = f"{type(error).__name__}: {error}"
                raise ArtifactInvalid(f"It cannot take in the books of today ({told}).") from error
            fault = f"{type(error).__name__}: {error}"
            pause_s = min(2 * self._books_pause_s or self._poll_s, LONGEST_PAUSE_S)  # each look may read all books
            if fault != self.books_fault:
                log.exception("Looking at the books failed.")
        if fault is not None and fault != self.books_fault:
            log.warning("New books wait: %s", fault)
        self.books_fault, self.books_asked_at, self._books_pause_s = fault, time.monotonic(), pause_s
        return lineup

    def _follow(self, version: ModelVersion) -> None:
        if self._champion is not None and self._champion.version.key == version.key:
            self._refusal = None
            if not self._champion.is_confirmed:
                with self._swap:
                    self._champion = replace(self._champion, version=version, is_confirmed=True)
            return
        refusal = self._refusal
        if refusal is not None and refusal.version.key == version.key and time.monotonic() < refusal.again_at:
            raise ArtifactInvalid(refusal.reason)
        try:
            champion = self._load(version)
        except (ArtifactInvalid, OSError) as error:
            raise ArtifactInvalid(self._refuse(version, error)) from error
        if self._champion is not None:
            champion = self._told_ahead(champion)
        self._note(version)  # before feedback on its lists can arrive
        with self._swap:
            before = self._champion
            self._put_in_use(champion)
            self._refusal = None
        self.swaps += 1
        audit.note("take-up-model", "done", model=version.name, version=version.version, run_id=version.run_id)
        log.info("Took up %s version %s (run %s).", version.name, version.version, version.run_id)
        self._remember(champion)
        _forget_all_but({champion.folder} | ({before.folder} if before else set()), self._folder)
        if before is not None and before.lineup.near is not None:
            for _ in _resting(before.lineup.near.emptied()):
                pass

    def _told_ahead(self, champion: Champion) -> Champion:
        """The same champion with the current books, once its caches are filled: otherwise each first response after a
        swap takes several times as long as those before."""
        deadline = time.monotonic() + _AHEAD_S
        try:
            for _ in _resting(self._lineups.prepare(champion.lineup), _AHEAD_PAUSES):
                if self._has_ended or time.monotonic() > deadline:
                    break
        except DatabaseUnavailable as error:
            log.warning("What is asked for is read only then: %s", error)
        return replace(champion, lineup=self._lineup(champion.model, champion.lineup))

    def _remember(self, champion: Champion) -> None:
        path = self._folder / LAST
        fresh = path.with_name(f".{LAST}-{os.getpid()}")
        fresh.write_bytes(_last.dump_json(Last(champion.folder.name, champion.version, champion.figures)))
        fresh.replace(path)  # atomic: another process, or a start after a crash, reads the old file or the new one

    def _load(self, version: ModelVersion) -> Champion:
        folder = self._registry.download(version, self._folder)
        try:
            lineup = self._lineup(rehearsed(folder), is_new=True)
        except ArtifactInvalid:
            shutil.rmtree(folder, ignore_errors=True)  # the download may be damaged: the next try fetches it again
            raise
        # JSON has neither NaN nor infinity, so LAST could not be read again.
        figures = {name: value for name, value in self._registry.figures(version).items() if math.isfinite(value)}
        return Champion(lineup, version, figures, datetime.now(UTC), folder)

    def _refuse(self, version: ModelVersion, error: Exception) -> str:
        """Remember not to retry `version` at once; return the reason."""
        before = self._refusal
        again = before is not None and before.version.key == version.key
        pause_s = min(2 * before.pause_s, LONGEST_PAUSE_S) if before and again else self._poll_s
        kept = f"version {self._champion.version.version} stays in use" if self._champion else "no other is in use"
        reason = f"{version.name} version {version.version} cannot be used, {kept}: {error}"
        self._refusal = Refusal(version, reason, pause_s, time.monotonic() + pause_s)
        return reason


def _resting(slices: Iterator[None], pauses: int = _PAUSES) -> Iterator[None]:
    """The same slices, with a pause after each in which requests are answered."""
    started = time.perf_counter()
    for _ in slices:
        time.sleep(pauses * (time.perf_counter() - started))
        yield
        started = time.perf_counter()


def _forget_all_but(kept: set[Path], folder: Path) -> None:
    """Delete old downloads, or one a week would fill the disk. The previous one stays, for a rollback."""
    for path in folder.iterdir():
        if path not in kept and path.is_dir() and not path.name.startswith("."):
            shutil.rmtree(path, ignore_errors=True)
