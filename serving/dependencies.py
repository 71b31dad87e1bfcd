"""What routes are given: the request -> the parts that app.py has put together."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from fastapi import Depends, Request

from serving.catalogue import Catalogue
from serving.champion import Champion, ChampionKeeper
from serving.crawls import Dagster
from serving.exports import Exports
from serving.feedback import FeedbackBook, Popular

# Coroutines all of them: FastAPI hands a plain function to a thread, which costs more than the rest of a request.


async def _catalogue(request: Request) -> Catalogue:
    catalogue: Catalogue = request.state.catalogue
    return catalogue


async def _keeper(request: Request) -> ChampionKeeper:
    keeper: ChampionKeeper = request.state.keeper
    return keeper


async def _champion(request: Request) -> Champion:
    return (await _keeper(request)).champion()


async def _champion_if_any(request: Request) -> Champion | None:
    return (await _keeper(request)).current


async def _report(request: Request) -> Path:
    report: Path = request.state.report
    return report


async def _exports(request: Request) -> Exports:
    exports: Exports = request.state.exports
    return exports


async def _feedback(request: Request) -> FeedbackBook:
    feedback: FeedbackBook = request.state.feedback
    return feedback


async def _popular(request: Request) -> Popular:
    popular: Popular = request.state.popular
    return popular


async def _dagster(request: Request) -> Dagster:
    dagster: Dagster = request.state.dagster
    return dagster


TheDagster = Annotated[Dagster, Depends(_dagster)]
TheExports = Annotated[Exports, Depends(_exports)]
TheFeedbackBook = Annotated[FeedbackBook, Depends(_feedback)]
ThePopular = Annotated[Popular, Depends(_popular)]
TheCatalogue = Annotated[Catalogue, Depends(_catalogue)]
TheReport = Annotated[Path, Depends(_report)]
TheKeeper = Annotated[ChampionKeeper, Depends(_keeper)]
# One for the whole of an answer: `keeper.current` read twice may be of two states of the books, or none by then.
TheChampion = Annotated[Champion, Depends(_champion)]
TheChampionIfAny = Annotated[Champion | None, Depends(_champion_if_any)]
