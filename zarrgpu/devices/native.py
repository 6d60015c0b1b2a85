"""The compiled host executor: where its library is, and how a plan is told to it.

Sources: ``kernels/host/*.cpp``, compiled when the package is built, where there is a C++ compiler.
Codecs are not linked: their functions are found in the shared libraries that numcodecs and
imagecodecs bring. Without the library the same reads run in Python, with the same results.
"""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

LIBRARY: Final = Path(__file__).parents[1] / "libzarrgpu_host.so"

NOT_DONE, DONE, ABSENT = 0, 1, 2
"""Status of a chunk (``Status`` in tables.h)."""

CODEC_NUMBERS: Final = MappingProxyType(
    {
        "unknown": -1,
        "bytes": 0,
        "zstd": 1,
        "blosc": 2,
        "lz4": 3,
        "zlib": 4,
        "gzip": 5,
        "jpeg": 6,
        "jpeg2k": 7,
    }
)
"""``Codec`` in tables.h, by our codecs' names."""

IMAGE_CODECS: Final = frozenset({"jpeg", "jpeg2k"})
"""Those of them whose chunks are images."""

SOURCE_TYPES: Final = MappingProxyType(
    {"u1": 0, "i1": 1, "u2": 2, "i2": 3, "f4": 4, "i4": 5, "u4": 6}
)
TARGET_TYPES: Final = MappingProxyType(
    {"f4": 1, "f2": 2, "bfloat16": 3, "i2": 4, "u2": 4, "i4": 5, "u4": 5, "i8": 6, "u8": 6}
)
"""``Source`` and ``Target`` in convert.h, by NumPy's names of types."""

_FUNCTIONS: Final = (
    ("ZSTD_createDCtx", "zstd"),
    ("ZSTD_freeDCtx", "zstd"),
    ("ZSTD_decompressDCtx", "zstd"),
    ("ZSTD_decompressStream", "zstd"),
    ("ZSTD_DCtx_setParameter", "zstd"),
    ("ZSTD_DCtx_reset", "zstd"),
    ("blosc_decompress_ctx", "blosc"),
    ("blosc_getitem", "blosc"),
    ("LZ4_decompress_safe", "lz4"),
    ("libdeflate_alloc_decompressor", "deflate"),
    ("libdeflate_free_decompressor", "deflate"),
    ("libdeflate_zlib_decompress_ex", "deflate"),
    ("libdeflate_gzip_decompress_ex", "deflate"),
)
"""``Libraries`` in codecs.h: what each field points to, and the library that has it."""

_JPEG_FUNCTIONS: Final = (
    "jpeg_std_error",
    "jpeg_CreateDecompress",
    "jpeg_destroy_decompress",
    "jpeg_mem_src",
    "jpeg_read_header",
    "jpeg_start_decompress",
    "jpeg_read_scanlines",
    "jpeg_skip_scanlines",
)
"""``JpegLibrary`` in jpeg.h: what each field points to."""

_KINDS: Final = MappingProxyType(
    {
        "zstd": "zstd",
        "blosc": "blosc",
        "lz4": "lz4",
        "zlib": "deflate",
        "gzip": "deflate",
        "jpeg": "jpeg",
    }
)
"""Library that a codec needs, all functions of it."""


# Structures of fields of eight bytes, numbers and addresses: a table is an int64 array of them.
ARRAY: Final = (
    *("codec", "has_crc32c", "itemsize", "source_type", "swap_nbytes", "decoded_nbytes"),
    *(
        "limit_nbytes",
        "object_nbytes",
        "absent_is_fill",
        "root",
        "chunk_shape",
        "axis_order",
        "fill",
        "image",
    ),
)
IMAGE: Final = (
    *("height", "width", "samples", "color_space", "out_color_space", "tables_nbytes", "tables"),
)
PIECES: Final = ("count", "owner", "output", "src", "dst", "extent")
PLAN: Final = (
    *("ndim", "arrays", "num_reads", "read_array", "read_offset", "read_nbytes"),
    *("read_chunk_start", "read_key", "keys", "chunk_array", "chunk_offset", "chunk_nbytes"),
    *("chunk_direct", "chunk_piece_start", "window_whole", "window_start", "window_nbytes"),
    *("window_shape", "num_chunks", "chunk_memory", "chunk_held", "chunk_status"),
    *(f"pieces_{name}" for name in PIECES),
    *(f"fills_{name}" for name in PIECES),
    *("out", "out_strides", "turns", "turn_strides", "step", "out_itemsize", "target_type"),
    *("n_channels", "scale", "offset", "channel_axis", "streams", "next_read", "fetched_nbytes"),
)
LIBRARIES: Final = tuple(name for name, _ in _FUNCTIONS)
JPEG_LIBRARY: Final = _JPEG_FUNCTIONS
RESAMPLING: Final = (
    *("source", "source_type", "width", "channels", "row_first", "row_weight", "rows", "row_taps"),
    *("column_first", "column_weight", "columns", "column_taps", "top", "bottom", "left", "right"),
    *("target", "stride_y", "stride_x", "stride_c", "to_float", "fill"),
)
MAX_AXES: Final = 32


def address(array: NDArray[Any] | None) -> int:
    """Where an array's elements are; 0 for None. The caller keeps the array."""
    return 0 if array is None else int(array.__array_interface__["data"][0])


