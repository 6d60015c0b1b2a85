"""What the blocks of zstd frames say of themselves, looked at in a whole batch of frames at once.

Spec: RFC 8878, 3.1.1.2 and 3.1.1.3. A compressed block has a literals section, whose header gives
its sizes, then a sequences section: a count, how its three tables are coded, and a bit stream that
is read backwards from a last byte that is not 0. All of that must add up, and a block may only use
tables of a block before it where there is one. Entropy tables and bit streams are not decoded.

Encoders keep to all of this; a frame that does not is no frame, or an odd one, and is the host's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zarrgpu.model import ByteArray

Int64s = NDArray[np.int64]
Bools = NDArray[np.bool_]

RAW, RLE, COMPRESSED = 0, 1, 2
"""Kinds of blocks."""

BLOCK_MAX = 128 << 10
_LITERALS_RAW, _LITERALS_RLE, _LITERALS_COMPRESSED, _LITERALS_TREELESS = 0, 1, 2, 3
_HEADER_MAX = 6  # of a literals section, with the first byte of its tree
_MIN_MATCH = 3
_JUMP_TABLE_NBYTES = 6
_NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True, eq=False)
class Blocks:
    """Blocks of frames, in any order (B rows).

    Attributes
    ----------
    frame : int64 (B,)
    number : int64 (B,)
        Place in the frame.
    at, nbytes : int64 (B,)
        The block's bytes after its header, in the payload; of an RLE block `nbytes` is 1.
    kind : int64 (B,)
    decoded : int64 (B,)
        Of raw and RLE blocks.
    """

    frame: Int64s
    number: Int64s
    at: Int64s
    nbytes: Int64s
    kind: Int64s
    decoded: Int64s


def frames_add_up(
    payload: ByteArray, blocks: Blocks, most: Int64s, decoded_nbytes: Int64s
) -> Bools:
    """Which of n frames have blocks that can give their decoded size, and nothing impossible.

    Parameters
    ----------
    payload : uint8 array
    blocks : Blocks
        Inside of the payload.
    most : int64 (n,)
        Largest block that each frame may have.
    decoded_nbytes : int64 (n,)
    """
    n = len(most)
    coded = np.flatnonzero(blocks.kind == COMPRESSED)
    limit = most[blocks.frame]
    least, room = blocks.decoded.copy(), blocks.decoded.copy()
    fine = np.where(blocks.kind == RLE, blocks.decoded, blocks.nbytes) <= limit
    if len(coded):
        sections = _sections(payload, blocks.at[coded], blocks.nbytes[coded], limit[coded])
        fine[coded] &= sections["fine"]
        least[coded] = sections["least"]
        room[coded] = np.where(sections["sequences"], limit[coded], sections["least"])
        frame, number = blocks.frame[coded], blocks.number[coded]
        for uses, gives in (("tree_before", "tree"), ("tables_before", "tables")):
            first = np.full(n, _NEVER, np.int64)
            np.minimum.at(first, frame[sections[gives]], number[sections[gives]])
            fine[coded] &= ~sections[uses] | (number > first[frame])
    good = np.ones(n, np.bool_)
    good[blocks.frame[~fine]] = False
    sums = [np.bincount(blocks.frame, size, n) for size in (least, room)]  # exact below 2**53
    return good & (sums[0] <= decoded_nbytes) & (decoded_nbytes <= sums[1])


def _sections(payload: ByteArray, at: Int64s, nbytes: Int64s, limit: Int64s) -> dict[str, Any]:
    """Read both section headers of compressed blocks."""
    fine = nbytes >= 2
    last = payload.size - 1
    head = payload[np.minimum(at[:, None] + np.arange(_HEADER_MAX), last)].astype(np.int64)
    word = head[:, 0] | head[:, 1] << 8 | head[:, 2] << 16 | head[:, 3] << 24 | head[:, 4] << 32
    kind, size_format = word & 3, (word >> 2) & 3
    plain = kind <= _LITERALS_RLE
    header = np.where(
        plain, np.array([1, 2, 1, 3])[size_format], np.array([3, 3, 4, 5])[size_format]
    )
    bits = np.array([10, 10, 14, 18])[size_format]
    mask = (1 << bits) - 1
    plain_size = np.where(
        header == 1, (word >> 3) & 31, (word >> 4) & ((1 << (8 * header - 4)) - 1)
    )
    literals = np.where(plain, plain_size, (word >> 4) & mask)
    coded = (word >> (4 + bits)) & mask
    stored = np.where(kind == _LITERALS_RAW, literals, np.where(plain, 1, coded))
    fine &= (literals <= limit) & (header + stored + 1 <= nbytes)
    # a tree: one byte says how large it is, coded or four bits a weight; then one stream or four
    tree = kind == _LITERALS_COMPRESSED
    first = head[np.arange(len(at)), header]
    tree_nbytes = np.where(tree, 1 + np.where(first < 128, first, (first - 126) >> 1), 0)
    streams = np.where(size_format == 0, 1, _JUMP_TABLE_NBYTES + 4)
    fine &= plain | ((literals > 0) & (tree_nbytes + streams <= coded))
    four = np.flatnonzero(fine & ~plain & (size_format > 0))
    if len(four):
        jumps = at[four] + header[four] + tree_nbytes[four]
        sizes = np.ascontiguousarray(payload[jumps[:, None] + np.arange(6)]).view("<u2")
        used = sizes.astype(np.int64).sum(axis=1) + _JUMP_TABLE_NBYTES + tree_nbytes[four]
        fine[four] &= (sizes > 0).all(axis=1) & (used < coded[four])
    found: dict[str, Any] = {"tree": tree, "tree_before": kind == _LITERALS_TREELESS}
    place = np.where(fine, header + stored, 0)
    return found | _sequences(payload, at + place, nbytes - place, literals, limit, fine)


def _sequences(
    payload: ByteArray, at: Int64s, nbytes: Int64s, literals: Int64s, limit: Int64s, fine: Bools
) -> dict[str, Any]:
    """Read the sequences section at `at`, which has `nbytes` bytes, at least one where `fine`."""
    raw = payload[np.minimum(at[:, None] + np.arange(4), payload.size - 1)].astype(np.int64)
    short, middle = raw[:, 0] < 128, raw[:, 0] < 255
    count = np.where(short, raw[:, 0], ((raw[:, 0] - 128) << 8) + raw[:, 1])
    count = np.where(middle, count, raw[:, 1] + (raw[:, 2] << 8) + 0x7F00)
    header = np.where(short, 1, np.where(middle, 2, 3))
    some = fine & (count > 0)
    modes = raw[np.arange(len(at)), header]
    repeats = ((modes & 0x0C) == 0x0C) | ((modes & 0x30) == 0x30) | ((modes & 0xC0) == 0xC0)
    end = np.where(fine, at + nbytes - 1, 0)
    fits = (header + 2 <= nbytes) & ((modes & 3) == 0) & (payload[end] != 0)
    least = literals + _MIN_MATCH * count
    fine = fine & np.where(some, fits & (least <= limit), nbytes == header)
    return {
        "fine": fine, "least": least, "sequences": some, "tables": some,
        "tables_before": some & repeats,
    }  # fmt: skip
