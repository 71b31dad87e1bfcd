"""Bytes that are no HTTP -> 400 as a problem, with the headers of every other answer; all else as uvicorn does it.

    uvicorn.Config(app, http=HttpProtocol)

There is no request yet that the application could refuse, and uvicorn's own answer is plain text.
"""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from serving.headers import secured


class HttpProtocol(HttpToolsProtocol):
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
