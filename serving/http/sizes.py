"""The limits on the size of a request, and the details of their problems. Only constants: protocol.py reads them in
processes that do not import Starlette."""

from __future__ import annotations

MAX_ADDRESS_BYTES = 8 * 1024
MAX_BODY_BYTES = 64 * 1024
MAX_HEADER_BYTES = 32 * 1024
TOO_LONG = {
    413: f"The body may have at most {MAX_BODY_BYTES} bytes.",
    414: f"The URL may have at most {MAX_ADDRESS_BYTES} bytes.",
    431: f"The headers may have at most {MAX_HEADER_BYTES} bytes.",
}
