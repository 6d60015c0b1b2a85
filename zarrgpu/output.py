"""What elements become on their way into a batch: cast and normalised, the same on every device.

Bit for bit: a normalised element is ``float32(x) * scale[c] + offset[c]`` with the product and the
sum rounded separately, then cast to the output type. Casts are NumPy's, to bfloat16 ml_dtypes':
through float32, to the nearest, ties to even. The CUDA gather computes the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from zarrgpu.errors import MissingDependencyError, SelectionError
from zarrgpu.model import native_dtype
from zarrgpu.symmetries import Turns

_CASTABLE = "biuf"
_INTEGERS = "iu"
_CAST_TARGETS = (np.dtype("f2"), np.dtype("f4"), np.dtype("f8"))


def quiet() -> np.errstate:
    """Let casts overflow to infinity without a warning, as they do on a GPU."""
    return np.errstate(over="ignore", invalid="ignore")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OutputFormat:
    """Element type, normalisation and turns of a read's result.

    Attributes
    ----------
    dtype : numpy.dtype
        Native byte order.
    scale, offset : float32 arrays, shape (1,) or (channels,), or None
        Applied as ``x * scale + offset``; None leaves values as they are.
    channel_axis : int or None
        Array axis that `scale` and `offset` run along.
    turns : Turns or None
        How each box is flipped and turned.
    """

    dtype: np.dtype[Any]
    scale: NDArray[np.float32] | None = None
    offset: NDArray[np.float32] | None = None
    channel_axis: int | None = None
    turns: Turns | None = None

    def is_plain(self, stored: np.dtype[Any]) -> bool:
        """Whether stored elements are taken as they are, up to byte order."""
        return self.scale is None and native_dtype(stored) == self.dtype

    def write(self, src: NDArray[Any], dst: NDArray[Any], channel: int) -> None:
        """Convert `src` into `dst` (same shape); `channel` is the result's channel of its first."""
        src = self.readable(src)
        if self.scale is None or self.offset is None:
            with quiet():
                np.copyto(dst, src, casting="unsafe")
            return
        with quiet():
            values = src.astype(np.float32)
            values *= self._along_channels(self.scale, values, channel)
            values += self._along_channels(self.offset, values, channel)
            np.copyto(dst, values, casting="unsafe")

    def readable(self, src: NDArray[Any]) -> NDArray[Any]:
        """Elements that are cast as on a GPU: ml_dtypes takes a true stored as 2 for 2."""
        if src.dtype.kind == "b" and is_bfloat16(self.dtype):
            return np.asarray(src.view(np.uint8) != 0)
        return src

    def fill(self, value: np.generic, dst: NDArray[Any], channel: int) -> None:
        """Write a fill value, converted as data would be."""
        if dst.dtype.hasobject:  # NumPy would make an array of a list, and cut bytes at their zeros
            cell = np.empty((), dst.dtype)
            cell[()] = value
            dst[...] = cell
            return
        self.write(np.broadcast_to(np.asarray(value), dst.shape), dst, channel)

    def _along_channels(
        self, values: NDArray[np.float32], like: NDArray[Any], channel: int
    ) -> NDArray[np.float32] | np.float32:
        if values.size == 1 or self.channel_axis is None:
            return np.float32(values[0])
        shape = [1] * like.ndim
        shape[self.channel_axis] = like.shape[self.channel_axis]
        return values[channel : channel + shape[self.channel_axis]].reshape(shape)


