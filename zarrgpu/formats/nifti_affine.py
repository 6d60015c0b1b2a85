"""The affines of NIfTI: from voxel indices to world coordinates.

Spec: nifti1.h, "3D image orientation and location in space", methods 1 to 3. Computed in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def qform_affine(quatern: Any, qoffset: Any, pixdim: NDArray[np.float64]) -> NDArray[np.float64]:
    """Method 2: a rotation given as a unit quaternion, voxel sizes, an offset.

    Parameters
    ----------
    quatern : array, shape (3,)
        b, c and d; a is what makes the length 1. Where no more than rounding in their type is left
        for it, or less than nothing, a is 0 and they are normalised, as nifti1_io.c and nibabel do:
        half a turn stays half a turn.
    qoffset : array, shape (3,)
        World coordinates of voxel (0, 0, 0).
    pixdim : float64 array, shape (8,)
        Element 0 is qfac: -1 flips the third axis, anything else does not.

    Returns
    -------
    float64 array, shape (4, 4)
    """
    stored = np.asarray(quatern)
    rounding = 3 * float(np.finfo(stored.dtype if stored.dtype.kind == "f" else np.float64).eps)
    b, c, d = (float(value) for value in stored)
    rest = 1.0 - (b * b + c * c + d * d)
    if rest < rounding:
        length = np.sqrt(b * b + c * c + d * d)
        a, b, c, d = 0.0, b / length, c / length, d / length
    else:
        a = float(np.sqrt(rest))
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - c * c - b * b],
        ]
    )
    size = np.abs(pixdim[1:4]) * [1.0, 1.0, -1.0 if pixdim[0] == -1 else 1.0]
    affine = np.eye(4)
    affine[:3, :3] = rotation * size
    affine[:3, 3] = np.asarray(qoffset, np.float64)
    return affine


def base_affine(shape: Sequence[int], zooms: Sequence[float]) -> NDArray[np.float64]:
    """Where neither form is given: voxel sizes, x flipped, the volume's centre at the origin.

    The standard leaves the orientation open there (method 1); this is what nibabel takes.
    """
    size, full = np.ones(3), np.ones(3)
    size[: len(zooms)], full[: len(shape)] = zooms[:3], shape[:3]
    size[0] *= -1
    affine = np.diag([*size, 1.0])
    affine[:3, 3] = -(full - 1) / 2 * size
    return affine
