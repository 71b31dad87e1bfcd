"""Bytes of a connection -> requests, as uvicorn makes them but for five things.

    uvicorn.Config(app, http=HttpProtocol, ws="none")

Bytes that are no HTTP get a 400 as a problem, with the headers of every other answer: there is no request yet that the
application could refuse, and uvicorn's own answer is plain text. And who offers to go on in another protocol (Java's
client and `curl --http2`, with each first request) is answered in this one, as RFC 9110, 7.8 has it: httptools takes
what follows the headers for that protocol, and uvicorn would lose the body.

And what is sent has bounds in bytes and in time, where httptools has none: one header of 64 MB would hold up everybody
else of the worker for seconds, and requests that never end would stay open for ever. An address or headers that are too
long -> 414 or 431; all else that is over its bounds -> the end of the connection.

Who does not read an answer is not waited for either: what is not taken lies in memory, megabytes of a long list.

And the head of an answer leaves with the first of its body (joined_writes.py).
"""

from __future__ import annotations

import asyncio
from typing import Literal

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from serving.http.headers import secured
from serving.http.joined_writes import JoinedWrites
from serving.http.sizes import MAX_ADDRESS_BYTES, MAX_HEADER_BYTES, TOO_LONG

_ABOUT_UPGRADES = {b"upgrade", b"http2-settings"}
# The application looks closely, once all is there (security.py, limits.py). This is far past what it takes: who sends a
# body that it refuses may be still sending when it has answered, and reads that afterwards.
MAX_HEAD_BYTES = MAX_ADDRESS_BYTES + MAX_HEADER_BYTES
MAX_REQUEST_BYTES = 8 * 2**20
HEAD_WITHIN_S = 10.0
BODY_WITHIN_S = 30.0  # 64 KiB at the most
# So much of an answer is to be read in that time while more of it waits: 1 KiB/s, a tenth of what old phones manage.
TAKEN_WITHIN_S, TAKEN_BYTES = 30.0, 30 * 1024


class HttpProtocol(HttpToolsProtocol):
    _part: Literal["", "head", "body"] = ""  # what of a request has begun and is not all there
    _request_bytes = 0  # but for the piece that the request began in, of 256 KiB at most
    _overdue: asyncio.TimerHandle | None = None
    _untaken: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(JoinedWrites(transport, self.loop))  # type: ignore[arg-type]
        self._overdue = self.loop.call_later(HEAD_WITHIN_S, self.transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._come_to("")
        self._stop_waiting()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._wait_for_reader()

    def resume_writing(self) -> None:
        self._stop_waiting()
        super().resume_writing()

    def _wait_for_reader(self) -> None:
        waiting = self.transport.get_write_buffer_size()
        self._untaken = self.loop.call_later(TAKEN_WITHIN_S, self._end_unless_taken, waiting)

    def _end_unless_taken(self, waiting: int) -> None:
        if waiting - self.transport.get_write_buffer_size() < TAKEN_BYTES:
            self.transport.abort()  # to close would be to wait until all is read
        else:
            self._wait_for_reader()

    def _stop_waiting(self) -> None:
        if self._untaken is not None:
            self._untaken.cancel()
            self._untaken = None

    def data_received(self, data: bytes) -> None:
        """Feed the parser, and see to it that what has begun ends."""
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
        """Where the parser stops for another protocol, go on as if nobody had offered that."""
        while data:  # one of several requests that came at once may offer it, and the next one too
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as stopped:
                (end_of_headers,) = stopped.args
                if self.parser.get_method() == b"CONNECT":  # this is no proxy
                    self.send_400_response("CONNECT")
                    return
                data = self._without_upgrade() + data[end_of_headers:]
            except httptools.HttpParserError:
                message = "Invalid HTTP request received."
                self.logger.warning(message)
                self.send_400_response(message)
                return

    def _without_upgrade(self) -> bytes:
        """The headers just read but for those that offer another protocol, for a parser that begins anew."""
        first = b"%b %b HTTP/%b\r\n" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        options = [
            option.strip() for name, value in self.headers if name == b"connection" for option in value.split(b",")
        ]
        kept = [pair for pair in self.headers if pair[0] not in {b"connection", *_ABOUT_UPGRADES}]
        kept += [(b"connection", option) for option in options if option.lower() not in _ABOUT_UPGRADES]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        return b"".join([first, *(b"%b: %b\r\n" % pair for pair in kept), b"\r\n"])

    # Not for each piece that comes, as uvicorn has it: of a blank line no request begins, and it would wait for ever.
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
            400, "This is not a valid HTTP request. Check the request line, the headers and the length of the body."
        )

    def _refuse(self, status: int, detail: str) -> None:
        """Answer and close: where the next request would begin is not known."""
        from serving.http import problems  # FastAPI, which the supervisor of several workers does without

        body = problems.unasked(status, detail)
        headers = secured(
            [
                *self.server_state.default_headers,
                (b"content-type", problems.MEDIA_TYPE.encode()),
                (b"content-length", str(len(body)).encode()),
                (b"cache-control", b"no-store"),
                (b"connection", b"close"),
            ],
            "",
        )
        lines = (b"%b: %b\r\n" % pair for pair in headers)
        self.transport.write(b"".join([STATUS_LINE[status], *lines, b"\r\n", body]))
        self.transport.close()
