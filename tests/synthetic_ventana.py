"""Ventana and Trestle slides that tests make for themselves: tiles that overlap, and their XML.

tifffile writes the container; what a tile holds is random, so that every misplaced pixel shows.
"""

from __future__ import annotations

import io
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import tifffile

from tests.synthetic_slides import chunks, encode_jpeg, tissue

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

ISCAN = (
    '<?xml version="1.0" encoding="utf-8"?><iScan Magnification="20" ScanRes="0.465" Z-layers="1" '
    'UnitNumber="BI10N0294" Empty="" Name="a &amp; b"/>'
)


@dataclass(frozen=True, kw_only=True)
class AreaRecipe:
    """One area of interest; tiles, and pixels of its place from the left and from below."""

    across: int = 3
    down: int = 2
    column: int = 0
    row: int = 0
    x: float = 0
    y: float = 0
    scanned: int = 1


@dataclass(frozen=True, kw_only=True)
class BifRecipe:
    """What `make_bif` writes.

    `overlaps` are those of the joints to the right and upwards, taken in turn; `joints` replaces
    the text of all of them.
    """

    tile: tuple[int, int] = (64, 48)
    areas: tuple[AreaRecipe, ...] = (AreaRecipe(),)
    overlaps: tuple[tuple[float, ...], tuple[float, ...]] = ((6.0,), (4.0,))
    n_levels: int = 1
    compression: str = "deflate"
    encode_info: str | None = None
    iscan: str = ISCAN
    descriptions: Sequence[str] = ()
    joints: str | None = None

    @property
    def grid(self) -> tuple[int, int]:
        """Columns and rows of tiles at level 0."""
        return (
            max(area.column + area.across for area in self.areas),
            max(area.row + area.down for area in self.areas),
        )


def number_of(area: AreaRecipe, column: int, row: int) -> int:
    """Number of a tile, from 1: from below, every second row from right to left."""
    up = area.down - 1 - row
    along = column if up % 2 == 0 else area.across - 1 - column
    return up * area.across + along + 1


def encode_info(recipe: BifRecipe) -> str:
    """XML of level 0."""
    width, height = recipe.tile
    infos, origins = "", ""
    for number, area in enumerate(recipe.areas):
        joints, turn = "", 0
        for row in range(area.down):
            for column in range(area.across):
                here = number_of(area, column, row)
                neighbours = []
                if column + 1 < area.across:
                    neighbours.append(("RIGHT", number_of(area, column + 1, row), 0))
                if row:
                    neighbours.append(("UP", number_of(area, column, row - 1), 1))
                for direction, there, axis in neighbours:
                    values = recipe.overlaps[axis]
                    overlap = values[turn % len(values)]
                    turn += 1
                    pair = (overlap, 0) if axis == 0 else (0, overlap)
                    joints += (
                        f'<TileJointInfo FlagJoined="1" Confidence="{90 + turn % 3}" '
                        f'Direction="{direction}" Tile1="{here}" Tile2="{there}" '
                        f'OverlapX="{pair[0]}" OverlapY="{pair[1]}"/>'
                    )
        infos += (
            f'<ImageInfo AOIScanned="{area.scanned}" Width="{width}" Height="{height}" '
            f'NumRows="{area.down}" NumCols="{area.across}" Pos-X="{area.x}" Pos-Y="{area.y}">'
            f"{joints if recipe.joints is None else recipe.joints}</ImageInfo>"
        )
        origins += f'<AOI{number} OriginX="{area.column * width}" OriginY="{area.row * height}"/>'
    return (
        f'<EncodeInfo Ver="2"><SlideStitchInfo>{infos}</SlideStitchInfo>'
        f"<AoiOrigin>{origins}</AoiOrigin></EncodeInfo>"
    )


def stored_level(recipe: BifRecipe, level: int) -> NDArray[np.uint8]:
    """Tiles of a level side by side, as they are stored."""
    columns, rows = recipe.grid
    shrink = 2**level
    width, height = recipe.tile
    rng = np.random.default_rng(level)
    shape = (-(-rows // shrink) * height, -(-columns // shrink) * width, 3)
    smooth = tissue(*shape[:2], seed=level).astype(int)
    grain = rng.integers(-40, 41, shape) if recipe.compression != "jpeg" else 0
    return np.clip(smooth + grain, 0, 255).astype(np.uint8)


def make_bif(recipe: BifRecipe) -> bytes:
    """Bytes of a slide: label, levels, thumbnail."""
    file = io.BytesIO()
    plain = {"photometric": "rgb", "metadata": None, "software": False}
    with tifffile.TiffWriter(file, bigtiff=True) as writer:
        packet = recipe.iscan.encode()
        writer.write(
            tissue(50, 39, seed=9), description="Label Image", compression="lzw", rowsperstrip=16,
            extratags=[(700, 1, len(packet), packet, True)], **plain,
        )  # fmt: skip
        for level in range(recipe.n_levels):
            _write_level(writer, recipe, level)
        writer.write(tissue(20, 30, seed=8), description="Thumbnail", compression="lzw", **plain)
    return file.getvalue()


def _write_level(writer: tifffile.TiffWriter, recipe: BifRecipe, level: int) -> None:
    image = stored_level(recipe, level)
    width, height = recipe.tile
    text = f"level={level} mag={20 / 2**level:g} quality=90"
    if level < len(recipe.descriptions):
        text = recipe.descriptions[level]
    options: dict[str, object] = {
        "tile": (height, width), "shape": image.shape, "dtype": np.uint8, "metadata": None,
        "photometric": "rgb", "description": text, "software": False,
        "compression": {"deflate": 8, "jpeg": 7}[recipe.compression],
    }  # fmt: skip
    info = recipe.encode_info
    if level == 0 and info != "":
        packet = (encode_info(recipe) if info is None else info).encode()
        options["extratags"] = [(700, 1, len(packet), packet, True)]
    encoded = []
    for tile in chunks(image, height, width):
        if recipe.compression == "jpeg":
            options["jpegtables"], stream = encode_jpeg(tile, "jpeg-444")
            options["compressionargs"] = {"outcolorspace": "ycbcr"}
            options["subsampling"] = (1, 1)
        else:
            stream = zlib.compress(tile.tobytes(), 1)
        encoded.append(stream)
    writer.write(iter(encoded), **options)


def make_trestle(
    overlaps: Sequence[int],
    *,
    size: tuple[int, int] = (200, 300),
    tile: int = 64,
    n_levels: int = 2,
    description: str | None = None,
) -> bytes:
    """Bytes of a Trestle slide, whose levels overlap by (x, y) pixels each."""
    if description is None:
        listed = " ".join(map(str, overlaps))
        description = (
            f"Objective Power=20.0;Background Color=F0F1F2;OverlapsXY= {listed};Odd part"
            "; Spaced key = a value "
        )
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for level in range(n_levels):
            image = tissue(size[0] >> level, size[1] >> level, seed=level)
            writer.write(
                image, tile=(tile, tile), photometric="rgb", compression="deflate",
                description=description, software="MedScan", metadata=None,
                resolution=(0.335, 0.335), resolutionunit=1, predictor=False,
            )  # fmt: skip
    return file.getvalue()
