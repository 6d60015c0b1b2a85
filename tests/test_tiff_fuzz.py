"""Law: a TIFF with any byte changed is an array or a typed error, in bounded memory and time.

Never another exception, a hang, or memory beyond what the pixels take. Changed are directory
entries (types, counts, values that matter), lengths, and bytes anywhere.
"""

from __future__ import annotations

import io
import struct
import time
import tracemalloc

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

import zarrgpu as zg
from tests.synthetic_slides import SlideRecipe, make_svs
from tests.test_geotiff import SCALE, TIEPOINT, UTM, XML, doubles, keys, text
from tests.test_tiff_opening import CountingFileSystem, write_pages
from tests.tiff_arrays import ramp, write
from zarrgpu.errors import (
    DataError,
    MetadataError,
    StoreError,
    UnsupportedFormatError,
    ZarrGPUError,
)
from zarrgpu.pages import Pages

BUDGET = zg.ReadOptions(memory_budget_bytes=32 << 20)
MAX_NBYTES = 128 << 20
MAX_SECONDS = 10.0
"""Of opening and reading a corner of each array, on a shared machine; most take milliseconds."""


def _files() -> list[bytes]:
    rgb, grey = ramp((40, 44, 3), "u1"), ramp((40, 44), "u2")
    geo = [
        doubles(SCALE, 1, 1, 0), doubles(TIEPOINT, 0, 0, 0, 5, 6, 0), keys(UTM),
        text(42112, XML), text(42113, "-1"),
    ]  # fmt: skip
    tile = {"tile": (16, 16)}
    subs = io.BytesIO()
    with tifffile.TiffWriter(subs, bigtiff=True, byteorder=">") as writer:
        writer.write(rgb, photometric="rgb", subifds=1, metadata=None, **tile)
        writer.write(rgb[::2, ::2], photometric="rgb", subfiletype=1, metadata=None, **tile)
    imagej = io.BytesIO()
    tifffile.imwrite(imagej, ramp((2, 3, 20, 24), "u2"), imagej=True, metadata={"axes": "TZYX"})
    palette = {"photometric": "palette", "colormap": ramp((3, 256), "u2")}
    return [
        write(grey, compression="lzw", predictor=2, byteorder=">", big=True, extratags=geo, **tile),
        write(rgb, photometric="rgb", planarconfig="separate", compression=8, rowsperstrip=9),
        write(rgb, photometric="rgb", compression="jpeg", tile=(32, 32)),
        write(ramp((40, 44), "f4"), compression="zstd", predictor=3, rowsperstrip=7),
        write(ramp((40, 44), "?"), photometric="miniswhite", compression="packbits"),
        write(ramp((40, 44), "u1"), **palette),
        write_pages([(grey, tile), (grey[::2, ::2], {**tile, "subfiletype": 1})]),
        write_pages([(grey, {}), (grey, {}), (rgb, {"photometric": "rgb"})]),
        subs.getvalue(),
        imagej.getvalue(),
        make_svs(SlideRecipe(kind="lzw", height=40, width=40, tile=16, n_levels=2)),
    ]


FILES = _files()


def entries(data: bytes) -> list[tuple[int, int, bool, str]]:
    """Offset of each directory entry, its size, and the file's kind."""
    found = []
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        for page in tiff.pages:
            found += [(tag.offset, 20 if tiff.is_bigtiff else 12) for tag in page.tags]
        return [(at, n, tiff.is_bigtiff, tiff.byteorder) for at, n in found]


ENTRIES = [entries(data) for data in FILES]
NUMBERS = st.sampled_from(
    [0, 1, 2, 3, 4, 5, 7, 8, 16, 255, 256, 4096, 65535, 1 << 20, 1 << 31, (1 << 32) - 1, 1 << 62,
     (1 << 63) + 5, (1 << 64) - 1]
)  # fmt: skip


