"""nvCOMP's batched C interface through ctypes, for the releases 5.x and 6.x.

Source: the headers in the wheels ``nvidia-libnvcomp-cu13`` 5.3 and 6.0 (nvcomp/zstd.h, crc32.h,
shared_types.h). The library loads, and answers its host-only queries, on a machine without a GPU.
Between the two releases one function differs: ``...DecompressGetTempSizeAsync`` (5 arguments)
became ``...DecompressGetTempSize`` (6, with a stream).
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from zarrgpu.devices.wheels import find_libraries, load_first, open_library
from zarrgpu.errors import DeviceUnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zarrgpu.devices.requests import ChecksumBatch, DecompressBatch, LibraryFormat

FORMATS: Final[Mapping[LibraryFormat, str]] = MappingProxyType(
    {"zstd": "Zstd", "lz4": "LZ4", "snappy": "Snappy", "deflate": "Deflate", "gzip": "Gzip"}
)
"""Our name of each format and nvCOMP's."""

_STATUS_NAMES: Final[Mapping[int, str]] = MappingProxyType(
    {
        0: "success",
        10: "invalid value",
        11: "not supported",
        12: "cannot decompress",
        13: "bad checksum",
        14: "cannot verify checksums",
        15: "output buffer too small",
        16: "wrong header length",
        17: "alignment",
        18: "chunk size too large",
        19: "cannot compress",
        20: "wrong input length",
        21: "batch size too large",
        1000: "CUDA error",
        10000: "internal error",
    }
)

_SONAMES = ("libnvcomp.so.6", "libnvcomp.so.5")
_FOLDERS = ("libnvcomp/lib64", "libnvcomp/lib", "nvcomp/lib64", "nvcomp")
_CRC32C = (0x1EDC6F41, 0xFFFFFFFF, True, True, 0xFFFFFFFF)
_ONLY_SEGMENT = 0


def status_name(status: int) -> str:
    """Words for an ``nvcompStatus_t``.

    >>> status_name(12)
    'cannot decompress'
    """
    return _STATUS_NAMES.get(status, f"status {status}")


class DecompressOptions(ctypes.Structure):
    """Any ``nvcompBatched*DecompressOpts_t``: 64 bytes, zero is the default of every format."""

    _fields_ = (("words", ctypes.c_int32 * 16),)


class Alignments(ctypes.Structure):
    """``nvcompAlignmentRequirements_t``."""

    _fields_ = (("input", ctypes.c_size_t), ("output", ctypes.c_size_t), ("temp", ctypes.c_size_t))


class Properties(ctypes.Structure):
    """``nvcompProperties_t``."""

    _fields_ = (("version", ctypes.c_uint32), ("cudart_version", ctypes.c_uint32))


class Crc32Spec(ctypes.Structure):
    """``nvcompCRC32Spec_t``, 32 bytes."""

    _fields_ = (
        ("poly", ctypes.c_uint32),
        ("init", ctypes.c_uint32),
        ("ref_in", ctypes.c_bool),
        ("ref_out", ctypes.c_bool),
        ("xorout", ctypes.c_uint32),
        ("reserved", ctypes.c_char * 16),
    )


class Crc32KernelConf(ctypes.Structure):
    """``nvcompCRC32KernelConf_t``, 32 bytes."""

    _fields_ = (
        ("kernel_kind", ctypes.c_int),
        ("bytes_per_read", ctypes.c_int32),
        ("blocks_per_msg", ctypes.c_int32),
        ("reserved", ctypes.c_char * 20),
    )


class Crc32Options(ctypes.Structure):
    """``nvcompBatchedCRC32Opts_t``, 128 bytes."""

    _fields_ = (
        ("spec", Crc32Spec),
        ("kernel_conf", Crc32KernelConf),
        ("reserved", ctypes.c_char * 64),
    )


@dataclass(frozen=True, slots=True)
class _Decoder:
    decompress: ctypes._NamedFuncPointer
    temp_size: ctypes._NamedFuncPointer
    alignments: ctypes._NamedFuncPointer


