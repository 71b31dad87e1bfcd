"""All books of one snapshot -> an answer that is sent while it is read, in flat memory.

    export = await exports.open("csv", with_delisted=False, after=0); export.state; return export.response(headers)

Each holds a connection and its snapshot for as long as the client takes, so there are a few at a time, and none lasts
for ever; one that breaks off is gone on with by `after`.
"""

from __future__ import annotations

import asyncio
import importlib.util
import threading
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import ExitStack, aclosing, closing

import anyio
import sqlalchemy as sa
from anyio.to_thread import run_sync
from starlette.responses import StreamingResponse
from starlette.types import Send

from bookclub_platform.core.errors import DatabaseUnavailable
from bookclub_platform.core.tables import select_state
from bookclub_platform.export import Format, export_chunks, snapshot
from serving import problems
from serving.catalogue import State, state_of

MEDIA_TYPES: dict[Format, str] = {
    "ndjson": "application/x-ndjson",
    "csv": "text/csv; charset=utf-8",
    "parquet": "application/vnd.apache.parquet",
}
AT_ONCE = 3  # of each worker
LASTS_S = 900.0


class Exports:
    """Exports of one database."""

    def __init__(self, database_url: str) -> None:
        url = sa.make_url(database_url.replace("postgres://", "postgresql://", 1)).set(drivername="postgresql+psycopg")
        self._url = url.update_query_dict({"connect_timeout": "2"}).render_as_string(hide_password=False)
        self._free = threading.BoundedSemaphore(AT_ONCE)

    async def open(self, format: Format, with_delisted: bool, after: int) -> Export:
        """An export whose snapshot is taken; close it, or answer with its response.

        Raises:
            Problem: 501 if the server lacks what the format needs, 503 if too many are under way.
            DatabaseUnavailable: Postgres does not answer.
        """
        if format == "parquet" and importlib.util.find_spec("pyarrow") is None:
            raise problems.Problem(
                501, "format-absent", "This server cannot write parquet (no pyarrow). Ask for ndjson or csv."
            )
        if not self._free.acquire(blocking=False):
            raise problems.Problem(
                503, "busy", "Too many exports are under way. Try again.", headers={"Retry-After": "10"}
            )
        held = ExitStack()
        held.callback(self._free.release)
        try:
            return await run_sync(_begin, held, self._url, format, with_delisted, after)
        except BaseException:
            held.close()
            raise


def _begin(held: ExitStack, url: str, format: Format, with_delisted: bool, after: int) -> Export:
    try:
        connection = held.enter_context(snapshot(url))
        state = state_of(connection.execute(select_state()).one_or_none())
    except sa.exc.OperationalError as error:
        raise DatabaseUnavailable("The books cannot be read: the database does not answer.") from error
    chunks = export_chunks(connection, "books", format, with_delisted=with_delisted, after=after)
    return Export(held, state, format, held.enter_context(closing(chunks)))


class Export:
    """One export under way.

    Attributes:
        state: which state of the books it is of.
    """

    def __init__(self, held: ExitStack, state: State, format: Format, chunks: Generator[bytes, None, None]) -> None:
        self._held, self.state, self.format, self._chunks = held, state, format, chunks

    async def close(self) -> None:
        """Give back snapshot and connection; once is enough."""
        with anyio.CancelScope(shield=True):  # the client may be gone, and this be part of ending for that
            await run_sync(self._held.close)

    def response(self, headers: Mapping[str, str]) -> StreamingResponse:
        """The answer, which closes the export however it ends."""
        name = f'attachment; filename="books-{self.state.data_version}.{self.format}"'
        return _Closing(
            self._read(), headers={**headers, "Content-Disposition": name}, media_type=MEDIA_TYPES[self.format]
        )

    async def _read(self) -> AsyncGenerator[bytes, None]:
        try:
            while chunk := await run_sync(next, self._chunks, b""):
                yield chunk
        finally:
            await self.close()


class _Closing(StreamingResponse):
    """Starlette leaves the generator of a client that is gone to the garbage collector: the snapshot would stay."""

    async def stream_response(self, send: Send) -> None:
        body = self.body_iterator
        assert isinstance(body, AsyncGenerator)
        async with aclosing(body), asyncio.timeout(LASTS_S):
            await super().stream_response(send)
