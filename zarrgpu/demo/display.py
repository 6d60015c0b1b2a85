"""Turn any image into RGB uint8 to look at, with one contrast for all pictures of a report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from zarrgpu.demo.foreground import is_brightfield

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Image: TypeAlias = NDArray[np.uint8]
Color: TypeAlias = tuple[float, float, float]

PALETTE: tuple[Color, ...] = (
    (0.25, 0.50, 1.00),
    (0.20, 0.90, 0.35),
    (1.00, 0.30, 0.30),
    (1.00, 0.80, 0.20),
    (0.90, 0.35, 0.95),
    (0.25, 0.90, 0.95),
)
"""Channel colours where the file names none, in the order in which microscopists use them."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Display:
    """How to show the images of one slide.

    Attributes
    ----------
    as_is : bool
        Bright field: the pixels are already a picture.
    low, high : float32 arrays of shape (c,)
        Values shown as black and as full colour.
    colors : float32 array of shape (c, 3)
    labels : tuple of str
        Name of each channel; empty in bright field.
    """

    as_is: bool
    low: NDArray[np.float32]
    high: NDArray[np.float32]
    colors: NDArray[np.float32]
    labels: tuple[str, ...]

    @classmethod
    def fit(cls, thumbnail: NDArray[Any], channels: Sequence[Mapping[str, Any]] = ()) -> Display:
        """Choose contrast from `thumbnail` (h, w, c) and colours from OMERO's `channels`.

        Parameters
        ----------
        channels : sequence of mappings
            ``omero.channels`` of an OME-Zarr image; ``label`` and ``color`` (hex RGB) are used.
        """
        count = thumbnail.shape[2]
        values = np.nan_to_num(thumbnail.astype(np.float32))
        low, high = np.percentile(values, (1.0, 99.7), axis=(0, 1)).astype(np.float32)
        flat = high <= low
        low = np.where(flat, values.min(axis=(0, 1)), low)
        high = np.where(flat, values.max(axis=(0, 1)), high)
        named = [dict(channels[k]) if k < len(channels) else {} for k in range(count)]
        default = [(1.0, 1.0, 1.0)] if count == 1 else PALETTE
        colors = [
            _hex_color(c.get("color")) or default[k % len(default)] for k, c in enumerate(named)
        ]
        as_is = is_brightfield(thumbnail)
        labels = tuple(str(c.get("label") or f"channel {k}") for k, c in enumerate(named))
        return cls(
            as_is=as_is,
            low=low,
            high=high,
            colors=np.array(colors, np.float32),
            labels=() if as_is else labels,
        )

    @property
    def channels(self) -> tuple[tuple[str, Color], ...]:
        """Name and colour of each channel; none in bright field."""
        colors = [(float(r), float(g), float(b)) for r, g, b in self.colors]
        return tuple(zip(self.labels, colors, strict=False))

    def render(self, image: NDArray[Any]) -> Image:
        """RGB picture of `image` (h, w, c) in the stored dtype: shape (h, w, 3), uint8."""
        if self.as_is:
            return np.ascontiguousarray(image, np.uint8)
        values = np.nan_to_num(image.astype(np.float32))
        span = self.high - self.low
        scaled = np.clip((values - self.low) / np.where(span > 0, span, 1), 0, 1)
        mixed = np.clip(scaled @ self.colors, 0, 1) * 255
        return np.asarray(np.rint(mixed), np.uint8)


def _hex_color(text: object) -> Color | None:
    """Color of ``"FF8000"``; None where it is no such thing."""
    if not isinstance(text, str):
        return None
    digits = text.removeprefix("#")
    try:
        red, green, blue = (int(digits[k : k + 2], 16) / 255 for k in (0, 2, 4))
    except ValueError:
        return None
    return red, green, blue
