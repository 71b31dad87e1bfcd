"""A connection's transport -> the same, except that the head of a response is sent with the first chunk of its body.

    protocol.connection_made(JoinedWrites(transport, loop, on_close))

uvicorn writes the two separately, and uvloop sends each write at once: two system calls for a response, and the first
one wakes the client before there is a body to read. If the body is not ready yet, the head is sent alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

_HEAD = b"HTTP/1.1 "


class JoinedWrites:
    def __init__(
        self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, on_close: Callable[[], None]
    ) -> None:
        """`on_close` is called each time that somebody closes the transport, which may still have bytes to send."""
        self._transport, self._loop, self._on_close = transport, loop, on_close
        self._head = b""

    def write(self, data: bytes) -> None:
        if self._head:
            head, self._head = self._head, b""
            self._transport.writelines([head, data])
        elif data.startswith(_HEAD):
            self._head = data
            self._loop.call_soon(self._flush)
        else:
            self._transport.write(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()
        self._on_close()

    def _flush(self) -> None:
        if self._head:
            head, self._head = self._head, b""
            self._transport.write(head)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
