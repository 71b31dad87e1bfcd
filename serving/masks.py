"""What is asked of the books -> a mask of them, kept for the next who asks the same.

    masks = Masks(make)                   make: filters -> (p,) bool
    masks.of(Filters(category="travel"))  -> Mask(may, digest)

Of a million books a mask is a megabyte and takes milliseconds to make, and a shop has as many as it has categories, and
more: those used last are kept as they are, others as bits, which are a mask again in 40 microseconds.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

PACKED, PACKED_BYTES = 200, 16 * 2**20
_LATEST, _LATEST_BYTES = 20, 4 * 2**20

F = TypeVar("F", bound=Hashable)


class Mask(NamedTuple):
    """Attributes:
    may: (p,): whether the book at each place of the model may stand in a list.
    digest: the same for two masks only if they are the same.
    """

    may: NDArray[np.bool_]
    digest: bytes

    @classmethod
    def of(cls, may: NDArray[np.bool_]) -> Mask:
        return cls(may, _digest(np.packbits(may)))


class _Packed(NamedTuple):
    bits: NDArray[np.uint8]
    length: int
    digest: bytes

    def mask(self) -> Mask:
        return Mask(np.unpackbits(self.bits, count=self.length).view(np.bool_), self.digest)


class Masks(Generic[F]):
    """Those asked for last; for several threads."""

    def __init__(self, make: Callable[[F], NDArray[np.bool_]]) -> None:
        self._make = make
        self._packed: OrderedDict[F, _Packed] = OrderedDict()
        self._latest: OrderedDict[F, Mask] = OrderedDict()

    def of(self, filters: F) -> Mask:
        mask = self._latest.get(filters)
        if mask is None:
            packed = self._packed.get(filters) or self._pack(filters)
            mask = packed.mask()
            _put(self._latest, filters, mask, _LATEST, _LATEST_BYTES // max(1, len(mask.may)))
        return mask

    def _pack(self, filters: F) -> _Packed:
        may = self._make(filters)
        bits = np.packbits(may)
        packed = _Packed(bits, len(may), _digest(bits))
        _put(self._packed, filters, packed, PACKED, PACKED_BYTES // max(1, len(bits)))
        return packed


def _digest(bits: NDArray[np.uint8]) -> bytes:
    return hashlib.blake2b(bits.tobytes(), digest_size=16).digest()


K = TypeVar("K")
V = TypeVar("V")


def _put(held: OrderedDict[K, V], key: K, value: V, most: int, fitting: int) -> None:
    """Keep `value`; the oldest goes. Another thread may do the same at the same time."""
    held[key] = value
    while len(held) > max(2, min(most, fitting)):
        try:
            held.popitem(last=False)
        except KeyError:
            return
