"""nibabel: images whose data stay where they are until they are sliced.

`ArrayProxy` has the protocol of nibabel's array proxies (https://nipy.org/nibabel/devel/biaps and
``nibabel.arrayproxy``), over any array or slide level, so that ``nibabel.Nifti1Image(proxy,
affine)`` reads only what ``img.dataobj[...]`` or ``img.slicer[...]`` asks for. `to_nibabel` makes
the image of what carries a NIfTI header, with that header.

As in nibabel, what a proxy gives is scaled, ``slope * stored + inter``, where the header says so;
`ArrayProxy.get_unscaled` and zarrgpu's own arrays give what is stored.
"""

from __future__ import annotations

import io
import math
import operator
from collections.abc import Sequence
from typing import Any, Final, Self

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from zarrgpu.array import Array
from zarrgpu.errors import MissingDependencyError, SelectionError, UnsupportedFormatError
from zarrgpu.formats.nifti_header import HEADER_NBYTES
from zarrgpu.nifti import has_nifti_header, header_bytes, nifti_header
from zarrgpu.slide import Slide

NIFTI_AXES: Final = ("x", "y", "z", "t", "c")
"""Order in which the axes of a `Slide` become those of an image; missing ones have length 1."""

_MAGIC_AT: Final = {1: slice(344, 348), 2: slice(4, 8)}


