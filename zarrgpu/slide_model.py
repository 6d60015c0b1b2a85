"""The value objects of a pyramid of images: a whole-slide file, or a multiscale OME-Zarr image.

Each level is an `ArraySpec` (`zarrgpu.model`); nothing here does I/O or knows a file format.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zarrgpu.model import ArraySpec, StoredBytes


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Quickhash:
    """What OpenSlide's ``quickhash-1`` of a slide is the SHA-256 of: stored bytes, then text.

    Attributes
    ----------
    key : str
        The object that the bytes are in.
    offset, nbytes : int64 (n,)
        Ranges of it, in the order in which they are hashed.
    text : bytes
    """

    key: str
    offset: NDArray[np.int64]
    nbytes: NDArray[np.int64]
    text: bytes


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SlideSpec:
    """A pyramid of 2-D images: a whole-slide file or a multiscale OME-Zarr image.

    Attributes
    ----------
    source : str
    vendor : str
        As OpenSlide names it where it does (``"aperio"``), else the format (``"ome-zarr"``).
    levels : tuple of ArraySpec
        Finest first; all have the same number of axes.
    axes : tuple of str
        Name of each array axis: ``("y", "x", "c")`` for a slide, ``("t", "c", "z", "y", "x")`` or
        fewer for OME-Zarr.
    mpp : tuple of (float or None)
        Micrometres per pixel of level 0 in x and y; None where the file does not say.
    properties : mapping of str to str
        OpenSlide-style keys (``openslide.*``, vendor keys).
    associated : mapping of str to ArraySpec
        Label, macro, thumbnail; axes ``(y, x, c)``.
    icc_profile : bytes, StoredBytes or None
        None where level 0 carries it, or there is none.
    channels : tuple of mapping
        OME ``omero.channels`` (label, color, window) where the file has them.
    downsamples : tuple of float, or None
        Level-0 pixels per pixel of each level, where the file says it better than the sizes do;
        otherwise it is their mean ratio.
    quickhash : Quickhash, optional
        Of slides that OpenSlide gives one.
    """

    source: str
    vendor: str
    levels: tuple[ArraySpec, ...]
    axes: tuple[str, ...]
    mpp: tuple[float | None, float | None]
    properties: Mapping[str, str]
    associated: Mapping[str, ArraySpec]
    icc_profile: bytes | StoredBytes | None = None
    channels: tuple[Mapping[str, Any], ...] = ()
    downsamples: tuple[float, ...] | None = None
    quickhash: Quickhash | None = None
