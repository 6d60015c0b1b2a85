"""Where the restart intervals of an NDPI level lie: from its tags, else by looking for markers.

Ranges are those that the codec ``restart_jpeg`` expects: from the two bytes before the first
interval of a chunk up to and including the marker behind its last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from zarrgpu.errors import MetadataError, UnsupportedFormatError
from zarrgpu.formats.tiff_tags import Tag
from zarrgpu.model import Manifest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from zarrgpu.formats.ndpi_ifd import NdpiDirectory
    from zarrgpu.formats.tiff_file import TiffFile

_MAX_SCANNED_NBYTES: Final = 64 << 20
"""Largest level whose markers are searched for when a slide is opened."""
_SCAN_NBYTES: Final = 1 << 20
_MAX_INTERVALS: Final = 1 << 28


def interval_manifest(
    file: TiffFile,
    directory: NdpiDirectory,
    strip: tuple[int, int, int],
    grid: tuple[int, int],
    chunk: tuple[int, int],
    name: str,
) -> Manifest:
    """Byte ranges of the chunks of a level.

    Parameters
    ----------
    file : TiffFile
    directory : NdpiDirectory
        Of the level.
    strip : (int, int, int)
        Offset of the JPEG, its size, and where its entropy-coded data begins.
    grid, chunk : (int, int)
        Rows and columns of restart intervals, of the level and of a chunk.
    name : str
        Of the level.

    Raises
    ------
    MetadataError
        The tags contradict one another or the JPEG.
    UnsupportedFormatError
        There is no usable table, and the level is too large to look for markers.
    """
    start, nbytes, data_offset = strip
    count = grid[0] * grid[1]
    if count > _MAX_INTERVALS:
        where = f"{name} of {file.source!r}"
        msg = f"{where}: {count} restart intervals, at most {_MAX_INTERVALS} are read"
        raise UnsupportedFormatError(msg)
    starts = _stated_starts(directory, count)
    if starts is None:
        starts = _found_starts(file, strip, count, name)
    starts[0] = data_offset
    edges = np.append(starts, nbytes)
    steps = np.diff(edges)
    if (steps < 2).any():
        bad = int(np.flatnonzero(steps < 2)[0])
        msg = (
            f"{name}: restart interval {bad} of {count} would take bytes {edges[bad]} to "
            f"{edges[bad + 1]} of a JPEG of {nbytes}"
        )
        raise directory.ifd.error(Tag.NdpiMcuStarts, msg)
    first = np.arange(count).reshape(grid)[:: chunk[0], :: chunk[1]]
    last = np.minimum(first + chunk[0] * chunk[1], count)
    begin, end = edges[first.reshape(-1)] - 2, edges[last.reshape(-1)]
    return Manifest(key=file.key, offsets=start + begin, nbytes=end - begin)


def _stated_starts(directory: NdpiDirectory, count: int) -> NDArray[np.int64] | None:
    """Starts from the tags, from the beginning of the JPEG; None if there is no full table."""
    ifd = directory.ifd
    field = ifd.fields.get(Tag.NdpiMcuStarts)
    if field is None or field.count != count:
        return None
    starts = ifd.integers(Tag.NdpiMcuStarts, max_count=count)
    if starts is None:  # pragma: no cover - the field was found above
        return None
    high = ifd.fields.get(Tag.NdpiMcuStartsHigh)
    if high is None:
        return starts
    if high.count != count:
        msg = f"expected {count} values, as many as McuStarts has, got {high.count}"
        raise ifd.error(Tag.NdpiMcuStartsHigh, msg)
    upper = ifd.integers(Tag.NdpiMcuStartsHigh, max_count=count)
    return starts if upper is None else starts + (upper << 32)


def _found_starts(
    file: TiffFile, strip: tuple[int, int, int], count: int, name: str
) -> NDArray[np.int64]:
    """Starts behind each restart marker of a JPEG, which is read for it."""
    start, nbytes, data_offset = strip
    if nbytes > _MAX_SCANNED_NBYTES:
        msg = (
            f"{name} of {file.source!r}: no table of restart intervals (McuStarts), and {nbytes} "
            f"bytes to look for them in; at most {_MAX_SCANNED_NBYTES} are searched"
        )
        raise UnsupportedFormatError(msg)
    found: list[NDArray[np.int64]] = [np.array([data_offset], np.int64)]
    for at in range(data_offset, nbytes, _SCAN_NBYTES):
        # one byte more, for a marker that lies across
        room = min(_SCAN_NBYTES + 1, nbytes - at)
        data = np.frombuffer(file.read(start + at, room, name), np.uint8)
        markers = (data[:-1] == 0xFF) & (data[1:] >= 0xD0) & (data[1:] <= 0xD7)
        found.append(np.flatnonzero(markers) + at + 2)
    starts = np.concatenate(found)
    if len(starts) != count:
        msg = f"{name}: {len(starts)} restart intervals were found, expected {count}"
        raise MetadataError(msg, source=file.source, kind="missing")
    return starts
