"""Make what the demo opens when it is given nothing: two files of its own, of real tissue.

`slide.svs` is an Aperio-style JPEG pyramid; `image.ome.zarr` is an OME-Zarr 0.5 image of the same
tissue, sharded and zstd-compressed, with the two stains unmixed into uint16 channels that shine on
black like fluorescence. Both follow from the seed, are made once, and are kept beside the report.
"""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from zarrgpu.demo.svs import box_filter, write_svs
from zarrgpu.demo.texture import Image, smooth_field, tissue_image
from zarrgpu.errors import MissingDependencyError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

Channels: TypeAlias = NDArray[np.uint16]

MPP = 0.5
"""Micrometres per pixel claimed for level 0; about right for the section's 20x objective."""

STAIN_OD = ((0.65, 0.70, 0.29), (0.27, 0.57, 0.78))
"""Optical density of haematoxylin and DAB in R, G, B (Ruifrok and Johnston 2001, unit vectors)."""


def _window(end: int) -> dict[str, int]:
    """Display range of a channel, in counts."""
    return {"min": 0, "max": 65535, "start": 120, "end": end}


OMERO_CHANNELS: tuple[dict[str, Any], ...] = (
    {"label": "haematoxylin", "color": "3D7BFF", "active": True, "window": _window(7000)},
    {"label": "DAB", "color": "FF9A1F", "active": True, "window": _window(22000)},
)


def make_inputs(folder: Path, *, size_px: int = 4096, seed: int = 7) -> tuple[Path, Path]:
    """Make `slide.svs` and `image.ome.zarr` in a subfolder of `folder`, unless they are there.

    Parameters
    ----------
    folder : path
    size_px : int
        Side of level 0 of both images; a multiple of 64, at least 512.
    seed : int

    Returns
    -------
    tuple of two paths
        The SVS and the OME-Zarr.
    """
    target = folder / f"tissue-{size_px}px-seed{seed}"
    slide, zarr = target / "slide.svs", target / "image.ome.zarr"
    if not (slide.exists() and zarr.exists()):
        # Made aside and renamed, so that an interrupted run leaves nothing that looks complete.
        part = folder / f".{target.name}.{os.getpid()}.part"
        part.mkdir(parents=True, exist_ok=True)
        image = tissue_image(size_px, seed=seed)
        make_svs(part / slide.name, image)
        make_ome_zarr(part / zarr.name, image)
        shutil.rmtree(target, ignore_errors=True)
        part.rename(target)
    return slide, zarr


