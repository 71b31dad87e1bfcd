"""32 hex digits -> a JPEG of 64 x 96 pixels: a cloth-bound cover in colours of its own, with a spine and a label.

A JPEG whose 8 x 8 blocks are each of one colour needs no cosine transform: only the mean of each block is stored.
"""

from __future__ import annotations

import struct

COLUMNS, ROWS = 8, 12
_EIGHTS = bytes([8] * 64)  # quantisation by 8 makes the stored number of a flat block its mean value minus 128
_HEAD = (
    b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"
    + b"\xff\xdb\x00\x43\x00" + _EIGHTS
    + b"\xff\xc0" + struct.pack(">HBHHB", 17, 8, ROWS * 8, COLUMNS * 8, 3) + b"\x01\x11\x00\x02\x11\x00\x03\x11\x00"
    + b"\xff\xc4" + struct.pack(">HB", 19 + 9, 0x00) + bytes([0, 0, 0, 9] + [0] * 12) + bytes(range(9))
    + b"\xff\xc4" + struct.pack(">HB", 19 + 1, 0x10) + bytes([1] + [0] * 15) + b"\x00"
    + b"\xff\xda\x00\x0c\x03\x01\x00\x02\x00\x03\x00\x00\x3f\x00"
)  # fmt: skip
Colour = tuple[int, int, int]


def cover(name: str) -> bytes:
    """The cover for an image called `name` (hex digits): always the same bytes for the same name."""
    seed = bytes.fromhex(name)
    cloth = (seed[0] % 90 - 70, seed[1] % 100 - 50, seed[2] % 100 - 50)
    label = (70 + seed[3] % 40, seed[4] % 20 - 10, seed[5] % 20 - 10)
    spine = (cloth[0] - 30, cloth[1], cloth[2])
    top, bottom = 1 + seed[6] % 3, 5 + seed[7] % 3
    band = 9 + seed[8] % 2
    blocks = []
    for row in range(ROWS):
        for column in range(COLUMNS):
            is_label = (top <= row < bottom and 2 <= column <= 6) or (row == band and column > 0)
            blocks.append(spine if column == 0 else label if is_label else cloth)
    return _HEAD + _scan(blocks) + b"\xff\xd9"


def _scan(blocks: list[Colour]) -> bytes:
    """Each mean as the difference to the block before: 4 bits for its length, its bits, then one 0 bit: block ends."""
    bits, before = "", (0, 0, 0)
    for block in blocks:
        for value, last in zip(block, before, strict=True):
            step = value - last
            size = abs(step).bit_length()
            bits += f"{size:04b}"
            if size:
                bits += f"{step if step > 0 else step + (1 << size) - 1:0{size}b}"
            bits += "0"
        before = block
    bits += "1" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\x00")
