"""A slide's properties with ``openslide.quickhash-1``, which is computed when it is asked for.

OpenSlide reads the smallest level when it opens a slide. Here opening reads no image data, so the
hash is read with the first look at it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np

from zarrgpu.errors import StoreError
from zarrgpu.model import ByteRange
from zarrgpu.plan.coalesce import coalesce_ranges
from zarrgpu.slide_model import Quickhash
from zarrgpu.stores.base import Store

QUICKHASH: Final = "openslide.quickhash-1"


class SlideProperties(Mapping[str, str]):
    """Properties under OpenSlide's keys; the value of ``openslide.quickhash-1`` is read late.

    Parameters
    ----------
    properties : mapping of str to str
        All others.
    quickhash : Quickhash or None
        None leaves the property out.
    store : Store
        Where the slide is.
    """

    def __init__(
        self, properties: Mapping[str, str], quickhash: Quickhash | None, store: Store
    ) -> None:
        self._properties = dict(properties)
        self._quickhash, self._store = quickhash, store
        self._keys = {**self._properties, **({} if quickhash is None else {QUICKHASH: "..."})}

    def __repr__(self) -> str:
        """Show all of them; the hash, if it was not read yet, as three dots."""
        return f"<SlideProperties { ({**self._keys, **self._properties})!r}>"

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __contains__(self, name: object) -> bool:
        return name in self._keys

    def __getitem__(self, name: str) -> str:
        if name == QUICKHASH and name not in self._properties and self._quickhash is not None:
            self._properties[name] = read_quickhash(self._quickhash, self._store)
        return self._properties[name]


def read_quickhash(quickhash: Quickhash, store: Store) -> str:
    """Read what is hashed, in few requests; hexadecimal digits.

    Raises
    ------
    StoreError
        If the object is gone or shorter than its tables say.
    """
    digest = hashlib.sha256()
    for part in _stored_parts(quickhash, store):
        digest.update(part)
    digest.update(quickhash.text)
    return digest.hexdigest()


def _stored_parts(quickhash: Quickhash, store: Store) -> list[bytes]:
    """Bytes of each range, in the order in which they are hashed."""
    rows = np.flatnonzero(quickhash.nbytes > 0)
    rows = rows[np.argsort(quickhash.offset[rows], kind="stable")]
    offset, nbytes = quickhash.offset[rows], quickhash.nbytes[rows]
    read = coalesce_ranges(
        np.zeros_like(offset), offset, nbytes,
        max_gap_bytes=store.max_gap_bytes, max_coalesced_bytes=store.max_coalesced_bytes,
    )  # fmt: skip
    parts = [b""] * len(quickhash.nbytes)
    for number in range(int(read[-1]) + 1 if len(read) else 0):
        own = read == number
        begin, end = int(offset[own][0]), int((offset + nbytes)[own].max())
        data = store.get_range(quickhash.key, ByteRange(begin, end - begin))
        if data is None:
            msg = f"{store.url!r} key {quickhash.key!r}: is gone, so that it cannot be hashed"
            raise StoreError(msg)
        for row, at, size in zip(rows[own], offset[own], nbytes[own], strict=True):
            parts[row] = data[at - begin : at - begin + size].tobytes()
    return parts