def make_svs(path: Path, image: Image) -> None:
    """Write `image` (h, w, 3) as an Aperio-style SVS with thumbnail, label and macro."""
    height, width = image.shape[:2]
    thumbnail = box_filter(image, max(1, -(-max(height, width) // 1024)))
    factors = tuple(f for f in (1, 4, 16) if f == 1 or min(height, width) // f >= 128)
    macro = _macro(thumbnail)
    write_svs(
        path, image, label=_label(path.stem), macro=macro, thumbnail=thumbnail, downsamples=factors
    )


def make_ome_zarr(path: Path, image: Image) -> None:
    """Unmix the stains of `image` (h, w, 3) and write OME-Zarr 0.5, axes c, y, x, uint16."""
    try:
        import zarr
        from zarr.codecs import ZstdCodec
    except ImportError as error:
        msg = "writing the demo's OME-Zarr needs zarr-python 3: pip install 'zarrgpu[demo]'"
        raise MissingDependencyError(msg) from error
    level = unmix_stains(image)
    factors = tuple(f for f in (1, 2, 4) if f == 1 or min(image.shape[:2]) // f >= 128)
    for index in range(len(factors)):
        if index:
            level = _halve(level)
        chunk = min(256, *level.shape[1:])
        shard = chunk * min(4, max(1, min(level.shape[1:]) // chunk))
        array = zarr.create_array(
            store=path / str(index),
            shape=level.shape,
            dtype=level.dtype,
            chunks=(1, chunk, chunk),
            shards=(1, shard, shard),
            compressors=[ZstdCodec(level=3, checksum=False)],
            dimension_names=("c", "y", "x"),
            zarr_format=3,
            overwrite=True,
        )
        array[...] = level
    write_group(path, factors)


def write_group(path: Path, factors: Sequence[int]) -> None:
    """Write the group's document: level ``str(k)`` is coarser than level 0 by ``factors[k]``.

    It is short; writing it plainly shows all that OME-Zarr 0.5 asks for.
    """
    datasets = [_dataset(index, factor) for index, factor in enumerate(factors)]
    document = {"zarr_format": 3, "node_type": "group", "attributes": {"ome": _ome(datasets)}}
    (path / "zarr.json").write_text(json.dumps(document, indent=2), encoding="utf-8")


def unmix_stains(image: Image) -> Channels:
    """Amounts of haematoxylin and DAB: shape (2, h, w), uint16, 0 where there is none.

    Linear unmixing of optical density (Ruifrok and Johnston 2001); the third stain is the residual.
    """
    basis = np.array(STAIN_OD)
    basis = np.vstack([basis, np.cross(basis[0], basis[1])])
    basis /= np.linalg.norm(basis, axis=1, keepdims=True)
    inverse = np.linalg.inv(basis)[:, :2].astype(np.float32)
    density = -np.log((np.arange(256, dtype=np.float32) + 1) / 244)
    out = np.empty((2, *image.shape[:2]), np.uint16)
    for y in range(0, image.shape[0], 256):
        amount = density[image[y : y + 256]] @ inverse
        # Camera counts: an offset for the dark current, and headroom below saturation.
        out[:, y : y + 256] = np.clip(120 + 9000 * amount, 0, 60_000).transpose(2, 0, 1)
    return out


def _halve(level: Channels) -> Channels:
    c, h, w = level.shape
    even = level[:, : h // 2 * 2, : w // 2 * 2].reshape(c, h // 2, 2, w // 2, 2)
    return np.asarray(even.sum(axis=(2, 4), dtype=np.uint32) // 4, np.uint16)


def _dataset(index: int, factor: int) -> dict[str, Any]:
    scale = [1.0, MPP * factor, MPP * factor]
    transforms: list[dict[str, Any]] = [{"type": "scale", "scale": scale}]
    if factor > 1:  # the centre of the first pixel moves by half of what the pixel grew
        shift = MPP * (factor - 1) / 2
        transforms.append({"type": "translation", "translation": [0.0, shift, shift]})
    return {"path": str(index), "coordinateTransformations": transforms}


def _ome(datasets: list[dict[str, Any]]) -> dict[str, Any]:
    axes = [
        {"name": "c", "type": "channel"},
        {"name": "y", "type": "space", "unit": "micrometer"},
        {"name": "x", "type": "space", "unit": "micrometer"},
    ]
    return {
        "version": "0.5",
        "multiscales": [{"name": "tissue", "axes": axes, "datasets": datasets, "type": "mean"}],
        "omero": {"channels": list(OMERO_CHANNELS)},
    }


def _macro(thumbnail: Image) -> Image:
    """Photograph of the whole glass: paper label at the left, the section at the right."""
    rng = np.random.default_rng(0)
    macro = np.full((400, 1100, 3), (226, 227, 224), np.uint8)
    macro[:, :330] = (246, 245, 238)
    macro[20:380, 20:310] = 250
    step = -(-max(thumbnail.shape[:2]) // 340)
    small = box_filter(thumbnail, step)
    h, w = small.shape[:2]
    macro[(400 - h) // 2 :, 480:][:h, :w] = small * np.float32(0.93)
    shade = 6 * smooth_field(macro.shape[:2], 4, rng)[..., None]
    return np.asarray(np.clip(macro + shade, 0, 255), np.uint8)


def _label(text: str) -> Image:
    """Paper label: a border, the file's name as bars, one bar code digit per byte."""
    label = np.full((360, 300, 3), 250, np.uint8)
    label[8:12, 8:-8] = label[-12:-8, 8:-8] = (40, 60, 120)
    label[8:-8, 8:12] = label[8:-8, -12:-8] = (40, 60, 120)
    bits = np.unpackbits(np.frombuffer(text.encode()[:16].ljust(16), np.uint8))
    bars = np.repeat(bits, 2)[:256]
    label[60:180, 22 : 22 + bars.size][:, bars.astype(bool)] = 20
    for row in range(4):
        label[220 + 28 * row : 232 + 28 * row, 40 : 250 - 30 * (row % 3)] = 120
    return label
