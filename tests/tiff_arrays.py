"""TIFFs in memory, written by tifffile, and their pages as arrays read through the whole path."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import tifffile

from tests.zarr_cases import MemoryStore
from zarrgpu.array import Array
from zarrgpu.formats.tiff import TiffPage, page_to_array_spec, read_tiff
from zarrgpu.opening import array_source

KEY = "t.tif"


def pages(data: bytes) -> tuple[TiffPage, ...]:
    return read_tiff(lambda at, n: data[at : at + n], len(data), source=KEY)


def page_array(data: bytes, page: TiffPage | int = 0) -> Array:
    """A page as `zarrgpu.open` makes it."""
    page = pages(data)[page] if isinstance(page, int) else page
    return Array(array_source(MemoryStore({KEY: data}), page_to_array_spec(page, key=KEY)))


def write(image: np.ndarray, *, byteorder: str = "<", big: bool = False, **options: Any) -> bytes:
    """One page of an image (y, x) or (y, x, c), however the file is to store its planes."""
    file = io.BytesIO()
    options = {"photometric": "minisblack", "metadata": None, "software": False} | options
    if options.get("planarconfig") == "separate":
        image = np.moveaxis(image, -1, 0)
    with tifffile.TiffWriter(file, bigtiff=big, byteorder=byteorder) as writer:
        writer.write(image, **options)
    return file.getvalue()


def ramp(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Values over the whole range of a dtype, no row like another."""
    rng = np.random.default_rng(5)
    kind = np.dtype(dtype)
    if kind.kind == "b":
        return rng.integers(0, 2, shape).astype(bool)
    if kind.kind == "c":
        return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(kind)
    if kind.kind == "f":
        return (rng.standard_normal(shape) * 1000).astype(kind)
    info = np.iinfo(kind)
    return rng.integers(info.min, info.max, shape, kind, endpoint=True)


def segments(data: bytes, page: int = 0) -> list[tuple[int, int]]:
    """Offset and size of every chunk, by tifffile."""
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        found = tiff.pages[page]
        return list(zip(found.dataoffsets, found.databytecounts, strict=True))


def decoded(data: bytes, page: int = 0) -> np.ndarray:
    """What tifffile makes of a page, as (y, x, c)."""
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        found = tiff.pages[page]
        image = found.asarray()
        if found.samplesperpixel == 1:
            return image[..., None]
        return np.moveaxis(image, 0, -1) if found.planarconfig == 2 else image
