"""What the compiled executor is told of chunks that are images, and how threads share them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zarrgpu.codecs.base import Codec
from zarrgpu.codecs.jpeg import JpegCodec
from zarrgpu.codecs.jpeg2k import Jpeg2kCodec
from zarrgpu.plan.tables import Int64s, ReadPlan


def image_values(codec: Codec) -> dict[str, Any] | None:
    """What the executor is told of an image codec; None if it does not know such images."""
    if isinstance(codec, JpegCodec):
        stored, delivered = codec.libjpeg_spaces
        tables = codec.tables
    elif isinstance(codec, Jpeg2kCodec) and codec.bits == 8 and not codec.signed:
        stored, delivered, tables = int(codec.colorspace == "ycbcr"), 0, b""
    else:
        return None
    return {
        "height": codec.height,
        "width": codec.width,
        "samples": codec.samples,
        "color_space": stored,
        "out_color_space": delivered,
        "tables": tables,
    }


def shared_reads(
    plan: ReadPlan, images: Sequence[bool], places: Int64s
) -> dict[str, NDArray[Any]] | None:
    """Columns of the read table with a read for each image; None where nothing changes.

    What lies between two chunks of a read is read with the first, so that no more and no less is.

    Parameters
    ----------
    plan : ReadPlan
    images : sequence of bool
        Whether the chunks of each array are images.
    places : int64 (R,)
        Of the keys of the plan's reads.
    """
    reads, chunks = plan.reads, plan.chunks
    first = _first_chunks(plan, np.array(images, np.bool_))
    if len(first) == len(reads):
        return None
    own = chunks.read[first]
    offset = np.where(first == reads.chunk_start[own], reads.offset[own], chunks.offset[first])
    end = reads.offset[own] + reads.nbytes[own]
    more = own[1:] == own[:-1]  # not the last of its read
    end[:-1][more] = offset[1:][more]
    whole = reads.nbytes[own] < 0
    return {
        "read_array": reads.array[own].astype(np.int32),
        "read_offset": offset.astype(np.int64),
        "read_nbytes": np.where(whole, reads.nbytes[own], end - offset).astype(np.int64),
        "read_chunk_start": np.append(first, len(chunks)).astype(np.int64),
        "read_key": places[own].astype(np.int64),
    }


def _first_chunks(plan: ReadPlan, images: NDArray[np.bool_]) -> Int64s:
    """First chunk of each read: of images, every chunk of the plan's reads begins one."""
    reads, chunks = plan.reads, plan.chunks
    starts = reads.chunk_start[:-1]
    begins = np.zeros(len(chunks), np.bool_)
    if images.any():
        apart = np.ones(len(chunks), np.bool_)  # behind all that lies before it in its read
        apart[1:] = chunks.offset[1:] >= chunks.offset[:-1] + chunks.nbytes[:-1]
        apart[starts] = True
        sized = (chunks.nbytes >= 0) & apart
        whole = np.logical_and.reduceat(sized, starts)
        begins = (whole & images[reads.array])[chunks.read]
    begins[starts] = True
    return np.flatnonzero(begins)
