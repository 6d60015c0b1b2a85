"""One image of a DICOM series as an array: a file, or several that are parts of it.

Spec: PS3.3, C.7.6.16.2.2.4 (concatenations: an image whose frames are spread over instances).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from zarrgpu.errors import UnsupportedFormatError
from zarrgpu.formats.dicom_codecs import PixelFormat, pixel_format
from zarrgpu.formats.dicom_frames import FrameTable, frame_table
from zarrgpu.formats.dicom_syntaxes import ENCAPSULATED
from zarrgpu.formats.dicom_tiles import number_of_frames, place_frames, tile_grid
from zarrgpu.model import MISSING_NBYTES, ArraySpec, CodecSpec, Manifest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from zarrgpu.formats.dicom_file import DicomFile

_PART, _PARTS, _FIRST_FRAME = 0x00209162, 0x00209163, 0x00209228
_MAX_FRAMES: Final = (1 << 32) - 1


class DicomImage:
    """A level, label, macro image or thumbnail.

    Parameters
    ----------
    files : sequence of DicomFile
        One, or the parts of a concatenation in any order.
    """

    def __init__(self, files: Sequence[DicomFile]) -> None:
        self.files = _in_order(files)
        self.source = self.files[0].source
        self.pixels = _one_format(self.files)
        self.grid = tile_grid(self.files[0], self.pixels.rows, self.pixels.columns)

    @property
    def first(self) -> DicomFile:
        """File with the first frame."""
        return self.files[0]

    def array_spec(self, name: str) -> ArraySpec:
        """Make the array; `name` is for messages (``level 0``).

        Axes are y, x and c; several optical paths are the first axis, c, and several focal planes
        come before y as z.
        """
        tile = (self.pixels.rows, self.pixels.columns)
        tables = _frame_tables(self.files, self.pixels)  # first: it bounds the number of frames
        frames = place_frames(self.files, self.grid, tile)
        lead = [(axis, n) for axis, n in zip("cz", frames.shape[:2], strict=True) if n > 1]
        channels = any(axis == "c" for axis, _ in lead)
        if channels and self.pixels.samples > 1:
            msg = (
                f"{name} of {self.source!r}: {frames.shape[0]} optical paths of "
                f"{self.pixels.samples} samples each, which are not read"
            )
            raise UnsupportedFormatError(msg)
        with_samples = not channels
        samples = (self.pixels.samples,) if with_samples else ()
        axes = (*(axis for axis, _ in lead), "y", "x", *("c" if with_samples else ""))
        offsets, nbytes, objects, with_headers = _chunk_table(tables, frames)
        keys = tuple(file.key for file in self.files)
        several = len(keys) > 1
        inverted = self.pixels.photometric == "MONOCHROME1" and self.pixels.dtype.itemsize == 1
        return ArraySpec(
            source=self.source,
            shape=(*(n for _, n in lead), self.grid.height, self.grid.width, *samples),
            dtype=self.pixels.dtype,
            chunk_shape=(*(1 for _ in lead), *tile, *samples),
            fill_value=self.pixels.dtype.newbyteorder("=").type(0),
            codecs=_codecs(self.pixels, with_headers=with_headers),
            axis_order=_axis_order(len(lead), planar=self.pixels.planar, ndim=len(axes)),
            location=Manifest(
                key=keys[0],
                offsets=offsets,
                nbytes=nbytes,
                keys=keys if several else (),
                object_id=objects if several else None,
            ),
            dimension_names=axes,
            # samples stay as they are stored; who shows them has to know, in TIFF's words
            attributes={"image": name} | ({"photometric": "white is zero"} if inverted else {}),
        )


def _axis_order(lead: int, *, planar: bool, ndim: int) -> tuple[int, ...]:
    """Order in which the axes of a frame are stored."""
    if not planar:
        return tuple(range(ndim))
    return (*range(lead), ndim - 1, *range(lead, ndim - 1))


def _codecs(pixels: PixelFormat, *, with_headers: bool) -> tuple[CodecSpec, ...]:
    if not with_headers:
        return pixels.codecs
    known = {"decoded_nbytes": pixels.frame_nbytes} if not pixels.codecs else {}
    return (*pixels.codecs, CodecSpec("dicom_fragments", known))


def _in_order(files: Sequence[DicomFile]) -> tuple[DicomFile, ...]:
    """Parts of a concatenation by their first frame; all of them must be there."""
    if len(files) == 1 and not files[0].attributes.elements.get(_FIRST_FRAME):
        return (files[0],)
    starts = [file.attributes.integer(_FIRST_FRAME, 0, _MAX_FRAMES, -1) for file in files]
    parts = [file for _, file in sorted(zip(starts, files, strict=True), key=lambda part: part[0])]
    expected = 0
    for file, start in zip(parts, sorted(starts), strict=True):
        if start != expected:
            message = (
                f"begins with frame {start} of a concatenation of {_stated_parts(file)} parts, "
                f"expected "
                f"{expected}: {len(files)} of them are here, and one is missing or there twice"
            )
            raise file.attributes.fail(_FIRST_FRAME, message)
        expected += number_of_frames(file)
    stated = _stated_parts(parts[0])
    if stated not in (len(parts), "several"):
        message = f"{stated} parts, of which {len(parts)} are here"
        raise parts[0].attributes.fail(_PARTS, message)
    return tuple(parts)


def _stated_parts(file: DicomFile) -> int | str:
    return file.attributes.integer(_PARTS, 0, 0xFFFF, 0) or "several"


def _one_format(files: Sequence[DicomFile]) -> PixelFormat:
    first = pixel_format(files[0])
    for file in files[1:]:
        other = pixel_format(file)
        if other != first:
            msg = (
                f"{files[0].source!r} and {file.source!r} are parts of one image, but differ in "
                "size, type or compression of frames"
            )
            raise UnsupportedFormatError(msg)
    return first


def _frame_tables(files: Sequence[DicomFile], pixels: PixelFormat) -> list[FrameTable]:
    """Frames of each file; all with the headers of their items, or all without."""
    native = None if pixels.encapsulated else pixels.frame_nbytes
    tables = [frame_table(file, number_of_frames(file), native_nbytes=native) for file in files]
    uncompressed = files[0].syntax == ENCAPSULATED  # an odd size is padded, so it is checked
    if uncompressed or any(table.with_headers for table in tables):
        return [table.including_headers() for table in tables]
    return tables


def _chunk_table(
    tables: Sequence[FrameTable], frames: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], bool]:
    """Offset, size and file of each chunk, and whether chunks are whole items."""
    of_file = np.repeat(np.arange(len(tables)), [len(table.offsets) for table in tables])
    frame = frames.reshape(-1)
    there = frame >= 0
    index = np.where(there, frame, 0)
    offsets = np.where(there, _joined(tables, "offsets")[index], 0)
    nbytes = np.where(there, _joined(tables, "nbytes")[index], MISSING_NBYTES)
    return offsets, nbytes, np.where(there, of_file[index], 0), tables[0].with_headers


def _joined(tables: Sequence[FrameTable], name: str) -> NDArray[np.int64]:
    joined: NDArray[np.int64] = np.concatenate([getattr(table, name) for table in tables])
    return joined
