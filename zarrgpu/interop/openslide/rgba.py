"""Stored samples as RGBA of 8 bits, as OpenSlide shows them.

`zarrgpu.Slide` gives what is stored. An image to look at is more: grey whose zero is white, a
palette, CMYK, alpha that colours were multiplied with, and 16 bits all become plain RGBA here, by
the arithmetic of libtiff, which OpenSlide reads such tiles with. What has no agreed colours is
refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from zarrgpu.errors import SelectionError
from zarrgpu.model import ArraySpec, Manifest

_COLOURS: Final = {
    "white is zero": 1,
    "black is zero": 1,
    "transparency mask": 1,
    "RGB": 3,
    "palette": 1,
    "separated (CMYK)": 4,
}
"""Samples of a pixel that are colour, by photometric interpretation."""

_PLAIN: Final = {1: 1, 3: 3, 4: 3}
"""Of so many channels whose interpretation is not stated."""

_MULTIPLIED: Final = "associated alpha"
_ALPHAS: Final = (_MULTIPLIED, "unassociated alpha")


def to_rgba(pixels: NDArray[Any], spec: ArraySpec) -> NDArray[np.uint8]:
    """Convert samples to RGBA.

    Parameters
    ----------
    pixels : array, shape (height, width, channels)
    spec : ArraySpec
        Of the array that they come from; of a file the attributes say what the samples are.
        Without a photometric interpretation 1, 3 and 4 channels of uint8 are grey, RGB and RGBA.

    Returns
    -------
    uint8 array, shape (height, width, 4)
        Colours are not multiplied with alpha.

    Raises
    ------
    SelectionError
        For samples that make no colour.
    """
    said = _said(spec)
    kind, channels = said.get("photometric"), pixels.shape[2]
    colours = _COLOURS.get(str(kind), 0) if kind is not None else _PLAIN.get(channels, 0)
    extra = next(iter(said.get("extra_samples", ())), None)
    alpha = channels == 4 if kind is None else channels > colours and extra in _ALPHAS
    if not colours or channels != colours + alpha or (kind is None and pixels.dtype != np.uint8):
        raise _refusal(pixels, spec)
    rgba = np.empty((*pixels.shape[:2], 4), np.uint8)
    rgba[..., 3] = 255
    if kind == "palette":
        rgba[..., :3] = _palette(said)[pixels[..., 0]]
    else:
        samples = _eight_bits(pixels, spec, grey=colours == 1)
        shown = _colours(samples[..., :colours], str(kind))
        for channel in range(3):  # faster than all at once
            rgba[..., channel] = shown[..., min(channel, shown.shape[2] - 1)]
        if alpha:
            rgba[..., 3] = samples[..., colours]
            if extra == _MULTIPLIED:
                _divide_by_alpha(rgba)
    return rgba


def _said(spec: ArraySpec) -> Mapping[str, Any]:
    """What a file says of its samples; a Zarr array's attributes are anybody's, and say nothing."""
    return spec.attributes if isinstance(spec.location, Manifest) else {}


def _colours(samples: NDArray[np.uint8], kind: str) -> NDArray[Any]:
    """Red, green and blue; or one channel that is all of them."""
    if kind == "white is zero":
        return 255 - samples
    if kind == "separated (CMYK)":
        ink = samples.astype(np.uint16)
        return ((255 - ink[..., 3:]) * (255 - ink[..., :3])) // 255
    return samples


def _eight_bits(pixels: NDArray[Any], spec: ArraySpec, *, grey: bool) -> NDArray[np.uint8]:
    said = _said(spec)
    if pixels.dtype == np.uint8 and "bits_per_sample" not in said:
        return pixels
    bits = said.get("bits_per_sample", 8 * pixels.dtype.itemsize)
    if pixels.dtype == np.uint16 and bits == 16:
        # libtiff rounds colours, and cuts grey off
        wide = pixels >> 8 if grey else (pixels.astype(np.uint32) + 128) // 257
        return wide.astype(np.uint8)
    if pixels.dtype.kind in "bu" and bits < 8:
        most = (1 << bits) - 1
        few: NDArray[np.uint8] = (pixels.astype(np.uint16) * 255 // most).astype(np.uint8)
        return few
    raise _refusal(pixels, spec)


def _palette(said: Mapping[str, Any]) -> NDArray[np.uint8]:
    """Colours of each index; old writers give 8 bits of each, which libtiff sees by their size."""
    colors = np.array(said["color_map"], np.uint16)
    return (colors >> 8 if colors.max() > 255 else colors).astype(np.uint8)


def _divide_by_alpha(rgba: NDArray[np.uint8]) -> None:
    alpha = rgba[..., 3:].astype(np.uint16)
    divided = rgba[..., :3].astype(np.uint16) * 255 // np.maximum(alpha, 1)
    rgba[..., :3] = np.minimum(divided, 255)


def _refusal(pixels: NDArray[Any], spec: ArraySpec) -> SelectionError:
    said = _said(spec)
    what = f"{pixels.shape[2]} channel(s) of {pixels.dtype}"
    if "photometric" in said:
        extra = f" and {', '.join(said['extra_samples'])}" if said.get("extra_samples") else ""
        what += f" in {said['photometric']}{extra}"
    msg = (
        f"{spec.source!r}: {what} make no RGBA image, expected grey, RGB, CMYK or a palette, and "
        "alpha if it is said to be that; read arrays with zarrgpu.open_slide"
    )
    return SelectionError(msg)
