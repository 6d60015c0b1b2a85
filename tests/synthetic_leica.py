"""Leica SCN files that tests make for themselves, after OpenSlide's description."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import tifffile

from tests.synthetic_slides import chunks, encode_jpeg, tissue

TILE = 32
CLICKS = 500
"""Per pixel of level 0: half a micrometre."""


@dataclass(frozen=True, kw_only=True)
class Field:
    """One image of a slide; pixels of level 0, clicks beyond whole pixels."""

    width: int
    height: int
    left: int
    top: int
    seed: int = 0
    source: str = "brightfield"
    objective: str = "20"
    extra_clicks: int = 0
    n_levels: int = 3

    def level(self, index: int, z: int = 0) -> np.ndarray:
        step = 2**index
        full = tissue(self.height, self.width, seed=self.seed + 10 * z)
        return np.ascontiguousarray(full[::step, ::step])


@dataclass(frozen=True, kw_only=True)
class LeicaRecipe:
    """What `make_leica` writes: a collection of `width` x `height` pixels of level 0."""

    width: int = 400
    height: int = 304
    fields: tuple[Field, ...] = (Field(width=128, height=104, left=32, top=16),)
    planes: int = 1
    macro: bool = True
    barcode: str = "YWJj"


MACRO = tissue(38, 50, seed=9)


def make_leica(recipe: LeicaRecipe) -> bytes:
    """Bytes of a slide: macro image first, then each field's levels and focal planes."""
    pages: list[np.ndarray] = [MACRO] if recipe.macro else []
    images = []
    if recipe.macro:
        whole = Field(width=recipe.width, height=recipe.height, left=0, top=0, n_levels=1)
        dimension = f'<dimension sizeX="{MACRO.shape[1]}" sizeY="{MACRO.shape[0]}" r="0" ifd="0"/>'
        images.append(_image(whole, dimension))
    for field in recipe.fields:
        dimensions = ""
        for index in range(field.n_levels):
            for z in range(recipe.planes):
                height, width = field.level(index).shape[:2]
                at_z = f' z="{z}"' if recipe.planes > 1 else ""
                dimensions += (
                    f'<dimension sizeX="{width}" sizeY="{height}" r="{index}"{at_z} '
                    f'ifd="{len(pages)}"/>'
                )
                pages.append(field.level(index, z))
        images.append(_image(field, dimensions))
    text = (
        '<?xml version="1.0"?>\n<scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01">'
        f'<collection name="x" sizeX="{recipe.width * CLICKS}" sizeY="{recipe.height * CLICKS}">'
        f"<barcode>{recipe.barcode}</barcode>{''.join(images)}</collection></scn>"
    )
    file = io.BytesIO()
    with tifffile.TiffWriter(file, bigtiff=True) as writer:
        for index, image in enumerate(pages):
            pairs = [encode_jpeg(tile, "jpeg-420") for tile in chunks(image, TILE, TILE)]
            writer.write(
                iter([stream for _, stream in pairs]), shape=image.shape, dtype=np.uint8,
                tile=(TILE, TILE), photometric="rgb", compression=7, jpegtables=pairs[0][0],
                subsampling=(2, 2), compressionargs={"outcolorspace": "ycbcr"}, metadata=None,
                description=text if index == 0 else "", software="Leica", subfiletype=0,
                resolution=(20000, 20000), resolutionunit="CENTIMETER",
            )  # fmt: skip
    return file.getvalue()


def _image(field: Field, dimensions: str) -> str:
    size = f'sizeX="{field.width * CLICKS}" sizeY="{field.height * CLICKS}"'
    left, top = (at * CLICKS + field.extra_clicks for at in (field.left, field.top))
    if not field.left:
        left = top = 0
    return (
        f'<image name="image"><creationDate>2012</creationDate>'
        f'<device model="Leica SCN400" version="1.5"/><view {size} offsetX="{left}" '
        f'offsetY="{top}"/><pixels sizeX="1" sizeY="1">{dimensions}</pixels><scanSettings>'
        f"<objectiveSettings><objective>{field.objective}</objective></objectiveSettings>"
        f"<illuminationSettings><numericalAperture>0.4</numericalAperture><illuminationSource>"
        f"{field.source}</illuminationSource></illuminationSettings></scanSettings></image>"
    )
