"""NumPy's types as the codes of the kernels, and which of their bytes are swapped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from zarrgpu.devices.tables import ElementType

if TYPE_CHECKING:
    from numpy.typing import NDArray

_RAW_TYPES = {1: ElementType.RAW1, 2: ElementType.RAW2, 4: ElementType.RAW4, 8: ElementType.RAW8,
              16: ElementType.RAW16}  # fmt: skip
_TYPES = {"b1": ElementType.BOOL, "i1": ElementType.I1, "u1": ElementType.U1, "i2": ElementType.I2,
          "u2": ElementType.U2, "i4": ElementType.I4, "u4": ElementType.U4, "i8": ElementType.I8,
          "u8": ElementType.U8, "f2": ElementType.F2, "f4": ElementType.F4,
          "f8": ElementType.F8}  # fmt: skip


def element_type(dtype: np.dtype[Any]) -> ElementType | None:
    """Type code of a dtype of either byte order; None where `gather` cannot move it.

    Complex, datetime, void and similar are opaque: they can be copied, not cast.

    >>> element_type(np.dtype(">u2")).name, element_type(np.dtype("c8")).name
    ('U2', 'RAW8')
    """
    if dtype.name == "bfloat16":  # of ml_dtypes, whose kind is that of opaque bytes
        return ElementType.BF16
    known = _TYPES.get(f"{dtype.kind}{dtype.itemsize}")
    return known if known is not None else _RAW_TYPES.get(dtype.itemsize)


def opaque_types(itemsize: NDArray[np.int64]) -> NDArray[np.int32]:
    """Type codes of elements of 1, 2, 4, 8 or 16 bytes that are moved as they are.

    >>> opaque_types(np.array([16, 2])).tolist()
    [16, 13]
    """
    codes = np.full(max(_RAW_TYPES) + 1, -1, np.int32)
    codes[list(_RAW_TYPES)] = list(_RAW_TYPES.values())
    return codes[itemsize]


def swap_nbytes(dtype: np.dtype[Any]) -> int:
    """Bytes of each unit of an element that `gather` must reverse; 0 for native order.

    >>> swap_nbytes(np.dtype(">u2")), swap_nbytes(np.dtype(">c8")), swap_nbytes(np.dtype("<f4"))
    (2, 4, 0)
    """
    if dtype.isnative or dtype.itemsize == 1:
        return 0
    return dtype.itemsize // 2 if dtype.kind == "c" else dtype.itemsize
