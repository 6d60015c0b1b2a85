"""OME-TIFF pyramids that tests make for themselves, by tifffile; and files of several by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def noise(shape: tuple[int, ...], dtype: str, seed: int = 0) -> NDArray[Any]:
    """Values of the whole range of a type, or of -1 to 1."""
    rng = np.random.default_rng(seed)
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return rng.uniform(-1, 1, shape).astype(kind)
    limits = np.iinfo(kind)
    return rng.integers(limits.min, limits.max, shape, kind, endpoint=True)


def write_pyramid(
    path: Path,
    image: NDArray[Any],
    axes: str,
    *,
    levels: int = 3,
    metadata: dict[str, Any] | None = None,
    **options: Any,
) -> None:
    """Write an image and its coarser levels (every 2nd, 4th ... pixel) as SubIFDs."""
    y = axes.index("Y")
    options = {"tile": (32, 48), "photometric": "minisblack", **options}
    with tifffile.TiffWriter(path, ome=True, bigtiff=True) as writer:
        writer.write(
            image, subifds=levels - 1, metadata={"axes": axes, **(metadata or {})}, **options
        )
        for level in range(1, levels):
            part = [slice(None)] * image.ndim
            part[y] = part[y + 1] = slice(None, None, 2**level)
            writer.write(np.ascontiguousarray(image[tuple(part)]), subfiletype=1, **options)


def write_several(folder: Path, image: NDArray[Any], names: list[str]) -> None:
    """Write one plane of an image ``(C, Y, X)`` to each file, and the XML to the first."""
    uuids = [f"urn:uuid:00000000-0000-0000-0000-{index:012d}" for index in range(len(names))]
    data = "".join(
        f'<TiffData FirstC="{index}" IFD="0" PlaneCount="1">'
        f'<UUID FileName="{name}">{uuid}</UUID></TiffData>'
        for index, (name, uuid) in enumerate(zip(names, uuids, strict=True))
    )
    channels = "".join(f'<Channel ID="Channel:0:{index}"/>' for index in range(len(names)))
    _, height, width = image.shape
    for index, name in enumerate(names):
        text = (
            f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="{uuids[index]}">'
            f'<Image ID="Image:0" Name="several"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" '
            f'Type="uint16" SizeX="{width}" SizeY="{height}" SizeZ="1" SizeC="{len(names)}" '
            f'SizeT="1">{channels}{data}</Pixels></Image></OME>'
        )
        tifffile.imwrite(
            folder / name, image[index], tile=(32, 32), description=text, metadata=None,
            compression="zlib", predictor=2,
        )  # fmt: skip
