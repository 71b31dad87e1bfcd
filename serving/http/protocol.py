"""Bytes of a connection -> requests, as uvicorn does it, with five differences.

    uvicorn.Config(app, http=HttpProtocol, ws="none")

Bytes that are not HTTP get 400 as a problem, with the same headers as every other response: there is no request yet
that the application could refuse, and uvicorn's own response is plain text.

An offer to upgrade to another protocol (Java's client and `curl --http2` send it with each first request) is ignored,
and the response uses the current protocol (RFC 9110, 7.8): httptools takes whatever follows the headers for the other
protocol, and uvicorn would lose the body.

Requests have limits in bytes and in time, which httptools does not have: one header of 64 MB would block all other
requests of the worker for seconds, and requests that never end would stay open for ever. A URL or headers that are too
long -> 414 or 431; any other limit exceeded -> the connection is closed.

A client that does not read its response is disconnected, because the unread part stays in memory: megabytes of a long
list at once, and the end of a response that is short once nothing else is asked for.

The head of a response is sent with the first chunk of its body (joined_writes.py).
"""

from __future__ import annotations

import asyncio
from typing import Literal

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from serving.http import tracing
from serving.http.headers import secured
from serving.http.joined_writes import JoinedWrites
from serving.http.sizes import MAX_ADDRESS_BYTES, MAX_HEADER_BYTES, TOO_LONG

_ABOUT_UPGRADES = {b"upgrade", b"http2-settings"}
# The application checks the exact limits later (security.py, limits.py). MAX_REQUEST_BYTES is far above its limit of a
# body: a client may still be sending a body that was already refused, and reads the response only afterwards.
MAX_HEAD_BYTES = MAX_ADDRESS_BYTES + MAX_HEADER_BYTES
MAX_REQUEST_BYTES = 8 * 2**20
HEAD_WITHIN_S = 10.0
BODY_WITHIN_S = 30.0  # 64 KiB at most
# While more than 64 KiB of a response wait, or anything before the connection closes, a client must read this much in
# this time: 1 KiB/s, a tenth of an old phone's speed.
TAKEN_WITHIN_S, TAKEN_BYTES = 30.0, 30 * 1024


class HttpProtocol(HttpToolsProtocol):
    _part: Literal["", "head", "body"] = ""  # the part of a request that has begun and is incomplete
    _request_bytes = 0  # without the chunk in which the request began, 256 KiB at most
    _overdue: asyncio.TimerHandle | None = None
    _untaken: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(JoinedWrites(transport, self.loop, self._closing))  # type: ignore[arg-type]
        self._overdue = self.loop.call_later(HEAD_WITHIN_S, self.transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._come_to("")
        self._stop_waiting()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._wait_for_reader()

    def resume_writing(self) -> None:
        if not self.transport.is_closing():
            self._stop_waiting()
        super().resume_writing()

    def _closing(self) -> None:
        if self._untaken is None and self.transport.get_write_buffer_size():
            self._wait_for_reader()

    def _wait_for_reader(self) -> None:
        waiting = self.transport.get_write_buffer_size()
        self._untaken = self.loop.call_later(TAKEN_WITHIN_S, self._end_unless_taken, waiting)

    def _end_unless_taken(self, waiting: int) -> None:
        if waiting - self.transport.get_write_buffer_size() < TAKEN_BYTES:
            self.transport.abort()  # close() would wait until everything is read
        else:
            self._wait_for_reader()

    def _stop_waiting(self) -> None:
        if self._untaken is not None:
            self._untaken.cancel()
            self._untaken = None

    def data_received(self, data: bytes) -> None:
        """Feed the parser, and enforce the limits on an incomplete request."""
        self._request_bytes += len(data)
        self._feed(data)
        if not self._part or self.transport.is_closing():
            return
        if self._part == "head" and self._request_bytes > MAX_HEAD_BYTES:
            status = 414 if len(self.url) > MAX_ADDRESS_BYTES else 431
            self._refuse(status, TOO_LONG[status])
        elif self._request_bytes > MAX_REQUEST_BYTES:
            self.transport.close()
        elif self._overdue is None:
            within_s = HEAD_WITHIN_S if self._part == "head" else BODY_WITHIN_S
            self._overdue = self.loop.call_later(within_s, self.transport.close)

    def _come_to(self, part: Literal["", "head", "body"]) -> None:
        self._part = part
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None

    def _feed(self, data: bytes) -> None:
        """Feed the parser; if it stops for another protocol, continue as if that had not been offered."""
        while data:  # each of several pipelined requests may offer one
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as stopped:
                (end_of_headers,) = stopped.args
                if self.parser.get_method() == b"CONNECT":  # this is not a proxy
                    self.send_400_response("CONNECT")
                    return
                data = self._without_upgrade() + data[end_of_headers:]
            except httptools.HttpParserError:
                if len(self.url) > MAX_ADDRESS_BYTES:  # httptools takes at most 64 KiB
                    self._refuse(414, TOO_LONG[414])
                else:
                    self.send_400_response("Invalid HTTP request received.")
                return

    def _without_upgrade(self) -> bytes:
        """The request head just read, without the headers that offer another protocol, for a new parser."""
        first = b"%b %b HTTP/%b\r\n" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        options = [
            option.strip() for name, value in self.headers if name == b"connection" for option in value.split(b",")
        ]
        kept = [pair for pair in self.headers if pair[0] not in {b"connection", *_ABOUT_UPGRADES}]
        kept += [(b"connection", option) for option in options if option.lower() not in _ABOUT_UPGRADES]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        return b"".join([first, *(b"%b: %b\r\n" % pair for pair in kept), b"\r\n"])

    # The keep-alive timeout is cancelled here, not for each chunk as in uvicorn: a blank line does not begin a request,
    # and without the timeout its connection would stay open for ever.
    def on_message_begin(self) -> None:
        self._unset_keepalive_if_required()
        self._come_to("head")
        self._request_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._unset_keepalive_if_required()
        if not self.parser.should_upgrade():
            self._come_to("body")
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if not self.parser.should_upgrade():
            super().on_body(body)

    def on_message_complete(self) -> None:
        if not self.parser.should_upgrade():
            self._come_to("")
            super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(
            400,
            "This is not a valid HTTP request. Check the request line (the URL must be percent-encoded), the headers, "
            "and the length of the body.",
        )

    def _refuse(self, status: int, detail: str) -> None:
        """Respond and close: it is not known where the next request would begin."""
        from serving.http import problems  # imports FastAPI, which the supervisor of several workers does not need

        request_id = tracing.trace_of([]).request_id
        self.logger.warning("A request that cannot be read -> %d (request id %s)", status, request_id)
        body = problems.unasked(status, detail)
        headers = secured(
            [
                *self.server_state.default_headers,
                (b"content-type", problems.MEDIA_TYPE.encode()),
                (b"content-length", str(len(body)).encode()),
                (b"cache-control", b"no-store"),
                (b"connection", b"close"),
                (b"x-request-id", request_id.encode()),
            ],
            "",
        )
        lines = (b"%b: %b\r\n" % pair for pair in headers)
        self.transport.write(b"".join([STATUS_LINE[status], *lines, b"\r\n", body]))
        self.transport.close()
