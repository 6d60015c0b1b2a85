"""Law of slide files: any damage gives right data or a typed error, in bounded time and memory.

Directories and descriptions of every vendor's file are changed at random places; what opens is read
at every level, and nothing but zarrgpu's errors may come out.
"""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
import tifffile

import zarrgpu as zg
from tests.synthetic_leica import Field, LeicaRecipe, make_leica
from tests.synthetic_ome_tiff import noise, write_pyramid
from tests.synthetic_philips import PhilipsRecipe, make_philips
from tests.synthetic_qptiff import QptiffRecipe, write_qptiff
from tests.synthetic_slides import SlideRecipe, make_svs
from zarrgpu.errors import ZarrGPUError
from zarrgpu.model import ReadOptions

OPTIONS = ReadOptions(memory_budget_bytes=32 << 20)
ROUNDS = 120


def _ome(folder):
    write_pyramid(folder / "x", noise((2, 60, 50), "uint16"), "CYX", levels=2)
    return (folder / "x").read_bytes()


def _qptiff(folder):
    write_qptiff(folder / "x", QptiffRecipe(height=64, width=80, n_levels=2, bands=2))
    return (folder / "x").read_bytes()


MAKERS = {
    "aperio": lambda _: make_svs(
        SlideRecipe(kind="none", height=70, width=60, tile=32, n_levels=2, missing={0: (1,)})
    ),
    "leica": lambda _: make_leica(
        LeicaRecipe(
            width=120, height=100, planes=2,
            fields=(Field(width=40, height=48, left=16, top=8, n_levels=2),),
        )
    ),
    "ome": _ome,
    "philips": lambda _: make_philips(PhilipsRecipe(height=70, width=60, n_levels=2)),
    "qptiff": _qptiff,
}  # fmt: skip


def outcome(path):
    """Open and read a little of everything; the name of the error, if it is one of ours."""
    try:
        slide = zg.open_slide(path)
    except ZarrGPUError as error:
        return type(error).__name__
    result = "ok"
    for level in range(min(slide.level_count, 8)):
        try:
            region = slide.read_region((3, 5), level, (50, 40), device="cpu", options=OPTIONS)
            assert region.shape == (40, 50, slide.channel_count)
        except ZarrGPUError as error:
            result = type(error).__name__
    for image in slide.associated_images.values():
        if np.prod(image.shape) < 1 << 20:
            try:
                image.read(..., device="cpu", options=OPTIONS)
            except ZarrGPUError as error:
                result = type(error).__name__
    return result


def places(data):
    """Ranges of a file that hold directories and XML or other descriptions."""
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        found = [(page.offset, page.offset + 350) for page in tiff.pages]
        for page in tiff.pages:
            tag = page.tags.get("ImageDescription")
            if tag is not None and tag.count > 8:
                # the text of pictures within the XML is not what is damaged here
                end = tag.valueoffset + min(tag.count, 6000)
                found.append((tag.valueoffset, end))
    return found


@pytest.mark.parametrize("vendor", MAKERS)
def test_changed_bytes_give_data_or_a_typed_error(vendor, tmp_path):
    data = MAKERS[vendor](tmp_path)
    path = tmp_path / "slide.tiff"
    rng = np.random.default_rng(len(vendor))
    ranges, seen = places(data), set()
    for _ in range(ROUNDS):
        damaged = bytearray(data)
        for _ in range(rng.integers(1, 4)):
            begin, end = ranges[rng.integers(len(ranges))]
            damaged[min(int(rng.integers(begin, end)), len(data) - 1)] = rng.integers(256)
        path.write_bytes(damaged)
        seen.add(outcome(path))
    assert {"ok", "MetadataError"} <= seen


@pytest.mark.parametrize("vendor", MAKERS)
def test_changed_numbers_of_the_text_give_data_or_a_typed_error(vendor, tmp_path):
    """Sizes and places are numbers in text: each is made 0, huge, negative or no number."""
    data = MAKERS[vendor](tmp_path)
    path = tmp_path / "slide.tiff"
    rng = np.random.default_rng(len(vendor))
    text_ranges = places(data)[len(tifffile.TiffFile(io.BytesIO(data)).pages) :]
    numbers = [
        (begin + found.start(), begin + found.end())
        for begin, end in text_ranges
        for found in re.finditer(rb'(?<=")\d+(?=")', data[begin:end])
    ]
    for at in rng.permutation(len(numbers))[:ROUNDS]:
        begin, end = numbers[at]
        size = end - begin
        new = [b"0" * size, b"9" * size, b"-" + b"1" * (size - 1), b"x" * size][rng.integers(4)]
        path.write_bytes(data[:begin] + new[:size] + data[end:])
        outcome(path)


@pytest.mark.parametrize("vendor", MAKERS)
def test_files_that_are_cut_off_give_data_or_a_typed_error(vendor, tmp_path):
    data = MAKERS[vendor](tmp_path)
    path = tmp_path / "slide.tiff"
    for nbytes in np.linspace(0, len(data) - 1, 40).astype(int):
        path.write_bytes(data[:nbytes])
        outcome(path)