class NativeLibrary:
    """The loaded library, and the codecs that it found functions for."""

    def __init__(self, path: Path) -> None:
        self._library = library = ctypes.CDLL(str(path))
        self.drain = _function(library, "zarrgpu_drain", ctypes.c_int64, 2)
        self.run_bytes = _function(library, "zarrgpu_run_bytes", None, 4)
        self.run_held = _function(library, "zarrgpu_run_held", ctypes.c_int64, 2)
        self.place = _function(library, "zarrgpu_place", None, 3)
        self.fill = _function(library, "zarrgpu_fill", None, 1)
        self.sizes = _function(library, "zarrgpu_sizes", ctypes.c_int64, 1)
        self.resample = _function(library, "zarrgpu_resample", None, 1)
        self.crc32c = _function(library, "zarrgpu_crc32c", ctypes.c_int64, 3)
        self.decode_image = _function(library, "zarrgpu_decode_image", ctypes.c_int64, 9)
        self._jpeg_warns = _function(library, "zarrgpu_jpeg_warns", ctypes.c_int64, 4)
        self.half_bits = _function(library, "zarrgpu_half_bits", ctypes.c_int64, 1)
        functions = [_address_of(name, _candidates(kind)) for name, kind in _FUNCTIONS]
        self._table = np.array(functions, np.int64)
        _function(library, "zarrgpu_use_libraries", None, 1)(address(self._table))
        lacking = {kind for (_, kind), at in zip(_FUNCTIONS, functions, strict=True) if not at}
        found = [_address_of(name, _candidates("jpeg")) for name in _JPEG_FUNCTIONS]
        self._jpeg_table = np.array(found, np.int64)
        use_jpeg = _function(library, "zarrgpu_use_jpeg_library", ctypes.c_int64, 1)
        if not use_jpeg(address(self._jpeg_table)):
            lacking.add("jpeg")
        self.codecs = frozenset(
            name
            for name, number in CODEC_NUMBERS.items()
            if number >= 0 and _KINDS.get(name) not in lacking
        )

    def decode_jpeg(
        self, data: bytes, shape: tuple[int, int, int], spaces: tuple[int, int], out: NDArray[Any]
    ) -> bool:
        """Decode a plain JPEG stream into `out`, C-contiguous uint8; False if it is left alone.

        Parameters are those of `jpeg_warns`.
        """
        source, none = np.frombuffer(data, np.uint8), np.zeros(1, np.uint8)
        image = np.array((*shape, *spaces, 0, address(none)), np.int64)
        place = (0, shape[0], 0, shape[1])
        arguments = (address(image), CODEC_NUMBERS["jpeg"], address(source), source.size, *place)
        return bool(self.decode_image(*arguments, address(out)))

    def jpeg_warns(
        self, data: bytes, shape: tuple[int, int, int], spaces: tuple[int, int], tables: bytes
    ) -> bool:
        """Whether libjpeg warns of the data of a stream, which it then completes by guessing.

        Parameters
        ----------
        data : bytes
            With a header that was looked at.
        shape : (int, int, int)
            Rows, width and samples.
        spaces : (int, int)
            J_COLOR_SPACE of the stream and of the result; 0 leaves it to libjpeg.
        tables : bytes
        """
        source, shared = np.frombuffer(data, np.uint8), np.frombuffer(tables or b"\0", np.uint8)
        values = (*shape, *spaces, len(tables), address(shared))
        image, scratch = np.array(values, np.int64), np.empty(shape, np.uint8)
        arguments = (address(image), address(source), source.size, address(scratch))
        return bool(self._jpeg_warns(*arguments))


def _function(
    library: ctypes.CDLL, name: str, result: Any, num_arguments: int
) -> Callable[..., int]:
    function = getattr(library, name)
    function.restype, function.argtypes = result, [ctypes.c_int64] * num_arguments
    return function  # type: ignore[no-any-return]


@cache
def native_library() -> NativeLibrary | None:
    """Return the library; None where it was not compiled or cannot be loaded (see the doctor)."""
    try:
        return NativeLibrary(LIBRARY)
    except (OSError, AttributeError):
        return None


def jpeg_library() -> NativeLibrary | None:
    """Return the library where it can ask libjpeg."""
    library = native_library()
    return library if library is not None and "jpeg" in library.codecs else None


@cache
def _opened(path: str) -> ctypes.CDLL:
    return ctypes.CDLL(path)


def _address_of(name: str, paths: Iterator[str]) -> int:
    """Address of a function in the first library that has it; 0 where none does."""
    for path in paths:
        try:
            function = getattr(_opened(path), name)
        except (OSError, AttributeError):
            continue
        return ctypes.cast(function, ctypes.c_void_p).value or 0
    return 0


def _candidates(kind: str) -> Iterator[str]:
    """Shared libraries that may hold a codec: extension modules of numcodecs export theirs."""
    for package, folder, pattern in (
        ("numcodecs", "numcodecs", f"{kind}.*.so"),
        ("imagecodecs", "imagecodecs.libs", f"lib{kind}[-.]*.so*"),
    ):
        try:
            spec = importlib.util.find_spec(package)
        except (ImportError, ValueError):
            continue
        for place in (spec.submodule_search_locations if spec else None) or ():
            found = (Path(place).parent / folder).glob(pattern)
            yield from sorted(map(str, found))
