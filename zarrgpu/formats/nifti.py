"""NIfTI-1 and NIfTI-2 images as arrays: ``.nii``, ``.hdr`` and ``.img``, and their ``.gz``.

An image becomes an array with the axes of nibabel, ``(x, y, z, t, ...)``, which the file stores in
Fortran order: x is fastest. No element moves, the array's stored axis order says it. Chunks of an
uncompressed image are runs of whole rows, slices or volumes of about 256 KiB, so that a part of the
image costs its own byte ranges. A gzip stream can only be read from its beginning, so it is one
chunk.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from zarrgpu.errors import MetadataError, UnsupportedFormatError
from zarrgpu.formats.nifti_header import HEADER_NBYTES, NiftiHeader, header_version
from zarrgpu.model import ArraySpec, CodecSpec, Manifest

MAX_HEADER_NBYTES: Final = max(HEADER_NBYTES.values())
HEAD_GZIP_NBYTES: Final = 16 << 10
"""Of a gzip stream: the header decodes from far less."""

CHUNK_NBYTES: Final = 256 << 10
"""Largest chunk of an uncompressed image."""

GZIP_MAGIC: Final = b"\x1f\x8b"
_MOST_DEFLATED: Final = 1032
"""Deflate's largest ratio (zlib's technical notes)."""

_AXES: Final = ("x", "y", "z", "t", "u", "v", "w")


def is_nifti_head(head: bytes, key: str) -> bool:
    """Whether a file may be NIfTI, by its first bytes and, for gzip and ``.img``, its name."""
    name = key.lower()
    if head[:2] == GZIP_MAGIC:
        return name.endswith((".nii.gz", ".hdr.gz", ".img.gz"))
    return header_version(head) is not None or name.endswith(".img")


def pair_keys(key: str) -> tuple[str, str]:
    """Keys of the header and of the image of a pair, from either.

    >>> pair_keys("a/b.IMG.gz")
    ('a/b.HDR.gz', 'a/b.IMG.gz')
    """
    stem, gz = (key[:-3], key[-3:]) if key.lower().endswith(".gz") else (key, "")
    stem, suffix = stem[:-4], stem[-4:]
    upper = suffix[1:].isupper()
    header, image = (".HDR", ".IMG") if upper else (".hdr", ".img")
    if suffix.lower() not in (".hdr", ".img"):
        msg = f"{key!r} has the header of a pair of files, and is named neither .hdr nor .img"
        raise UnsupportedFormatError(msg)
    return stem + header + gz, stem + image + gz


def nifti_array_spec(header: NiftiHeader, *, key: str, size: int, gzipped: bool) -> ArraySpec:
    """Describe an image as an array.

    Parameters
    ----------
    header : NiftiHeader
    key : str
        Key of the file with the voxels.
    size : int
        Its bytes.
    gzipped : bool
        Whether it is a gzip stream.

    Raises
    ------
    MetadataError
        If the file is too small for what the header says, before any table is made.
    """
    nbytes = math.prod(header.shape) * header.dtype.itemsize
    end = header.vox_offset + nbytes
    if end > (size * _MOST_DEFLATED if gzipped else size):
        what = "can decode to" if gzipped else "has"
        message = (
            f"voxels end at byte {end} by the header, the file {what} "
            f"{size * _MOST_DEFLATED if gzipped else size}; it is cut off or its header is wrong"
        )
        raise MetadataError(message, source=header.source, location=("header", "dim"))
    chunk, starts, offsets, sizes = _runs(header.shape, header.dtype.itemsize)
    codecs: tuple[CodecSpec, ...] = ()
    if gzipped:
        chunk, starts = header.shape, (None,) * len(header.shape)
        offsets, sizes = np.zeros(1, np.int64), np.array([size], np.int64)
        codecs = (CodecSpec("gzip_part", {"start": header.vox_offset}),)
    else:
        offsets = offsets + header.vox_offset
    ndim = len(header.shape)
    return ArraySpec(
        source=header.source,
        shape=header.shape,
        dtype=header.dtype,
        chunk_shape=chunk,
        fill_value=None,
        codecs=codecs,
        axis_order=tuple(reversed(range(ndim))),
        location=Manifest(key=key, offsets=offsets, nbytes=sizes),
        dimension_names=_AXES[:ndim],
        attributes=header.attributes(),
        chunk_starts=None if all(start is None for start in starts) else starts,
    )


def _runs(
    shape: tuple[int, ...], itemsize: int
) -> tuple[
    tuple[int, ...],
    tuple[np.ndarray[tuple[int], np.dtype[np.int64]] | None, ...],
    np.ndarray[tuple[int, ...], np.dtype[np.int64]],
    np.ndarray[tuple[int, ...], np.dtype[np.int64]],
]:
    """Chunk shape, chunk starts, and offset and size of each chunk in C order of the grid.

    Axes go into a chunk whole, fastest first, until one does not fit; of that one goes a part.
    """
    chunk = [1] * len(shape)
    starts: list[np.ndarray[tuple[int], np.dtype[np.int64]] | None] = [None] * len(shape)
    nbytes, axis = itemsize, 0
    while axis < len(shape) and nbytes * shape[axis] <= CHUNK_NBYTES:
        chunk[axis] = shape[axis]
        nbytes *= shape[axis]
        axis += 1
    if axis < len(shape):
        chunk[axis] = max(1, CHUNK_NBYTES // nbytes)
        if shape[axis] % chunk[axis]:
            ends = np.append(np.arange(0, shape[axis], chunk[axis]), shape[axis])
            starts[axis] = ends.astype(np.int64)
    first, length = np.zeros((1,) * len(shape), np.int64), np.full((1,) * len(shape), itemsize)
    stride = itemsize
    for k, (n, c) in enumerate(zip(shape, chunk, strict=True)):
        along = [1] * len(shape)
        along[k] = -1
        start = np.arange(0, n, c, dtype=np.int64)
        first = first + (start * stride).reshape(along)
        length = length * (np.minimum(start + c, n) - start).reshape(along)
        stride *= n
    return tuple(chunk), tuple(starts), first.reshape(-1), length.reshape(-1).astype(np.int64)
