"""zarrgpu: from a store of image chunks to a training batch on the GPU.

``open`` a Zarr array, an OME-Zarr image or a whole-slide file; read selections, patches or regions of it
as CuPy arrays where there is a GPU and NumPy arrays elsewhere; train with `PatchLoader`.
"""

from zarrgpu.array import Array
from zarrgpu.errors import (
    ChunkDecodeError,
    DataError,
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
from zarrgpu.group import Group
from zarrgpu.loader import Batch, PatchLoader
from zarrgpu.model import ReadOptions
from zarrgpu.opening import open, open_slide  # noqa: A004 - the name users of zarr expect
from zarrgpu.sampling import GridPatches, PatchTable, RandomPatches
from zarrgpu.slide import Slide

__version__ = "0.1.0"

__all__ = [
    "Array",
    "Batch",
    "ChunkDecodeError",
    "DataError",
    "DeviceUnavailableError",
    "GridPatches",
    "Group",
    "MemoryBudgetError",
    "MetadataError",
    "MissingDependencyError",
    "NodeNotFoundError",
    "PatchLoader",
    "PatchTable",
    "RandomPatches",
    "ReadOptions",
    "RequestError",
    "SelectionError",
    "Slide",
    "StoreError",
    "UnsupportedCodecError",
    "UnsupportedFormatError",
    "ZarrGPUError",
    "__version__",
    "open",
    "open_slide",
]
