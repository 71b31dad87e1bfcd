"""Bytes of a connection -> requests, as uvicorn makes them but for two things.

    uvicorn.Config(app, http=HttpProtocol, ws="none")

Bytes that are no HTTP get a 400 as a problem, with the headers of every other answer: there is no request yet that the
application could refuse, and uvicorn's own answer is plain text. And who offers to go on in another protocol (Java's
client and `curl --http2`, with each first request) is answered in this one, as RFC 9110, 7.8 has it: httptools takes
what follows the headers for that protocol, and uvicorn would lose the body.
"""

from __future__ import annotations

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from serving.headers import secured

_ABOUT_UPGRADES = {b"upgrade", b"http2-settings"}


class HttpProtocol(HttpToolsProtocol):
    def data_received(self, data: bytes) -> None:
        """Feed the parser; where it stops for another protocol, go on as if nobody had offered that."""
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as stopped:
            (end_of_headers,) = stopped.args
            if self.parser.get_method() == b"CONNECT":  # this is no proxy
                self.send_400_response("CONNECT")
            else:
                self.data_received(self._without_upgrade() + data[end_of_headers:])
        except httptools.HttpParserError:
            message = "Invalid HTTP request received."
            self.logger.warning(message)
            self.send_400_response(message)

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

    def on_headers_complete(self) -> None:
        if not self.parser.should_upgrade():
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if not self.parser.should_upgrade():
            super().on_body(body)

    def on_message_complete(self) -> None:
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer 400 and close: where the next request would begin is not known."""
        from serving import problems  # FastAPI, which the supervisor of several workers does without

        detail = "This is no request that HTTP knows. See how it begins, its headers, and how long its body is."
        body = problems.unasked(400, detail)
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
        self.transport.write(b"".join([STATUS_LINE[400], *lines, b"\r\n", body]))
        self.transport.close()