def output_format(
    stored: np.dtype[Any],
    *,
    dtype: DTypeLike | None = None,
    normalize: tuple[ArrayLike, ArrayLike] | None = None,
    channel_axis: int | None = None,
    channels: int | None = None,
) -> OutputFormat:
    """Check and build an `OutputFormat`.

    Parameters
    ----------
    stored : numpy.dtype
        Of the arrays read.
    dtype : dtype, optional
        Also torch's. Default: the stored one, or float32 when normalising. Another than the stored
        must be float16, bfloat16 (of ml_dtypes, also by its name), float32 or float64, or, where
        nothing is normalised, an integer type that holds every value of the stored integers.
    normalize : (mean, std), optional
        Scalars or one value per channel, in stored units: ``(x - mean) / std``.
    channel_axis, channels : int, optional
        Array axis of the channels and its length in the result.

    Raises
    ------
    SelectionError
        If the conversion is not one that every device does.
    MissingDependencyError
        If bfloat16 is asked for by its name and ml_dtypes is not installed.
    """
    native = native_dtype(stored)
    wanted = _parse_dtype(dtype) if dtype is not None else None
    if wanted is None:
        wanted = native if normalize is None else np.dtype("f4")
    converts = wanted != native or normalize is not None
    real = native.kind in _CASTABLE and native.itemsize <= 8
    # ml_dtypes' real numbers, bfloat16 and the like: all of them fit float32
    real = real or (native.isbuiltin == 2 and np.can_cast(native, np.float32))
    castable = real and (wanted in _CAST_TARGETS or is_bfloat16(wanted))
    if normalize is None and native.kind in "biu" and wanted.kind in _INTEGERS:
        castable = bool(wanted.isnative and np.can_cast(native, wanted))
    if converts and not castable:
        msg = (
            f"cannot deliver {native} as {wanted}{' when normalising' if normalize else ''}: the "
            "result type must be the stored one; float16, bfloat16, float32 or float64 of real "
            "numbers; or an integer type that holds every value of the stored integers"
        )
        raise SelectionError(msg)
    if normalize is None:
        return OutputFormat(dtype=wanted)
    try:
        mean, std = normalize
    except (TypeError, ValueError) as error:
        msg = f"normalize must be (mean, std), got {normalize!r}"
        raise SelectionError(msg) from error
    scale, offset = _scale_and_offset(mean, std)
    if scale.size not in (1, channels):
        msg = f"normalize has {scale.size} values, expected 1 or one per channel ({channels})"
        raise SelectionError(msg)
    return OutputFormat(dtype=wanted, scale=scale, offset=offset, channel_axis=channel_axis)


def is_bfloat16(dtype: np.dtype[Any]) -> bool:
    """Whether a type is ml_dtypes' bfloat16."""
    return dtype.name == "bfloat16"


def _parse_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    if str(dtype).startswith("torch."):  # named as NumPy's are
        dtype = str(dtype).removeprefix("torch.")
    if isinstance(dtype, str) and dtype == "bfloat16":
        try:
            from ml_dtypes import bfloat16
        except ImportError as error:
            msg = "bfloat16 is ml_dtypes', which is not installed: pip install 'zarrgpu[extended]'"
            raise MissingDependencyError(msg) from error
        made: np.dtype[Any] = np.dtype(bfloat16)
        return made
    try:
        return np.dtype(dtype)
    except TypeError as error:
        msg = f"cannot deliver {dtype!r}: {error}"
        raise SelectionError(msg) from error


def _scale_and_offset(
    mean: ArrayLike, std: ArrayLike
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    try:
        means, stds = np.broadcast_arrays(
            np.atleast_1d(np.asarray(mean, np.float64)), np.atleast_1d(np.asarray(std, np.float64))
        )
        with np.errstate(all="ignore"):
            scale, offset = (1.0 / stds).astype(np.float32), (-means / stds).astype(np.float32)
    except (TypeError, ValueError) as error:
        msg = f"normalize needs one mean and one deviation, or one per channel: {error}"
        raise SelectionError(msg) from error
    finite = all(np.isfinite(values).all() for values in (means, stds, scale, offset))
    if means.ndim != 1 or not finite or not (stds > 0).all():
        msg = (
            "normalize needs finite means and positive standard deviations in float32's range, "
            f"got {mean!r}, {std!r}"
        )
        raise SelectionError(msg)
    return scale, offset
