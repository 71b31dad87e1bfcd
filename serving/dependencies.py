"""The request -> the parts that app.py has assembled, as dependencies of the routes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, Request

from serving.access.accounts import Accounts
from serving.access.callers import Caller
from serving.access.quotas import SharedQuotas
from serving.crawls import Dagster
from serving.database.catalogue import Catalogue
from serving.database.exports import Exports
from serving.feedback import FeedbackStore, Popular
from serving.monitoring.metrics import Metrics
from serving.process.disk import Disk
from serving.recommender.champion import Champion, ChampionKeeper

# All of these are coroutines: FastAPI runs a plain function in a thread, which costs more than the rest of a request.


def _given(name: str) -> Any:
    async def give(request: Request) -> Any:
        return getattr(request.state, name)

    return Depends(give)


async def _champion(request: Request) -> Champion:
    keeper: ChampionKeeper = request.state.keeper
    return keeper.champion()


async def _champion_if_any(request: Request) -> Champion | None:
    keeper: ChampionKeeper = request.state.keeper
    return keeper.current


TheAccounts = Annotated[Accounts, _given("accounts")]
TheCaller = Annotated[Caller, _given("caller")]
TheCatalogue = Annotated[Catalogue, _given("catalogue")]
TheDagster = Annotated[Dagster, _given("dagster")]
TheDisk = Annotated[Disk, _given("disk")]
TheExports = Annotated[Exports, _given("exports")]
TheFeedbackStore = Annotated[FeedbackStore, _given("feedback")]
TheKeeper = Annotated[ChampionKeeper, _given("keeper")]
TheMetrics = Annotated[Metrics, _given("metrics")]
ThePopular = Annotated[Popular, _given("popular")]
TheQuotas = Annotated[SharedQuotas, _given("quotas")]
TheReport = Annotated[Path, _given("report")]
# Read once per response: reading `keeper.current` twice may give two states of the books, or None the second time.
TheChampion = Annotated[Champion, Depends(_champion)]
TheChampionIfAny = Annotated[Champion | None, Depends(_champion_if_any)]
