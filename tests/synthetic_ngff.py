"""Small OME-Zarr images, plates, series and scenes, written by zarr-python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import zarr

from tests.ngff_cases import axes_of, datasets_06, system, wrap


def write_group(path: Path, version: str, **metadata: Any) -> Any:
    """A group whose attributes hold `metadata` where the version has it."""
    zarr_format = 3 if version >= "0.5" else 2
    return zarr.create_group(
        path, attributes=wrap(version, **metadata), zarr_format=zarr_format, overwrite=True
    )


def multiscale_of(version: str, axes: str, levels: int, *, pixel: float = 0.5) -> dict[str, Any]:
    """Metadata of an image whose levels are halved in y and x, about their centres."""
    scales = [
        [pixel * 2**level if axis in "yx" else 1.0 for axis in axes] for level in range(levels)
    ]
    if version >= "0.6":
        return {
            "name": "image",
            "coordinateSystems": [system("physical", axes_of(axes))],
            "datasets": datasets_06(scales),
        }
    datasets = [
        {"path": f"s{level}", "coordinateTransformations": [{"type": "scale", "scale": scale}]}
        for level, scale in enumerate(scales)
    ]
    own = {"version": version} if version < "0.5" else {}
    return {"name": "image", "axes": axes_of(axes), "datasets": datasets, **own}


def write_image(
    path: Path,
    version: str,
    axes: str,
    shape: tuple[int, ...],
    *,
    levels: int = 2,
    dtype: str = "uint16",
    seed: int = 0,
    pixel: float = 0.5,
    **metadata: Any,
) -> list[np.ndarray]:
    """Write an image and return its levels."""
    document = multiscale_of(version, axes, levels, pixel=pixel)
    group = write_group(path, version, multiscales=[document], **metadata)
    return write_levels(group, axes, shape, levels=levels, dtype=dtype, seed=seed)


def write_levels(
    group: Any, axes: str, shape: tuple[int, ...], *, levels: int, dtype: str, seed: int,
    name: str = "s",
) -> list[np.ndarray]:  # fmt: skip
    random = np.random.default_rng(seed)
    written = []
    for level in range(levels):
        sizes = [
            max(1, n >> level) if axis in "yx" else n for axis, n in zip(axes, shape, strict=True)
        ]
        data = random.integers(1, 250, sizes).astype(dtype)
        chunks = tuple(min(16, n) if a in "yx" else 1 for a, n in zip(axes, sizes, strict=True))
        names = {"dimension_names": list(axes)} if group.metadata.zarr_format > 2 else {}
        array = group.create_array(
            f"{name}{level}", shape=data.shape, chunks=chunks, dtype=dtype, fill_value=0, **names
        )
        array[...] = data
        written.append(data)
    return written


def write_plate(path: Path, version: str) -> dict[str, np.ndarray]:
    """A plate of 2 x 3 with three wells of two fields; returns level 0 of each field."""
    places = [(0, 0), (0, 2), (1, 1)]
    rows, columns = ["A", "B"], ["1", "2", "10"]
    plate = {
        "name": "demo",
        "rows": [{"name": name} for name in rows],
        "columns": [{"name": name} for name in columns],
        "wells": [
            {"path": f"{rows[r]}/{columns[c]}", "rowIndex": r, "columnIndex": c} for r, c in places
        ],
        "acquisitions": [{"id": 1, "name": "day"}, {"id": 2, "name": "night", "starttime": 9}],
        "field_count": 2,
    }
    own = {"version": version} if version < "0.5" else {}
    write_group(path, version, plate=plate | own)
    for row in rows:
        zarr.create_group(path / row, zarr_format=3 if version >= "0.5" else 2)
    fields = {}
    for number, (r, c) in enumerate(places):
        well = f"{rows[r]}/{columns[c]}"
        images = [{"path": "0", "acquisition": 1}, {"path": "1", "acquisition": 2}]
        write_group(path / well, version, well={"images": images} | own)
        for field in "01":
            fields[f"{well}/{field}"] = write_image(
                path / well / field, version, "cyx", (2, 40, 48), seed=10 * number + int(field)
            )[0]
    return fields
