"""The eight symmetries of a square: how patches are flipped and turned as they are placed.

Symmetry ``s`` of a patch P of shape (height, width, ...) is, in NumPy's terms,
``np.rot90(P if s < 4 else np.fliplr(P), s % 4)``: 0 leaves it, 1, 2 and 3 turn it by 90, 180 and
270 degrees counterclockwise, 4 mirrors left and right, 6 up and down, 5 and 7 across the diagonals.
Even ones keep the shape of any patch, odd ones that of squares only.

No pixel is moved for it: pieces of chunks are written with other strides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from zarrgpu.errors import SelectionError

Augment = Literal["hflip", "vflip", "flips", "rotations", "flips+rotations"]

AUGMENTATIONS: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {
        "hflip": (0, 4),
        "vflip": (0, 6),
        "flips": (0, 2, 4, 6),
        "rotations": (0, 1, 2, 3),
        "flips+rotations": (0, 1, 2, 3, 4, 5, 6, 7),
    }
)
"""Symmetries that each kind of augmentation draws from, all equally likely."""

NUM_SYMMETRIES = 8
_STREAM = 0x5359  # of random numbers that samplers do not use


@dataclass(frozen=True, slots=True, eq=False)
class Turns:
    """How each box of a read is turned.

    Attributes
    ----------
    symmetry : uint8 (N,)
    rows, columns : int
        Array axes along which a box has its rows one below the other, and its columns side by side.
    """

    symmetry: NDArray[np.uint8]
    rows: int
    columns: int

    def views(self, out: NDArray[Any]) -> list[NDArray[Any]]:
        """Views of a result, shape (N, *count), for each symmetry, that take boxes as they are."""
        return [
            turned_view(out, symmetry, (1 + self.rows, 1 + self.columns))
            for symmetry in range(NUM_SYMMETRIES)
        ]

    def strides(
        self, symmetry: int, strides: tuple[int, ...], count: tuple[int, ...]
    ) -> tuple[int, tuple[int, ...]]:
        """Where a box begins and its strides, given those of the result's memory along array axes.

        >>> Turns(np.zeros(1, np.uint8), 0, 1).strides(4, (10, 1), (10, 10))
        (9, (10, -1))
        """
        row, column = strides[self.rows], strides[self.columns]
        down, right = count[self.rows] - 1, count[self.columns] - 1
        offset, along_rows, along_columns = (
            (0, row, column),
            (right * row, column, -row),
            (down * row + right * column, -row, -column),
            (down * column, -column, row),
        )[symmetry % 4]
        if symmetry >= 4:
            offset, along_columns = offset + right * along_columns, -along_columns
        turned = list(strides)
        turned[self.rows], turned[self.columns] = along_rows, along_columns
        return offset, tuple(turned)


def turned_view(array: NDArray[Any], symmetry: int, axes: tuple[int, int] = (0, 1)) -> NDArray[Any]:
    """View of a turned patch's memory in which a patch that is not turned is to be written.

    An odd symmetry of what is not square has no such view; it is one of another shape.
    """
    view = np.rot90(array, -(symmetry % 4), axes)
    return view if symmetry < 4 else np.flip(view, axes[1])


def parse_symmetries(symmetries: ArrayLike, n: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Check the symmetries of `n` patches of `size`.

    Raises
    ------
    SelectionError
        If they are not `n` integers in 0 ... 7, or turn what is not square.
    """
    values = np.asarray(symmetries)
    whole = values.dtype.kind in "iu" or not values.size
    inside = whole and bool(((values >= 0) & (values < NUM_SYMMETRIES)).all())
    if values.shape != (n,) or not inside:
        msg = f"symmetries must be {n} integers in 0..{NUM_SYMMETRIES - 1}, one a patch"
        raise SelectionError(msg)
    if size[0] != size[1] and (values % 2).any():
        msg = (
            f"patches of {size[0]} x {size[1]} px cannot be turned by 90 degrees into one batch; "
            "take square ones, or even symmetries (flips and half turns)"
        )
        raise SelectionError(msg)
    return values.astype(np.uint8)


def check_augment(augment: Any, size: tuple[int, int]) -> Augment | None:
    """Check what a loader is asked to draw.

    Raises
    ------
    SelectionError
        If there is no such augmentation, or it turns patches that are not square.
    """
    if augment is None:
        return None
    if not isinstance(augment, str) or augment not in AUGMENTATIONS:
        msg = f"augment must be None or one of {', '.join(AUGMENTATIONS)}, got {augment!r}"
        raise SelectionError(msg)
    if size[0] != size[1] and any(symmetry % 2 for symmetry in AUGMENTATIONS[augment]):
        msg = (
            f"augment={augment!r} turns patches by 90 degrees, which needs square ones, got "
            f"{size[0]} x {size[1]} px; take augment='flips' or a square size"
        )
        raise SelectionError(msg)
    return augment  # type: ignore[return-value]


def draw_symmetries(augment: Augment, seed: int, epoch: int, n: int) -> NDArray[np.uint8]:
    """Draw a symmetry for each patch of an epoch.

    The same for the same seed, epoch and patch, whoever reads it.

    >>> draw_symmetries("flips", 0, 0, 6).tolist()
    [6, 6, 4, 6, 2, 0]
    """
    seeds = np.random.SeedSequence([seed, epoch], spawn_key=(_STREAM,))
    # only `random` is asked of it: NumPy may change how other distributions use the bits
    drawn = np.random.Generator(np.random.Philox(seeds)).random(n)
    choices = np.array(AUGMENTATIONS[augment], np.uint8)
    return choices[np.minimum((drawn * len(choices)).astype(np.int64), len(choices) - 1)]
