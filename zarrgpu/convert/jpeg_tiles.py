"""JPEG tiles of a slide as chunks of Zarr, without decoding them.

A tile of a TIFF is an abbreviated stream: its tables lie beside it, and its colour space is told by
a tag. To stand alone it is given the tables, and an Adobe marker (APP14) that states the colour
transform; a JFIF marker, which would overrule that, goes. Entropy-coded data are not touched, so
the pixels are those that the tile decodes to.

In metadata a chunk is ``transpose`` (channels last), then ``imagecodecs_jpeg``: imagecodecs' name
for it in Zarr v3, read by zarrgpu and whoever registers imagecodecs' codecs.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any, Final

import numpy as np

from zarrgpu.array import Array
from zarrgpu.codecs.base import CodecError
from zarrgpu.codecs.jpeg import JpegHeader, check_end, read_header
from zarrgpu.convert.layout import Layout, shard_length
from zarrgpu.convert.source import Source
from zarrgpu.errors import ChunkDecodeError, StoreError, UnsupportedCodecError
from zarrgpu.model import MISSING_NBYTES, ByteRange, Manifest

_APP0: Final = 0xE0
_APP14: Final = 0xEE
_SOS: Final = 0xDA
_STANDALONE: Final = frozenset({0x01, *range(0xD0, 0xD9)})
_TRANSFORM: Final = {"rgb": 0, "ycbcr": 1}
_ABSENT: Final = (1 << 64) - 1
_SHARD_PX: Final = 4096


def check_copyable(source: Source) -> None:
    """Refuse a source whose levels are not plain grids of JPEG tiles, and say which and why."""
    for level, array in enumerate(source.arrays):
        spec = array.spec
        names = tuple(codec.name for codec in spec.codecs)
        reason = ""
        if names != ("jpeg",):
            reason = f"its tiles are {' + '.join(names) or 'uncompressed'}, not jpeg"
        elif spec.codecs[0].configuration.get("colorspace") not in ("gray", *_TRANSFORM):
            reason = f"their colours are of the kind {spec.codecs[0].configuration['colorspace']!r}"
        elif spec.codecs[0].configuration.get("short_height") is not None:
            reason = "its last strip is shorter than the others"
        elif not isinstance(spec.location, Manifest) or spec.chunk_starts is not None:
            reason = "its tiles are not a regular grid of byte ranges"
        elif spec.placement is not None or spec.substitute is not None:
            reason = "its tiles overlap, or lost ones are made from the finer level"
        elif source.axes != "cyx" or not (source.interleaved or spec.shape[-1] == 1):
            reason = f"its axes are {source.axes}"
        if reason:
            msg = (
                f"{source.name!r}: tiles of level {level} cannot be copied: {reason}; convert with "
                "another codec"
            )
            raise UnsupportedCodecError(msg)


def tile_layout(source: Source, level: int, shard_px: int | None) -> Layout:
    """Chunks are the tiles, shards as many of them as fit."""
    array, shape = source.arrays[level], source.shape(level)
    chunk = tuple(array.spec.chunk_shape[axis] for axis in source.stored)
    wanted = [chunk[0], shard_px or _SHARD_PX, shard_px or _SHARD_PX]
    shard = tuple(shard_length(*axis) for axis in zip(chunk, wanted, shape, strict=True))
    return Layout(shape=shape, chunk=chunk, shard=shard)


def array_document(source: Source, layout: Layout) -> dict[str, Any]:
    """``zarr.json`` of a level of copied tiles."""
    # channels first in the array, last in the image; a single one makes no difference
    order = [axis for axis in range(len(source.axes)) if source.axes[axis] != "c"]
    order.append(source.axes.index("c"))
    codecs = [
        {"name": "transpose", "configuration": {"order": order}},
        {"name": "imagecodecs_jpeg", "configuration": {}},
    ]
    index = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
    sharding = {
        "chunk_shape": list(layout.chunk),
        "codecs": codecs,
        "index_codecs": index,
        "index_location": "end",
    }
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(layout.shape),
        "data_type": "uint8",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(layout.shard)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": int(source.fill_value),
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        "dimension_names": list(source.axes),
        "attributes": {},
    }


def create_tile_array(folder: Path, source: Source, layout: Layout) -> None:
    """Write the metadata of a level."""
    folder.mkdir(exist_ok=True)
    (folder / "zarr.json").write_text(json.dumps(array_document(source, layout), indent=2))


def write_tile_shard(
    folder: Path, source: Source, level: int, layout: Layout, coords: tuple[int, ...]
) -> None:
    """Copy the tiles of one shard, and put its index behind them.

    Raises
    ------
    ChunkDecodeError
        If a tile is no JPEG of the level's tile size.
    StoreError
    """
    array = source.arrays[level]
    per_shard = [s // c for s, c in zip(layout.shard, layout.chunk, strict=True)]
    index, parts, at = [], [], 0
    for inner in layout.inner():
        chunk = [k * n + i for k, n, i in zip(coords, per_shard, inner, strict=True)]
        tile = read_tile(array, [chunk[source.stored.index(axis)] for axis in range(array.ndim)])
        if tile is None:
            index += [_ABSENT, _ABSENT]
            continue
        index += [at, len(tile)]
        parts.append(tile)
        at += len(tile)
    if not parts:
        return
    entries = struct.pack(f"<{len(index)}Q", *index)
    path = folder.joinpath("c", *(str(c) for c in coords))
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".partial")
    part.write_bytes(b"".join([*parts, entries, struct.pack("<I", _crc32c(entries))]))
    part.replace(path)


def read_tile(array: Array, coords: list[int]) -> bytes | None:
    """Stand-alone JPEG stream of one tile; None where it is missing or beyond the image."""
    spec = array.spec
    if any(c >= n for c, n in zip(coords, spec.grid_shape, strict=True)):
        return None
    row = int(np.ravel_multi_index(tuple(coords), spec.grid_shape))
    location, codec = spec.location, array.source.chain.codecs[0]
    nbytes = int(location.nbytes[row])
    if nbytes == MISSING_NBYTES:
        return None
    key = location.key_of(0 if location.object_id is None else int(location.object_id[row]))
    name = f"tile {','.join(map(str, coords))}"
    where = ByteRange(int(location.offsets[row]), nbytes)
    data = array.source.store.get_range(key, where)
    if data is None:
        raise StoreError(f"{name} of {spec.source!r}: the file is gone")
    try:
        return standalone(data.tobytes(), codec)
    except CodecError as error:
        raise ChunkDecodeError(str(error), source=spec.source, chunk=name, codec="jpeg") from error


def standalone(tile: bytes, codec: Any) -> bytes:
    """Put the tables and the colour transform into a stream; check that it is what it should be.

    Parameters
    ----------
    tile : bytes
        As the TIFF has it.
    codec : JpegCodec
        What the tile must be: height, width, samples, colour space, tables.

    Raises
    ------
    CodecError
    """
    header = read_header(tile)
    _check(header, codec)
    check_end(tile, header)
    marker = b""
    if codec.samples > 1:
        body = b"Adobe" + struct.pack(">HHHB", 100, 0, 0, _TRANSFORM[codec.colorspace])
        marker = b"\xff\xee" + struct.pack(">H", len(body) + 2) + body
    tables = codec.tables[2:]
    if tables.endswith(b"\xff\xd9"):
        tables = tables[:-2]
    return b"\xff\xd8" + marker + _without_markers(tables) + _without_markers(tile[2:])


def _check(header: JpegHeader, codec: Any) -> None:
    got = (header.height, header.width, header.samples, header.precision)
    wanted = (codec.height, codec.width, codec.samples, 8)
    if got != wanted:
        raise CodecError(f"JPEG of {got} (height, width, samples, bits), expected {wanted}")


def _without_markers(data: bytes) -> bytes:
    """Segments of a stream, without its SOI, less JFIF's and Adobe's."""
    kept, at = [], 0
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF or marker in _STANDALONE:
            at += 1 if marker == 0xFF else 2
            continue
        if marker == _SOS:
            break
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if marker not in (_APP0, _APP14):
            kept.append(data[at:end])
        at = end
    return b"".join([*kept, data[at:]])


def _crc32c(data: bytes) -> int:
    import google_crc32c

    return int(google_crc32c.value(data))