@st.composite
def damaged(draw) -> bytes:
    which = draw(st.integers(0, len(FILES) - 1))
    data = bytearray(FILES[which])
    for _ in range(draw(st.integers(0, 3))):
        at, _, big, order = draw(st.sampled_from(ENTRIES[which]))
        wide = "Q" if big else "I"
        field = draw(st.sampled_from(["tag", "type", "count", "value", "short"]))
        number = draw(NUMBERS | st.integers(0, len(data)))
        if field in ("tag", "type"):
            place, code = at + (0 if field == "tag" else 2), "H"
        elif field == "count":
            place, code = at + 4, wide
        else:
            place, code = at + (12 if big else 8), "H" if field == "short" else wide
        number %= 1 << 8 * struct.calcsize("=" + code)
        struct.pack_into(order + code, data, place, number)
    for _ in range(draw(st.integers(0, 3))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    if draw(st.integers(0, 4)) == 4:
        del data[draw(st.integers(100, len(data))) :]
    return bytes(data)


def read_corners(data: bytes) -> None:
    """Open, and read a corner of each array there is."""
    node = zg.open("/a.tif", filesystem=CountingFileSystem(data, "a.tif"))
    if isinstance(node, zg.Slide):
        arrays = [*node.levels, *node.associated_images.values()]
        _ = node.icc_profile, node.properties
    else:
        arrays = list(node) if isinstance(node, Pages) else [node]
    for array in arrays:
        corner = tuple(slice(0, min(n, 40)) for n in array.shape)
        try:
            got = array.read(corner, device="cpu", options=BUDGET)
            assert got.shape == tuple(part.stop for part in corner)
        except ZarrGPUError:
            continue


@settings(max_examples=400)
@given(damaged())
def test_damage_gives_arrays_or_a_typed_error_in_bounded_memory_and_time(data):
    start = time.perf_counter()
    tracemalloc.start()
    message = "a.tif"
    try:
        read_corners(data)
    except ZarrGPUError as error:
        message = str(error)
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert "a.tif" in message
    assert peak < MAX_NBYTES
    assert time.perf_counter() - start < MAX_SECONDS


@pytest.mark.parametrize("which", range(len(FILES)))
def test_the_undamaged_files_are_read(which):
    node = zg.open("/a.tif", filesystem=CountingFileSystem(FILES[which], "a.tif"))
    read_corners(FILES[which])
    assert node is not None


@pytest.mark.parametrize("which", range(len(FILES)))
def test_every_truncation_is_a_typed_error_or_leaves_whole_tiles(which):
    data = FILES[which]
    outcomes = set()
    for length in range(0, len(data), max(len(data) // 60, 1)):
        try:
            read_corners(data[:length])
            outcomes.add("opened")
        except DataError:
            outcomes.add("refused")
        except UnsupportedFormatError:  # too short to be known as a TIFF
            outcomes.add("refused" if length < 8 else "taken for something else")
    assert "refused" in outcomes
    assert outcomes <= {"opened", "refused"}


# ---- faults by name ------------------------------------------------------------------------------


def value_offset(data: bytes, name: str) -> int:
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        return tiff.pages[0].tags[name].valueoffset


def test_a_tile_past_the_end_is_an_error_of_that_tile_alone():
    image = ramp((64, 64), "u2")
    data = bytearray(write(image, tile=(16, 16)))
    struct.pack_into("<I", data, value_offset(bytes(data), "TileOffsets") + 4 * 5, 1 << 30)
    array = zg.open("/a.tif", filesystem=CountingFileSystem(bytes(data), "a.tif"))
    assert np.array_equal(array.read((slice(0, 16),), device="cpu")[..., 0], image[:16])
    with pytest.raises(StoreError, match=r"tile \(row 1, column 1\).*a\.tif") as caught:
        array.read(device="cpu")
    assert isinstance(caught.value, DataError)


def test_a_loop_of_directories_is_found():
    data = bytearray(write_pages([(ramp((16, 16), "u1"), {})] * 3))
    with tifffile.TiffFile(io.BytesIO(bytes(data))) as tiff:
        first, last = tiff.pages[0].offset, tiff.pages[2].offset
        n_tags = len(tiff.pages[2].tags)
    struct.pack_into("<I", data, last + 2 + 12 * n_tags, first)
    with pytest.raises(MetadataError, match=r"ifd\.3.*loops back"):
        zg.open("/a.tif", filesystem=CountingFileSystem(bytes(data), "a.tif"))


def test_sub_directories_that_are_the_directory_itself_end():
    data = bytearray(FILES[8])
    with tifffile.TiffFile(io.BytesIO(bytes(data))) as tiff:
        page = tiff.pages[0]
        at, here = page.tags["SubIFDs"].valueoffset, page.offset
    struct.pack_into(">Q", data, at, here)
    slide = zg.open("/a.tif", filesystem=CountingFileSystem(bytes(data), "a.tif"))
    assert slide.level_dimensions == ((44, 40), (44, 40))


@pytest.mark.parametrize("name", ["ImageWidth", "ImageLength", "TileWidth", "TileLength"])
@pytest.mark.parametrize("size", [0, 1, 1 << 31, (1 << 32) - 1])
def test_absurd_sizes_are_refused_before_anything_is_allocated(name, size):
    data = bytearray(write(ramp((64, 64), "u1"), tile=(16, 16)))
    at = value_offset(bytes(data), name)
    struct.pack_into("<H", data, at - 6, 4)  # field type LONG
    struct.pack_into("<I", data, at, size)
    tracemalloc.start()
    with pytest.raises(MetadataError, match=r"a\.tif.*ifd\.0\.(Image|Tile)"):
        zg.open("/a.tif", filesystem=CountingFileSystem(bytes(data), "a.tif"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 << 20


def test_sparse_files_claim_any_size_and_cost_nothing():
    # one strip that is not stored: rows and columns are only numbers
    data = bytearray(write(ramp((64, 64), "u1")))
    for name, size in (
        ("ImageWidth", 1 << 30),
        ("ImageLength", 1 << 30),
        ("RowsPerStrip", 1 << 30),
    ):
        at = value_offset(bytes(data), name)
        struct.pack_into("<H", data, at - 6, 4)
        struct.pack_into("<I", data, at, size)
    struct.pack_into("<I", data, value_offset(bytes(data), "StripByteCounts"), 0)
    tracemalloc.start()
    array = zg.open("/a.tif", filesystem=CountingFileSystem(bytes(data), "a.tif"))
    assert array.shape == (1 << 30, 1 << 30, 1)
    corner = array.read((slice(0, 8), slice(0, 8)), device="cpu")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert not corner.any()
    assert peak < 4 << 20


def test_directories_that_lie_over_one_another_are_refused_in_little_time():
    # slots of 6 bytes: a count of entries, and what is the next offset of an earlier directory
    n, entries = 2000, 4096
    behind = entries * 12 // 6
    data = bytearray(b"II*\0" + struct.pack("<I", 8))
    for slot in range(n + behind):
        here = slot - behind
        following = 8 + 6 * (here + 1) if 0 <= here < n - 1 else 0
        data += struct.pack("<HI", entries, following)
    start = time.perf_counter()
    with pytest.raises(MetadataError, match=r"a\.tif.*take more bytes than the file has.*overlap"):
        zg.open("/a.tif", filesystem=CountingFileSystem(bytes(data), "a.tif"))
    assert time.perf_counter() - start < 5


def test_values_that_many_directories_share_are_bounded():
    nbytes = 4 << 20
    data = bytearray(b"II*\0" + struct.pack("<I", 8 + nbytes)) + b"a" * (nbytes - 1) + b"\0"
    text_tags = [(tag, 2, nbytes, 8) for tag in (270, 271, 272, 305)]
    numbers = {256: 1, 257: 1, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 1, 279: 1}
    fields = sorted([*text_tags, *((tag, 4, 1, value) for tag, value in numbers.items())])
    n = 100  # 1.6 GB of text
    for index in range(n):
        data += struct.pack("<H", len(fields))
        for field in fields:
            data += struct.pack("<HHII", *field)
        data += struct.pack("<I", len(data) + 4 if index < n - 1 else 0)
    tracemalloc.start()
    with pytest.raises(MetadataError, match=r"a\.tif.*values take more bytes than the file has"):
        zg.open("/a.tif", filesystem=CountingFileSystem(bytes(data), "a.tif"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 160 << 20
