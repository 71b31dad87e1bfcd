"""How long a request may be, and what is said to who sends more. Constants alone: protocol.py reads them in processes
that do without Starlette."""

from __future__ import annotations

MAX_ADDRESS_BYTES = 8 * 1024
MAX_BODY_BYTES = 64 * 1024
MAX_HEADER_BYTES = 32 * 1024
TOO_LONG = {
    413: f"The body may have {MAX_BODY_BYTES} bytes at most.",
    414: f"The address may have {MAX_ADDRESS_BYTES} bytes at most.",
    431: f"The headers may have {MAX_HEADER_BYTES} bytes at most.",
}