class ArrayProxy:
    """An array as nibabel's images take it.

    Slicing takes integers, slices of any step, ``...`` and None, as nibabel's own proxies do. Data
    come as NumPy arrays in native byte order. Safe for threads; may be pickled.

    Parameters
    ----------
    array : Array
    axes : sequence of (int or None), optional
        Which axis of `array` each axis of the proxy is; None is an axis of length 1. Those of
        `array` that are left out must have length 1. Default: all as they are.
    slope, inter : float or None
        Scaling; None for none. Default: what the array's NIfTI header says, if it has one.
    """

    def __init__(
        self,
        array: Array,
        *,
        axes: Sequence[int | None] | None = None,
        slope: float | None = None,
        inter: float | None = None,
    ) -> None:
        self.array = array
        self.axes = tuple(range(array.ndim)) if axes is None else tuple(axes)
        named = [axis for axis in self.axes if axis is not None]
        rest = {axis for axis, size in enumerate(array.shape) if size != 1 and axis not in named}
        if len(set(named)) != len(named) or not set(named) <= set(range(array.ndim)) or rest:
            msg = f"axes {self.axes} do not name the axes of shape {array.shape} once each"
            raise ValueError(msg)
        if slope is None and inter is None and has_nifti_header(array):
            header = nifti_header(array)
            slope, inter = header.scl_slope, header.scl_inter
        self.slope = 1.0 if slope is None else float(slope)
        self.inter = 0.0 if inter is None else float(inter)

    @classmethod
    def of_level(cls, slide: Slide, level: int = 0) -> Self:
        """Proxy of a level, axes ``(x, y, z, t, c)`` as far as the slide has them.

        Scaled as its NIfTI header says, if it is a NIfTI-Zarr image.
        """
        unknown = set(slide.axes) - set(NIFTI_AXES)
        if unknown:
            msg = f"{slide.spec.source!r} has axes {slide.axes}; an image has only {NIFTI_AXES}"
            raise UnsupportedFormatError(msg)
        last = max(NIFTI_AXES.index(axis) for axis in slide.axes)
        names = NIFTI_AXES[: max(last + 1, 3)]
        axes = [slide.axes.index(name) if name in slide.axes else None for name in names]
        header = nifti_header(slide) if has_nifti_header(slide) else None
        return cls(
            slide.levels[level],
            axes=axes,
            slope=None if header is None else header.scl_slope,
            inter=None if header is None else header.scl_inter,
        )

    def __repr__(self) -> str:
        source = self.array.spec.source
        return f"<zarrgpu ArrayProxy {source!r} shape={self.shape} dtype={self.dtype}>"

    @property
    def is_proxy(self) -> bool:
        """True: how nibabel knows a proxy."""
        return True

    @property
    def shape(self) -> tuple[int, ...]:
        """Elements per axis."""
        return tuple(1 if axis is None else self.array.shape[axis] for axis in self.axes)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.axes)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Stored type, in native byte order; scaling may widen it."""
        return self.array.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, slicer: Any) -> NDArray[Any]:
        """Read a part, scaled."""
        return self._scaled(slicer, None)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:  # noqa: FBT001
        """Read all, scaled, as `dtype`."""
        if copy is False:
            msg = "reading a stored array always makes a copy"
            raise ValueError(msg)
        whole = self._scaled((), None if dtype is None else np.dtype(dtype))
        return whole if dtype is None else whole.astype(dtype, copy=False)

    def get_scaled(self, dtype: DTypeLike | None = None) -> NDArray[Any]:
        """Read all, scaled, in `dtype` or a wider type where that cannot hold the values."""
        return self._scaled((), None if dtype is None else np.dtype(dtype))

    def get_unscaled(self) -> NDArray[Any]:
        """Read all as it is stored."""
        return self.read_unscaled(())

    def read_unscaled(self, slicer: Any) -> NDArray[Any]:
        """Read a part as it is stored; nibabel has no such method."""
        items = _full_slicer(slicer, self.shape)
        selection: list[slice] = [slice(None)] * self.array.ndim
        after: list[Any] = []
        axes = iter(zip(self.axes, self.shape, strict=True))
        for item in items:
            if item is None:
                after.append(None)
                continue
            axis, size = next(axes)
            if axis is None:
                after.append(item)
            else:
                selection[axis], then = _forward(item, size)
                after.append(then)
        part = np.asarray(self.array.read(tuple(selection), device="cpu"))
        named = [axis for axis in self.axes if axis is not None]
        part = part.transpose([*named, *(k for k in range(self.array.ndim) if k not in named)])
        shape = iter(part.shape)
        part = part.reshape([1 if axis is None else next(shape) for axis in self.axes])
        return np.asarray(part[tuple(after)])

    def reshape(self, shape: Sequence[int]) -> ArrayProxy:
        """Give a proxy with axes of length 1 added or left out; other shapes need the data.

        Raises
        ------
        ValueError
            For any other shape.
        """
        wanted = _completed(shape, math.prod(self.shape))
        pairs = zip(self.axes, self.shape, strict=True)
        long = [(axis, size) for axis, size in pairs if size != 1]
        if [size for size in wanted if size != 1] != [size for _, size in long]:
            msg = (
                f"a proxy of shape {self.shape} cannot take shape {tuple(shape)}: only axes of "
                "length 1 come and go; reshape what you read"
            )
            raise ValueError(msg)
        rest = iter(long)
        axes = [None if size == 1 else next(rest)[0] for size in wanted]
        return ArrayProxy(self.array, axes=axes, slope=self.slope, inter=self.inter)

    def copy(self) -> ArrayProxy:
        """Give another proxy of the same array."""
        return ArrayProxy(self.array, axes=self.axes, slope=self.slope, inter=self.inter)

    def _scaled(self, slicer: Any, dtype: np.dtype[Any] | None) -> NDArray[Any]:
        part = self.read_unscaled(slicer)
        if (self.slope, self.inter) != (1.0, 0.0):
            slope, inter = (_as_type(value, dtype) for value in (self.slope, self.inter))
            part = _nibabel().volumeutils.apply_read_scaling(part, slope, inter)
        if dtype is not None:
            part = part.astype(np.promote_types(part.dtype, dtype), copy=False)
        return part


def to_nibabel(
    node: Array | Slide, *, level: int = 0, affine: ArrayLike | None = None, header: Any = None
) -> Any:
    """Make a lazy nibabel image.

    Parameters
    ----------
    node : Array or Slide
        What `zarrgpu.open` gave: a ``.nii``, a NIfTI-Zarr image, or, with `affine`, anything else.
    level : int
        Of a slide.
    affine : array, shape (4, 4), optional
        Default: that of the NIfTI header, at `level`.
    header : nibabel header, optional
        Default: the NIfTI header with its extensions.

    Returns
    -------
    nibabel.Nifti1Image or nibabel.Nifti2Image
        By the version of the header. Its `dataobj` is an `ArrayProxy`.

    Raises
    ------
    UnsupportedFormatError
        If `node` has no NIfTI header, and `affine` is not given.
    MissingDependencyError
        Without nibabel.
    """
    nibabel = _nibabel()
    if isinstance(node, Array):
        if level:
            raise SelectionError(f"an array has only level 0, got level {level}")
        proxy = ArrayProxy(node)
    else:
        proxy = ArrayProxy.of_level(node, level)
    if header is not None or not has_nifti_header(node):
        if affine is None and header is None:
            msg = f"{node.spec.source!r} carries no NIfTI header: give affine="
            raise UnsupportedFormatError(msg)
        return nibabel.Nifti1Image(proxy, affine, header)
    own = nifti_header(node, level)
    image_class = nibabel.Nifti1Image if own.version == 1 else nibabel.Nifti2Image
    stored = bytearray(header_bytes(node))
    magic = _MAGIC_AT[own.version]
    stored[magic] = b"n+%d\0" % own.version
    if own.kind != "single":  # where voxels begin in another file, or in none
        del stored[HEADER_NBYTES[own.version] :]
    made = image_class.header_class.from_fileobj(io.BytesIO(bytes(stored)), check=False)
    made["scl_slope"] = made["scl_inter"] = np.nan  # the proxy scales; nibabel does the same
    if own.kind != "single":
        made["vox_offset"] = 0
    if made.get_data_dtype().newbyteorder("=") != proxy.dtype:
        made.set_data_dtype(proxy.dtype)
    if level:
        made.set_data_shape(proxy.shape)
        if own.qform is not None:
            made.set_qform(own.qform, own.qform_code)
        if own.sform is not None:
            made.set_sform(own.sform, own.sform_code)
        made.set_zooms([*own.zooms[: proxy.ndim], *[1.0] * (proxy.ndim - len(own.zooms))])
    return image_class(proxy, own.affine if affine is None else affine, made)


def _full_slicer(slicer: Any, shape: tuple[int, ...]) -> list[Any]:
    """Items for all axes, Nones between them; integers counted from the start."""
    items = list(slicer) if isinstance(slicer, tuple) else [slicer]
    if sum(item is Ellipsis for item in items) > 1:
        raise SelectionError(f"more than one ellipsis in {slicer!r}")
    given = sum(item is not None and item is not Ellipsis for item in items)
    if given > len(shape):
        raise SelectionError(f"{given} indices for a proxy of {len(shape)} axes")
    at = next((k for k, item in enumerate(items) if item is Ellipsis), None)
    rest = [slice(None)] * (len(shape) - given)
    items = [*items, *rest] if at is None else [*items[:at], *rest, *items[at + 1 :]]
    sizes = iter(shape)
    return [None if item is None else _item(item, next(sizes)) for item in items]


def _item(item: Any, size: int) -> int | slice:
    if isinstance(item, slice):
        return item
    try:
        if isinstance(item, (bool, np.bool_)):
            raise TypeError
        index = operator.index(item)
    except TypeError:
        msg = f"a proxy takes integers, slices, ... and None, got {type(item).__name__}"
        raise SelectionError(msg) from None
    if not -size <= index < size:
        raise SelectionError(f"index {index} is outside an axis of length {size}")
    return index % size


def _forward(item: int | slice, size: int) -> tuple[slice, Any]:
    """Slice of positive step to read, and what to take of it afterwards."""
    if isinstance(item, int):
        return slice(item, item + 1), 0
    span = range(size)[item]
    if span.step > 0:
        return slice(span.start, max(span.stop, span.start), span.step), slice(None)
    if not span:
        return slice(0, 0), slice(None)
    return slice(span[-1], span[0] + 1, -span.step), slice(None, None, -1)


def _completed(shape: Sequence[int], size: int) -> tuple[int, ...]:
    """Shape with its one unknown length, -1, found."""
    known = math.prod(n for n in shape if n != -1)
    if list(shape).count(-1) > 1 or known == 0 or size % known:
        msg = f"cannot reshape {size} elements to {tuple(shape)}"
        raise ValueError(msg)
    return tuple(size // known if n == -1 else n for n in shape)


def _as_type(value: float, dtype: np.dtype[Any] | None) -> Any:
    """Scale factor in `dtype` where nibabel's rule for casting allows it, else in float64."""
    factor = np.asanyarray(value)
    if dtype is not None and np.can_cast(factor.dtype, dtype):
        return factor.astype(dtype)
    return factor


def _nibabel() -> Any:
    try:
        import nibabel
    except ImportError as error:
        msg = f"nibabel is not installed ({error}): pip install 'zarrgpu[nibabel]'"
        raise MissingDependencyError(msg) from error
    return nibabel
