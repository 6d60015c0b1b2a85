"""Which element codecs a device runs: a rule for each, that says how or gives None.

Only what gives NumPy's results bit for bit is run. Left to the host are rounding that a kernel of
ours does not do (most of cast_value), integers that must divide without remainder (scale_offset),
delta that NumPy computes in a third type, complex numbers, and times, whose NaT propagates. Kernels
also give up on chunks with values whose result depends on the machine.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from zarrgpu.codecs.base import Codec
from zarrgpu.codecs.device_elements import (
    Checksum,
    ChecksumStage,
    ElementStage,
    Kernel,
    Unchanged,
    element_columns,
    transpose_columns,
    unshuffle,
)
from zarrgpu.devices.element_types import element_type, swap_nbytes
from zarrgpu.devices.tables import ChecksumKind

Rule = Callable[[Any, int], ElementStage | None]

_MAX_KERNEL_NBYTES = (1 << 31) - 1
_MAX_TYPESIZE = 255

_CHECKSUMS = {
    "crc32c": ChecksumKind.CRC32C,
    "crc32c_start": ChecksumKind.CRC32C,
    "crc32": ChecksumKind.CRC32,
    "adler32": ChecksumKind.ADLER32,
    "fletcher32": ChecksumKind.FLETCHER32,
}


def checksum_of(codec: Codec) -> Checksum | None:
    """Checksum that a codec verifies; None if it does something else."""
    kind = _CHECKSUMS.get(codec.name)
    if kind is None:
        return None
    return Checksum(kind, at_start=getattr(codec, "location", "end") == "start")


def element_stage(codec: Codec, nbytes: int) -> ElementStage | None:
    """Stage of a codec that decodes to `nbytes` bytes; None if no device can run it."""
    checksum = checksum_of(codec)
    if checksum is not None:
        return ChecksumStage(checksum, nbytes)
    rule = _RULES.get(codec.name)
    return None if rule is None or nbytes <= 0 else rule(codec, nbytes)


def _unchanged(codec: Any, nbytes: int) -> ElementStage:
    del codec
    return Unchanged(nbytes)


def _shuffle(codec: Any, nbytes: int) -> ElementStage | None:
    size = codec.elementsize
    if size <= 1:
        return Unchanged(nbytes)
    if size > _MAX_TYPESIZE or nbytes % size or nbytes > _MAX_KERNEL_NBYTES:
        return None
    return unshuffle(nbytes, size)


def _columns(codec: Any, nbytes: int) -> dict[str, int] | None:
    count, rest = divmod(nbytes, codec.dtype.itemsize)
    return None if rest else element_columns(codec.encoded_dtype, codec.dtype, count)


def _delta(codec: Any, nbytes: int) -> ElementStage | None:
    columns = _columns(codec, nbytes)
    encoded, decoded = codec.encoded_dtype, codec.dtype
    if columns is None or not np.can_cast(encoded, decoded, "same_kind"):
        return None
    computed = np.result_type(encoded, decoded)  # NumPy adds in the type that holds both
    if encoded.kind in "iu" and decoded.kind in "iu" and computed.kind in "iu":
        return Kernel("delta", nbytes, columns, scratch="sums")
    if encoded.kind == "f" and decoded.kind == "f" and computed == decoded.newbyteorder("="):
        return Kernel("delta_floats", nbytes, columns)
    return None


def _cast(codec: Any, nbytes: int) -> ElementStage | None:
    if codec.encoded_dtype == codec.dtype:
        return Unchanged(nbytes)
    return _convert(codec, nbytes, {"divisor": 1.0, "addend": 0.0, "scaled": 0})


def _convert(codec: Any, nbytes: int, scaling: dict[str, float]) -> ElementStage | None:
    columns = _columns(codec, nbytes)
    return None if columns is None else Kernel("convert", nbytes, {**columns, **scaling})


def _scaling(codec: Any, computed: np.dtype[Any]) -> dict[str, float] | None:
    """Scale and offset as values of the type that is computed in; None if these are no numbers."""
    with np.errstate(all="ignore"):
        divisor, addend = (float(computed.type(float(v))) for v in (codec.scale, codec.offset))
    if not np.isfinite(divisor) or not np.isfinite(addend):
        return None
    return {"divisor": divisor, "addend": addend, "scaled": 1}


def _fixedscaleoffset(codec: Any, nbytes: int) -> ElementStage | None:
    native = codec.encoded_dtype.newbyteorder("=")
    scaling = _scaling(codec, native if native.kind == "f" else np.dtype(np.float64))
    return None if scaling is None else _convert(codec, nbytes, scaling)


def _scale_offset(codec: Any, nbytes: int) -> ElementStage | None:
    native = codec.dtype.newbyteorder("=")
    if native.kind != "f" or codec.encoded_dtype.newbyteorder("=") != native:
        return None
    return _fixedscaleoffset(codec, nbytes)


def _cast_value(codec: Any, nbytes: int) -> ElementStage | None:
    """Where no value is rounded, out of range or replaced, by their types alone."""
    encoded, decoded = codec.encoded_dtype, codec.dtype
    to_float = decoded.kind == "f" and encoded.itemsize < decoded.itemsize
    widens = encoded.kind in "iu" and np.can_cast(encoded, decoded, "safe")
    if codec.scalar_map or not widens or (decoded.kind not in "iu" and not to_float):
        return None
    return _cast(codec, nbytes)


def _packbits(codec: Any, nbytes: int) -> ElementStage | None:
    width = codec.component_bits // 8
    if codec.bit_order == "big" and codec.packed_bits != 1:
        return None
    if width > 8 or nbytes % width:
        return None
    count = nbytes // width
    packed_nbytes = -(-count * codec.packed_bits // 8)
    columns = {
        "n": count, "source_nbytes": packed_nbytes, "target_nbytes": nbytes, "width": width,
        "packed_bits": codec.packed_bits, "first_bit": codec.first_bit,
        "sign_bits": codec.value_bits if codec.signed else 0, "big": codec.bit_order == "big",
    }  # fmt: skip
    first = codec.padding == "first_byte"
    if codec.padding != "none":  # from the first byte of what is read
        columns["padding"] = 0 if first else packed_nbytes
    return Kernel("unpack_bits", nbytes, columns, skip_nbytes=int(first))


def _tiff_predictor(codec: Any, nbytes: int) -> ElementStage | None:
    itemsize = codec.dtype.itemsize
    rows, rest = divmod(nbytes, codec.width * codec.samples * itemsize)
    if rest or nbytes > _MAX_KERNEL_NBYTES or itemsize not in (1, 2, 4, 8):
        return None
    columns = {
        "rows": rows, "width": codec.width, "samples": codec.samples, "itemsize": itemsize,
        "predictor": codec.predictor, "swap": not codec.dtype.isnative, "source_nbytes": nbytes,
        "target_nbytes": nbytes,
    }  # fmt: skip
    return Kernel("predictor", nbytes, columns)


def _tiff_bits(codec: Any, nbytes: int) -> ElementStage | None:
    n = nbytes // (1 if codec.bits < 8 else 2)
    if n % codec.row_samples or nbytes > _MAX_KERNEL_NBYTES:
        return None
    packed_nbytes = codec.encoded_nbytes(nbytes)
    return _samples(nbytes, packed_nbytes, n=n, row_samples=codec.row_samples, bits=codec.bits)


def _tiff_fill_order(codec: Any, nbytes: int) -> ElementStage | None:
    del codec
    if nbytes > _MAX_KERNEL_NBYTES:
        return None
    return _samples(nbytes, nbytes, n=nbytes, row_samples=nbytes, bits=8, reversed=1)


def _samples(nbytes: int, packed_nbytes: int, **columns: int) -> Kernel:
    sizes = {"source_nbytes": packed_nbytes, "target_nbytes": nbytes}
    return Kernel("unpack_samples", nbytes, {"reversed": 0, **sizes, **columns})


def _transpose(codec: Any, nbytes: int) -> ElementStage | None:
    encoded, decoded = codec.encoded_dtype, codec.dtype
    if element_type(decoded) is None or encoded.kind != decoded.kind:
        return None
    if nbytes != decoded.itemsize * int(np.prod(codec.shape, dtype=np.int64)):
        return None
    swap = swap_nbytes(encoded) ^ swap_nbytes(decoded)  # both or neither: as it is
    if swap and decoded.kind not in "iufcmM":
        return None
    columns = transpose_columns(codec.shape, codec.order, decoded.itemsize, swap)
    return None if columns is None else Kernel("transpose", nbytes, columns)


_RULES: dict[str, Rule] = {
    "astype": _cast,
    "bitround": _unchanged,
    "cast_value": _cast_value,
    "delta": _delta,
    "fixedscaleoffset": _fixedscaleoffset,
    "packbits": _packbits,
    "quantize": _cast,
    "reshape": _unchanged,
    "scale_offset": _scale_offset,
    "shuffle": _shuffle,
    "tiff_bits": _tiff_bits,
    "tiff_fill_order": _tiff_fill_order,
    "tiff_predictor": _tiff_predictor,
    "transpose": _transpose,
}
"""Codec -> rule."""
