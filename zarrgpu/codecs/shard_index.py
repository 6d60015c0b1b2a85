"""The index of a shard: where its inner chunks lie.

Spec: Zarr v3 codec ``sharding_indexed``, "Binary shard format": one ``(offset, nbytes)`` pair of
uint64 per inner chunk in C order, both ``2**64 - 1`` where the chunk is not stored.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from zarrgpu.codecs.base import CodecChain, CodecError
from zarrgpu.codecs.run import decode_chunk, encoded_limit_nbytes
from zarrgpu.model import MISSING_NBYTES, ByteArray

ENTRY_NBYTES = 16
_EMPTY = np.uint64(0xFFFFFFFFFFFFFFFF)
_MAX_OFFSET = np.uint64(1 << 47)

Int64s = NDArray[np.int64]


def decode_shard_index(
    chain: CodecChain,
    encoded: ByteArray,
    *,
    endian: Literal["little", "big"],
    chunk_nbytes: int,
) -> tuple[Int64s, Int64s]:
    """Decode and check an index.

    Parameters
    ----------
    chain : CodecChain
        Of the index; its ``decoded_nbytes`` says how many chunks there are.
    encoded : uint8 array
    endian : "little" or "big"
    chunk_nbytes : int
        Size of an inner chunk: the largest that it has on its way, as codecs may widen it.

    Returns
    -------
    offsets, nbytes : int64 arrays, shape (chunks per shard,)
        Within the shard; nbytes is MISSING_NBYTES where the chunk is not stored.

    Raises
    ------
    CodecError
        For a checksum that is wrong, or an entry where no chunk can lie.
    """
    decoded = decode_chunk(chain, encoded, np.empty(chain.decoded_nbytes, np.uint8))
    order = "<" if endian == "little" else ">"
    table = np.frombuffer(decoded.tobytes(), f"{order}u8").reshape(-1, 2).astype(np.uint64)
    empty = (table == _EMPTY).all(axis=1)
    limit = np.uint64(encoded_limit_nbytes(chunk_nbytes))
    bad = ~empty & ((table[:, 0] >= _MAX_OFFSET) | (table[:, 1] > limit) | (table[:, 1] == 0))
    if bad.any():
        at = int(np.flatnonzero(bad)[0])
        offset, nbytes = (int(v) for v in table[at])
        msg = (
            f"entry {at} is offset {offset}, nbytes {nbytes}; a chunk of {chunk_nbytes} bytes "
            "cannot lie there"
        )
        raise CodecError(msg)
    table[empty] = 0
    signed = table.astype(np.int64)
    signed[empty, 1] = MISSING_NBYTES
    return signed[:, 0], signed[:, 1]