class NvComp:
    """A loaded nvCOMP.

    Parameters
    ----------
    path : str
        Shared library, or its name for the system's loader.

    Raises
    ------
    DeviceUnavailableError
        If it does not load, or is older than 5.0 or lacks a function.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._library = open_library("nvcomp", path)
        try:
            self._bind()
        except AttributeError as error:
            msg = f"nvcomp: {path} lacks a function ({error}); install nvidia-nvcomp 5.0 or newer"
            raise DeviceUnavailableError(msg) from error

    def _bind(self) -> None:
        properties = Properties()
        query = _function(self._library, "nvcompGetProperties", ctypes.c_void_p)
        _check("nvcompGetProperties", query(ctypes.byref(properties)))
        self.version = (properties.version // 1000, properties.version // 100 % 10)
        self._decoders = {name: self._bind_decoder(theirs) for name, theirs in FORMATS.items()}
        pointer, size = ctypes.c_void_p, ctypes.c_size_t
        self._crc32 = _function(
            self._library, "nvcompBatchedCRC32Async",
            pointer, pointer, size, pointer, Crc32Options, ctypes.c_int, pointer, pointer,
        )  # fmt: skip
        self._crc32_heuristic = _function(
            self._library, "nvcompBatchedCRC32GetHeuristicConf",
            pointer, size, pointer, size, pointer,
        )  # fmt: skip

    def _bind_decoder(self, theirs: str) -> _Decoder:
        prefix = f"nvcompBatched{theirs}Decompress"
        pointer, size = ctypes.c_void_p, ctypes.c_size_t
        sizing = (size, size, DecompressOptions, pointer, size)
        if self.version >= (6, 0):
            temp_size = _function(self._library, f"{prefix}GetTempSize", *sizing, pointer)
        else:
            temp_size = _function(self._library, f"{prefix}GetTempSizeAsync", *sizing)
        decompress = _function(
            self._library, f"{prefix}Async",
            pointer, pointer, pointer, pointer, size, pointer, size, pointer,
            DecompressOptions, pointer, pointer,
        )  # fmt: skip
        alignments = _function(
            self._library, f"{prefix}GetRequiredAlignments", DecompressOptions, pointer
        )
        return _Decoder(decompress, temp_size, alignments)

    def alignments(self, library_format: LibraryFormat) -> Alignments:
        """Query the required alignments in bytes of input, output and temporary memory."""
        result = Alignments()
        status = self._decoders[library_format].alignments(
            DecompressOptions(), ctypes.byref(result)
        )
        _check(f"nvcomp {library_format} alignments", status)
        return result

    def temp_nbytes(
        self,
        library_format: LibraryFormat,
        n_chunks: int,
        max_target_nbytes: int,
        total_target_nbytes: int,
        stream: int = 0,
    ) -> int:
        """Query the temporary device memory for a batch."""
        result = ctypes.c_size_t()
        args = [
            n_chunks,
            max_target_nbytes,
            DecompressOptions(),
            ctypes.byref(result),
            total_target_nbytes,
        ]
        if self.version >= (6, 0):
            args.append(stream)
        status = self._decoders[library_format].temp_size(*args)
        _check(f"nvcomp {library_format} temporary size", status)
        return result.value

    def decompress(
        self,
        library_format: LibraryFormat,
        batch: DecompressBatch,
        temp: int,
        temp_nbytes: int,
        stream: int,
    ) -> None:
        """Queue the decoding of a batch on a ``cudaStream_t``."""
        status = self._decoders[library_format].decompress(
            batch.sources, batch.source_nbytes, batch.target_nbytes, batch.decoded_nbytes,
            batch.n_chunks, temp, temp_nbytes, batch.targets,
            DecompressOptions(), batch.statuses, stream,
        )  # fmt: skip
        _check(f"nvcomp {library_format} on {batch.n_chunks} chunks", status)

    def crc32c(self, batch: ChecksumBatch, stream: int) -> None:
        """Queue the CRC-32C of a batch on a ``cudaStream_t``."""
        options = Crc32Options(spec=Crc32Spec(*_CRC32C))
        # With the size given, this does not wait for the device.
        status = self._crc32_heuristic(
            None, batch.n_chunks, ctypes.byref(options.kernel_conf),
            max(batch.max_source_nbytes, 1), stream,
        )  # fmt: skip
        _check("nvcomp crc32 configuration", status)
        status = self._crc32(
            batch.sources, batch.source_nbytes, batch.n_chunks, batch.checksums, options,
            _ONLY_SEGMENT, batch.statuses, stream,
        )  # fmt: skip
        _check(f"nvcomp crc32 on {batch.n_chunks} chunks", status)


@cache
def load_nvcomp() -> NvComp:
    """Load the newest nvCOMP of this environment: the wheels first, then the system."""
    return load_first(NvComp, _candidates(), "nvcomp is needed to decode")


def _candidates() -> list[str]:
    """Where nvCOMP may be: nvidia/libnvcomp since 5.1, nvidia/nvcomp before."""
    return find_libraries(_SONAMES, _FOLDERS)


def _function(
    library: ctypes.CDLL, name: str, *argument_types: type[ctypes._CDataType]
) -> ctypes._NamedFuncPointer:
    function = library[name]
    function.restype = ctypes.c_int
    function.argtypes = argument_types
    return function


def _check(what: str, status: int) -> None:
    if status:
        msg = f"{what}: {status_name(status)}"
        raise DeviceUnavailableError(msg)
