"""Bytes -> text as browsers read them; other people's vectors are in ../shared/suites/html5lib_encoding."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import webencodings

from bookclub_platform.sources._charset import decode, encoding_of

SUITE = Path(__file__).parents[2] / "shared" / "suites" / "html5lib_encoding"


def cases() -> Iterator[tuple[bytes, str]]:
    for file in sorted(SUITE.glob("*.dat")):
        for case in re.split(rb"(?:^|\n)#data\n", file.read_bytes())[1:]:
            data, _, label = case.partition(b"\n#encoding\n")
            known = webencodings.lookup(label.split()[0].decode())
            assert known is not None
            yield data, known.name


@pytest.mark.skipif(not SUITE.exists(), reason="the vectors are not at hand")
def test_at_least_75_of_the_82_sniffing_vectors_come_out_right() -> None:
    found = [encoding_of(data, None) == expected for data, expected in cases()]
    assert len(found) == 82
    assert sum(found) >= 75  # the other 7 declare it behind the 1,024 bytes that are searched


@pytest.mark.parametrize(
    ("body", "content_type", "text"),
    [
        ("£".encode(), None, "£"),
        ("£".encode(), "text/html", "£"),
        (b"\xa3", "text/html", "£"),
        (b"\x93quoted\x94", None, "“quoted”"),
        ("£".encode(), "text/html; charset=UTF-8", "£"),
        ("Č".encode("iso-8859-2"), "text/html;charset=iso-8859-2", "Č"),
        (b'<meta charset="utf-8">' + "Č".encode("iso-8859-2"), 'text/html; Charset="ISO-8859-2"', None),
        (b'<meta charset="iso-8859-2">' + "Č".encode("iso-8859-2"), "text/html", None),
        (b'<meta http-equiv="content-type" content="text/html; charset=UTF-8" />' + "Č".encode(), "text/html", None),
        (b"\xef\xbb\xbf" + "Č".encode(), "text/html; charset=iso-8859-2", "Č"),
        ("\ufeffČ".encode("utf-16-le"), "text/html; charset=iso-8859-2", "Č"),
        ("本".encode("shift_jis"), "text/html; charset=Shift_JIS", "本"),
        (b"\x80", "text/html; charset=latin1", "€"),
        (b"a\xffb", "text/html; charset=utf-8", "a\ufffdb"),
    ],
)
def test_text_comes_out_as_a_browser_shows_it(body: bytes, content_type: str | None, text: str | None) -> None:
    found = decode(body, content_type)
    assert found == text or (text is None and found.endswith(">Č"))


@pytest.mark.parametrize("content_type", ["", ";", "text/html; charset=", "text/html; charset=\0", "charset=no-such"])
def test_a_content_type_that_says_nothing_is_none(content_type: str) -> None:
    assert decode(b"caf\xc3\xa9", content_type) == "café"


def test_every_byte_sequence_is_some_text() -> None:
    draw = random.Random(5)
    parts = [b"<meta ", b"charset=", b"utf-16", b"utf-7", b"iso-2022-jp", b"x-user-defined", b"hz-gb-2312", b'"', b">"]
    for _ in range(2000):
        body = b"".join(draw.choice([*parts, draw.randbytes(3)]) for _ in range(draw.randrange(12)))
        assert isinstance(decode(body, None), str)
