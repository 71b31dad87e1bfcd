"""Bytes from a shop -> Picture: a complete image of a common format and size, with a thumbnail. Needs only Pillow.

python -c "import sys; from pathlib import Path; from bookclub_platform.sources._images import checked
print(checked(Path(sys.argv[1]).read_bytes(), 50_000_000).width)" cover.jpg
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from io import BytesIO

from PIL import Image, ImageOps, UnidentifiedImageError

THUMBNAIL_HEIGHT = 200  # pixels; a smaller image is not enlarged
_LONGEST_STRIP = 8  # the maximum ratio of a thumbnail's width to the height limit
_SUFFIXES = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif"}
# What Pillow's readers raise on damaged bytes, besides its own errors (found by flipping bytes, see the tests).
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, struct.error, zlib.error)


class NoPicture(Exception):
    """The bytes are not an image that we keep; `str()` says why."""


@dataclass(frozen=True, slots=True)
class Picture:
    """`suffix` is that of the format (jpg, png, webp, gif); `width` and `height` are in pixels; `thumbnail` is WebP."""

    suffix: str
    width: int
    height: int
    thumbnail: bytes


def checked(body: bytes, max_pixels: int) -> Picture:
    """Read the image in `body` to its end; the first frame of an animation. Raises NoPicture."""
    try:
        with Image.open(BytesIO(body), formats=list(_SUFFIXES)) as image:
            width, height = image.size
            if width * height > max_pixels:  # known from the header: nothing is decoded yet
                raise NoPicture(f"has {width} x {height} pixels; {max_pixels} are the limit")
            image.load()
            return Picture(_SUFFIXES[image.format or ""], width, height, _thumbnail(image))
    except Image.DecompressionBombError as error:
        raise NoPicture(f"is a decompression bomb: {error}") from error
    except UnidentifiedImageError as error:
        raise NoPicture(f"is no JPEG, PNG, WebP or GIF: it begins with {body[:16]!r}") from error
    except _DAMAGED as error:
        raise NoPicture(f"is damaged: {error}") from error


def _thumbnail(image: Image.Image) -> bytes:
    upright = ImageOps.exif_transpose(image)
    small = upright.convert("RGBA" if upright.has_transparency_data else "RGB")
    small.thumbnail((_LONGEST_STRIP * THUMBNAIL_HEIGHT, THUMBNAIL_HEIGHT))
    with BytesIO() as file:
        small.save(file, "WEBP", quality=80)
        return file.getvalue()
