"""Filters -> a mask of the books that pass, cached for later requests with the same filters.

    masks = Masks(make)                   make: filters -> (p,) bool
    masks.of(Filters(category="travel"))  -> Mask(may, digest)
    masks.at_hand(Filters())              -> Bits(packed, length, digest); None if it would have to be made
    masks.followed(make, places, make_some)  the cached masks, carried over to a state that differs at some places

With a million books, a mask takes a megabyte, and milliseconds to make; and a shop needs at least one for each of its
categories. So masks are cached as bits, which unpack to a mask in 40 microseconds; those used last are also cached as
they are.
"""

from __future__ import annotations

import contextlib
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
    may: (p,): whether the book at each place of the model may be in a list.
    digest: equal for two masks only if the masks are equal.
    """

    may: NDArray[np.bool_]
    digest: bytes

    @classmethod
    def of(cls, may: NDArray[np.bool_]) -> Mask:
        return cls(may, _digest(np.packbits(may)))


class Bits(NamedTuple):
    """A mask in an eighth of the memory.

    Attributes:
        packed: (p / 8,) in the format of numpy.packbits.
        length: p.
        digest: digest of the mask.
    """

    packed: NDArray[np.uint8]
    length: int
    digest: bytes

    @classmethod
    def of(cls, may: NDArray[np.bool_]) -> Bits:
        packed = np.packbits(may)
        return cls(packed, len(may), _digest(packed))

    def take(self, places: NDArray[np.integer]) -> NDArray[np.bool_]:
        """`mask().may[places]`, for a few places, without unpacking."""
        found: NDArray[np.bool_] = (self.packed[places >> 3] >> (7 - (places & 7)) & 1).astype(np.bool_)
        return found

    def mask(self) -> Mask:
        return Mask(np.unpackbits(self.packed, count=self.length).view(np.bool_), self.digest)

    def changed(self, places: NDArray[np.int64], may: NDArray[np.bool_]) -> Bits:
        """With `may` at these places; the same object if nothing changes, so that rankings found with it stay valid."""
        if np.array_equal(self.take(places), may):
            return self
        newer = self.mask().may
        newer[places] = may
        return Bits.of(newer)


class Masks(Generic[F]):
    """The most recently used masks; thread-safe."""

    def __init__(self, make: Callable[[F], NDArray[np.bool_]]) -> None:
        self._make = make
        self._bits: OrderedDict[F, Bits] = OrderedDict()
        self._latest: OrderedDict[F, Mask] = OrderedDict()

    def followed(
        self,
        make: Callable[[F], NDArray[np.bool_]],
        places: NDArray[np.int64],
        make_some: Callable[[F], NDArray[np.bool_]],
    ) -> Masks[F]:
        """The cached masks, carried over to a state that differs only at `places` (k,). `make` makes a whole mask of
        that state, `make_some` its values at these places, (k,) bool."""
        newer = Masks(make)
        for filters, bits in list(self._bits.items()):
            newer._bits[filters] = bits.changed(places, make_some(filters))
        return newer

    def of(self, filters: F) -> Mask:
        bits = self.at_hand(filters) or self._made(filters)
        mask = self._latest.get(filters)
        if mask is None:
            mask = bits.mask()
            _put(self._latest, filters, mask, _LATEST, _LATEST_BYTES // max(1, bits.length))
        return mask

    def at_hand(self, filters: F) -> Bits | None:
        """The cached bits, within a few microseconds; None if the mask would have to be made."""
        if (bits := self._bits.get(filters)) is not None:
            with contextlib.suppress(KeyError):  # evicted meanwhile
                self._bits.move_to_end(filters)
        return bits

    def _made(self, filters: F) -> Bits:
        bits = Bits.of(self._make(filters))
        _put(self._bits, filters, bits, PACKED, PACKED_BYTES // max(1, len(bits.packed)))
        return bits


def _digest(bits: NDArray[np.uint8]) -> bytes:
    return hashlib.blake2b(bits.tobytes(), digest_size=16).digest()


K = TypeVar("K")
V = TypeVar("V")


def _put(held: OrderedDict[K, V], key: K, value: V, most: int, fitting: int) -> None:
    """Keep `value` and evict the oldest. Another thread may do the same at the same time."""
    held[key] = value
    while len(held) > max(2, min(most, fitting)):
        try:
            held.popitem(last=False)
        except KeyError:
            return
