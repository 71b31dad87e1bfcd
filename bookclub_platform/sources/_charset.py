"""bytes + Content-Type -> text, as browsers decode it: byte order mark, Content-Type, <meta> in 1,024 bytes, a guess.

    decode(b"<meta charset=latin1>\xa351.77", "text/html")     # "<meta charset=latin1>£51.77"

The order is that of the HTML standard (13.2.3.2). The guess, if nothing is declared: UTF-8 if the bytes are valid UTF-8
and not just ASCII, else windows-1252, which has a character for every byte. So decoding never fails.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import webencodings

# Not a public module, but it has the standard's sniffing: hence the version bound in setup.py.
from html5lib._inputstream import HTMLBinaryInputStream

_PRESCAN_BYTES = 1024
_CHARSET = re.compile(r"""charset\s*=\s*["']?([^\s"';]+)""", re.IGNORECASE)


def decode(body: bytes, content_type: str | None) -> str:
    """The text of a page; bytes that are invalid in its encoding become U+FFFD."""
    text, _ = webencodings.decode(body, encoding_of(body, content_type), errors="replace")
    return text


def encoding_of(body: bytes, content_type: str | None) -> str:
    """The standard's name for the encoding, in lower case: `latin1` and `ascii` are `windows-1252`."""
    declared = _CHARSET.search(content_type or "")
    stream = HTMLBinaryInputStream(
        body[:_PRESCAN_BYTES],
        transport_encoding=declared[1] if declared else None,
        default_encoding=_guess(body),
        useChardet=False,
    )
    return str(stream.charEncoding[0].name)


def header(headers: Iterable[tuple[str, str]], name: str) -> str | None:
    """The value of the first header called `name`, which is given in lower case."""
    return next((value for key, value in headers if key.lower() == name), None)


def _guess(body: bytes) -> str:
    if body.isascii():
        return "windows-1252"
    try:
        body.decode("utf-8")
    except UnicodeDecodeError:
        return "windows-1252"
    return "utf-8"
