"""All books of one snapshot -> a response that is streamed while it is read, with constant memory.

    export = await exports.open(user_id, "csv", with_delisted=False, after=0); return export.response(headers)

Each export holds a connection and its snapshot for as long as the client reads. So only a few run at a time, one per
account, each with a time limit. A very slow client is cut off, and a slow one gives way to one that waits; `after`
resumes an export.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from contextlib import ExitStack, aclosing, closing, suppress
from typing import Any

import anyio
import sqlalchemy as sa
from anyio.to_thread import run_sync
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from bookclub_platform.core.errors import DatabaseUnavailable
from bookclub_platform.core.tables import select_state
from bookclub_platform.export import Format, export_chunks, snapshot
from serving.database.account_locks import AccountLocks
from serving.database.catalogue import State, state_of
from serving.database.datawatch import DataWatch
from serving.database.export_slots import ExportSlot, ExportSlots
from serving.database.postgres import CONNECT_TIMEOUT_S, KEEPALIVE
from serving.http import problems
from serving.process.logs import CutShort

log = logging.getLogger(__name__)

MEDIA_TYPES: dict[Format, str] = {
    "ndjson": "application/x-ndjson",
    "csv": "text/csv; charset=utf-8",
    "parquet": "application/vnd.apache.parquet",
}
_AWAY = "The books cannot be read: the database does not respond."
AT_ONCE = 3  # per worker
LASTS_S = 900.0
# The rate of a slow phone; a client that reads less in that time only keeps the others waiting.
LEAST_BYTES, LEAST_WITHIN_S = 2**20, 60.0
_PATIENCE_S, _LOOKED_EVERY_S = 2.0, 0.1  # time to notice that the client of the previous export is gone


class Exports:
    """Exports of one database."""

    def __init__(self, database_url: str, watch: DataWatch, locks: AccountLocks) -> None:
        network = {"connect_timeout": CONNECT_TIMEOUT_S, **KEEPALIVE}
        url = sa.make_url(database_url).update_query_dict({name: str(value) for name, value in network.items()})
        self._url = url.render_as_string(hide_password=False)
        self._slots, self._watch, self._locks = ExportSlots(AT_ONCE), watch, locks

    async def open(self, user_id: int, format: Format, with_delisted: bool, after: int) -> Export:
        """An export whose snapshot is taken; close it, or return its response.

        Raises:
            Problem: 429 if the account already has one running, 501 if the format's library is not installed, 503 if
                too many are running.
            DatabaseUnavailable: Postgres does not respond.
        """
        if format == "parquet" and importlib.util.find_spec("pyarrow") is None:
            raise problems.Problem("format-absent")
        if self._watch.is_to_be_spared():
            raise DatabaseUnavailable(_AWAY)
        held = ExitStack()
        try:
            await self._take_turn(user_id, held)
            slot = await self._take_slot(user_id, held)
            return await run_sync(_begin, held, slot, self._url, format, with_delisted, after)
        except BaseException:
            held.close()
            raise

    async def _take_turn(self, user_id: int, held: ExitStack) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while not self._locks.take(user_id, held):
            if time.monotonic() > deadline:
                raise problems.Problem("export-under-way", headers={"Retry-After": "10"})
            await asyncio.sleep(_LOOKED_EVERY_S)

    async def _take_slot(self, user_id: int, held: ExitStack) -> ExportSlot:
        deadline = time.monotonic() + _PATIENCE_S
        while (slot := self._slots.take(user_id, held)) is None:
            self._slots.make_room()
            if time.monotonic() > deadline:
                raise problems.Problem("busy", "Too many exports are running. Retry.", {"Retry-After": "10"})
            await asyncio.sleep(_LOOKED_EVERY_S)
        return slot


def _begin(held: ExitStack, slot: ExportSlot, url: str, format: Format, with_delisted: bool, after: int) -> Export:
    try:
        connection = held.enter_context(snapshot(url))
        state = state_of(connection.execute(select_state()).one_or_none())
    except sa.exc.OperationalError as error:
        raise DatabaseUnavailable(_AWAY) from error
    chunks = export_chunks(connection, "books", format, with_delisted=with_delisted, after=after)
    return Export(held, slot, state, format, held.enter_context(closing(chunks)))


class Export:
    """A running export.

    Attributes:
        state: the state of the books that it exports.
    """

    def __init__(
        self, held: ExitStack, slot: ExportSlot, state: State, format: Format, chunks: Generator[bytes, None, None]
    ) -> None:
        self._held, self._slot, self.state, self.format, self._chunks = held, slot, state, format, chunks
        self._reading = threading.Lock()  # when a task times out, its thread may still be reading a chunk

    async def close(self) -> None:
        """Release snapshot and connection; repeated calls do nothing."""
        with anyio.CancelScope(shield=True):  # this may run during cancellation, because the client is gone
            await run_sync(self._give_back)

    def response(self, headers: Mapping[str, str]) -> StreamingResponse:
        """The response, which closes the export however it ends."""
        name = f'attachment; filename="books-{self.state.data_version}.{self.format}"'
        told = {**headers, "Content-Disposition": name}
        media_type = MEDIA_TYPES[self.format]
        return _Closing(self._slot, self._read(), self.close, headers=told, media_type=media_type)

    async def _read(self) -> AsyncGenerator[bytes, None]:
        while chunk := await run_sync(self._next):
            yield chunk

    def _next(self) -> bytes:
        with self._reading:
            return next(self._chunks, b"")

    def _give_back(self) -> None:
        with self._reading:
            self._held.close()


class _Closing(StreamingResponse):
    """Closes its generator, which Starlette leaves to the garbage collector if the client disconnects, and then the
    export. The generator cannot close it: if the client is gone before the first chunk, the generator never starts."""

    def __init__(
        self, slot: ExportSlot, body: AsyncGenerator[bytes, None], close: Callable[[], Awaitable[None]], **more: Any
    ) -> None:
        super().__init__(body, **more)
        self._slot, self._close = slot, close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._close()

    async def stream_response(self, send: Send) -> None:
        """Send the whole body.

        Raises:
            CutShort: it took too long, or has to make room.
        """
        slot, body, loop = self._slot, self.body_iterator, asyncio.get_running_loop()
        assert isinstance(body, AsyncGenerator)
        began_at, due = loop.time(), LEAST_BYTES
        try:
            async with aclosing(body), asyncio.timeout(LEAST_WITHIN_S) as patience:

                async def send_in_time(message: Message) -> None:
                    nonlocal due
                    await send(message)
                    slot.took(len(message.get("body", b"")))
                    if slot.taken >= due and not slot.is_to_leave:
                        due = slot.taken + LEAST_BYTES
                        patience.reschedule(min(began_at + LASTS_S, loop.time() + LEAST_WITHIN_S))

                def leave() -> None:
                    with suppress(RuntimeError):  # it is ending already
                        patience.reschedule(loop.time())

                slot.on_leave = leave
                await super().stream_response(send_in_time)
        except TimeoutError:
            why = "it was slow, and another waits" if slot.is_to_leave else "it was too slow"
            _tell(slot, why)
            raise CutShort from None
        except asyncio.CancelledError:
            _tell(slot, "its client went away")
            raise
        finally:
            slot.on_leave = lambda: None


def _tell(slot: ExportSlot, why: str) -> None:
    took_s = round(time.monotonic() - slot.began_at, 1)
    facts = {"user_id": slot.account, "bytes": slot.taken, "took_s": took_s, "why": why}
    log.info("An export ended before its end: %s.", why, extra={"facts": facts})
