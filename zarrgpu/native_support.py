"""Which chunks the compiled executor decodes, and which elements it places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from zarrgpu.devices.native import (
    IMAGE_CODECS,
    MAX_AXES,
    SOURCE_TYPES,
    TARGET_TYPES,
    NativeLibrary,
)
from zarrgpu.fetch import ArraySource
from zarrgpu.model import is_native
from zarrgpu.native_images import image_values
from zarrgpu.output import OutputFormat, is_bfloat16

_SWAPPED_NBYTES = (2, 4, 8)


def are_placed(sources: Sequence[ArraySource], output: OutputFormat) -> bool:
    """Whether the executor places elements of these arrays."""
    return all(
        not source.spec.dtype.hasobject
        and source.spec.dtype.itemsize > 0
        and source.spec.ndim <= MAX_AXES
        and (is_native(source.spec.dtype) or swapped_nbytes(source.spec.dtype) in _SWAPPED_NBYTES)
        for source in sources
    ) and (is_plain(sources, output) or _is_convertible(sources, output))


def is_plain(sources: Sequence[ArraySource], output: OutputFormat) -> bool:
    """Whether elements are delivered as they are stored, up to byte order."""
    return all(output.is_plain(source.spec.dtype) for source in sources)


def _is_convertible(sources: Sequence[ArraySource], output: OutputFormat) -> bool:
    return type_name(output.dtype) in TARGET_TYPES and all(
        type_name(source.spec.dtype) in SOURCE_TYPES for source in sources
    )


def type_name(dtype: np.dtype[Any]) -> str:
    """NumPy's name of a type, without its byte order."""
    return dtype.name if is_bfloat16(dtype) else dtype.str[1:]


def is_known(source: ArraySource, library: NativeLibrary) -> bool:
    """Whether the executor decodes chunks of an array."""
    names, _ = codec_names(source)
    if len(names) != 1 or names[0] not in library.codecs or source.chain.object_codec is not None:
        return False
    return names[0] not in IMAGE_CODECS or image_values(source.chain.codecs[0]) is not None


def codec_names(source: ArraySource) -> tuple[list[str], bool]:
    """Codecs of a chunk before its checksum, "bytes" for none, and whether there is a CRC-32C."""
    names = [codec.name for codec in source.chain.codecs]
    has_crc32c = names[-1:] == ["crc32c"]
    return names[: len(names) - has_crc32c] or ["bytes"], has_crc32c


def swapped_nbytes(dtype: np.dtype[Any]) -> int:
    """Size of the numbers whose bytes are reversed; 0 where none are."""
    if is_native(dtype):
        return 0
    return dtype.itemsize // 2 if dtype.kind == "c" else dtype.itemsize * (dtype.kind in "iufmM")


def has_one_fill(output: OutputFormat) -> bool:
    """Whether there is one fill value, not one for each channel: the executor can write it."""
    return output.scale is None or output.scale.size == 1
