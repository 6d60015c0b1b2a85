"""zarrgpu: from a store of image chunks to a training batch on the GPU.

``open`` a Zarr array, an OME-Zarr image or a whole-slide file; read selections, patches or regions
of it as CuPy arrays where there is a GPU and NumPy arrays elsewhere; train with `PatchLoader`.

Each name is imported when it is first used (PEP 562), so that ``import zarrgpu`` costs a few
milliseconds and a program pays only for what it touches.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zarrgpu.array import Array
    from zarrgpu.batches import Batch
    from zarrgpu.chunk_cache import ChunkCache
    from zarrgpu.deepzoom import DeepZoomGenerator
    from zarrgpu.errors import (
        ChunkDecodeError,
        DataError,
        DeviceLostError,
        DeviceUnavailableError,
        MemoryBudgetError,
        MetadataError,
        MissingDependencyError,
        NodeNotFoundError,
        RequestError,
        SelectionError,
        StoreError,
        UnsupportedCodecError,
        UnsupportedFormatError,
        ZarrGPUError,
    )
    from zarrgpu.formats.ngff_schema import Problem
    from zarrgpu.group import Group
    from zarrgpu.hierarchy import UnreadableNode
    from zarrgpu.loader import PatchLoader
    from zarrgpu.magnified_slide import MagnifiedSlide
    from zarrgpu.model import ReadOptions
    from zarrgpu.ome_image import OmeZarrImage
    from zarrgpu.opening import detect_format, open, open_slide
    from zarrgpu.pages import Pages
    from zarrgpu.plate import Plate, Well
    from zarrgpu.regions import read_regions
    from zarrgpu.sampling import GridPatches, PatchTable, RandomPatches
    from zarrgpu.scenes import Scene, Series
    from zarrgpu.slide import Slide
    from zarrgpu.stats import ReadStats
    from zarrgpu.validation import validate

__version__ = "0.1.0"

__all__ = [
    "Array",
    "Batch",
    "ChunkCache",
    "ChunkDecodeError",
    "DataError",
    "DeepZoomGenerator",
    "DeviceLostError",
    "DeviceUnavailableError",
    "GridPatches",
    "Group",
    "MagnifiedSlide",
    "MemoryBudgetError",
    "MetadataError",
    "MissingDependencyError",
    "NodeNotFoundError",
    "OmeZarrImage",
    "Pages",
    "PatchLoader",
    "PatchTable",
    "Plate",
    "Problem",
    "RandomPatches",
    "ReadOptions",
    "ReadStats",
    "RequestError",
    "Scene",
    "SelectionError",
    "Series",
    "Slide",
    "StoreError",
    "UnreadableNode",
    "UnsupportedCodecError",
    "UnsupportedFormatError",
    "Well",
    "ZarrGPUError",
    "__version__",
    "detect_format",
    "open",
    "open_slide",
    "read_regions",
    "validate",
]

_HOMES: dict[str, tuple[str, ...]] = {
    "array": ("Array",),
    "batches": ("Batch",),
    "chunk_cache": ("ChunkCache",),
    "errors": (
        "ChunkDecodeError",
        "DataError",
        "DeviceLostError",
        "DeviceUnavailableError",
        "MemoryBudgetError",
        "MetadataError",
        "MissingDependencyError",
        "NodeNotFoundError",
        "RequestError",
        "SelectionError",
        "StoreError",
        "UnsupportedCodecError",
        "UnsupportedFormatError",
        "ZarrGPUError",
    ),
    "deepzoom": ("DeepZoomGenerator",),
    "group": ("Group",),
    "hierarchy": ("UnreadableNode",),
    "loader": ("PatchLoader",),
    "model": ("ReadOptions",),
    "stats": ("ReadStats",),
    "magnified_slide": ("MagnifiedSlide",),
    "ome_image": ("OmeZarrImage",),
    "opening": ("detect_format", "open", "open_slide"),
    "plate": ("Plate", "Well"),
    "pages": ("Pages",),
    "regions": ("read_regions",),
    "sampling": ("GridPatches", "PatchTable", "RandomPatches"),
    "scenes": ("Scene", "Series"),
    "slide": ("Slide",),
    "formats.ngff_schema": ("Problem",),
    "validation": ("validate",),
}
"""Module and the public names that it defines; tests/test_import.py holds it to `__all__`."""


def __getattr__(name: str) -> Any:
    """Import a public name, or a submodule, on first use."""
    for module, names in _HOMES.items():
        if name in names:
            value = getattr(import_module(f"zarrgpu.{module}"), name)
            globals()[name] = value
            return value
    if name in _HOMES:
        return import_module(f"zarrgpu.{name}")
    msg = f"module 'zarrgpu' has no attribute {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
