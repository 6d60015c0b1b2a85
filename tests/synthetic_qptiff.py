"""QPTIFF that tests make for themselves, after PerkinElmer's description and tifffile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import tifffile

from tests.synthetic_ome_tiff import noise
from tests.synthetic_slides import tissue

if TYPE_CHECKING:
    from pathlib import Path

BANDS = (("DAPI", "0,0,255"), ("CD8", "255,128,0"), ("Autofluorescence", "0,0,0"))
LABEL, MACRO, THUMBNAIL = tissue(30, 20), tissue(25, 60, seed=1), tissue(24, 33, seed=2)


@dataclass(frozen=True, kw_only=True)
class QptiffRecipe:
    """What `write_qptiff` writes."""

    height: int = 192
    width: int = 264
    n_levels: int = 3
    bands: int = 3
    rgb: bool = False
    described: bool = True
    dtype: str = "uint16"
    dropped: int = 0

    def level(self, index: int) -> np.ndarray:
        """Bands first, or colours last."""
        step = 2**index
        if self.rgb:
            return np.ascontiguousarray(tissue(self.height, self.width)[::step, ::step])
        image = noise((self.bands, self.height, self.width), self.dtype)
        return np.ascontiguousarray(image[:, ::step, ::step])


def _xml(kind: str, name: str | None = None, color: str | None = None) -> str:
    parts = f"<ImageType>{kind}</ImageType><Objective>20x</Objective>"
    if name is not None:
        parts += f"<Name>{name}</Name><Color>{color}</Color>"
    return (
        '<?xml version="1.0" encoding="utf-16"?>\n<PerkinElmer-QPI-ImageDescription>'
        f"<DescriptionVersion>5</DescriptionVersion>{parts}</PerkinElmer-QPI-ImageDescription>"
    )


def write_qptiff(path: Path, recipe: QptiffRecipe) -> None:
    """Bands of level 0, thumbnail, bands of coarser levels, overview, label."""
    with tifffile.TiffWriter(path, bigtiff=True) as writer:

        def write(image: np.ndarray, text: str, **options: object) -> None:
            writer.write(
                image, description=text if recipe.described else "", metadata=None,
                software="PerkinElmer-QPI", resolution=(20000, 20000),
                resolutionunit="CENTIMETER", **options,
            )  # fmt: skip

        for index in range(recipe.n_levels):
            kind = "ReducedResolution" if index else "FullResolution"
            pages = [recipe.level(index)] if recipe.rgb else list(recipe.level(index))
            for band, page in enumerate(pages[: len(pages) - (recipe.dropped if index else 0)]):
                name, color = (None, None) if recipe.rgb else BANDS[band % len(BANDS)]
                write(
                    page, _xml(kind, name, color), tile=(64, 64), subfiletype=1 if index else 0,
                    compression="lzw", photometric="rgb" if recipe.rgb else "minisblack",
                )  # fmt: skip
            if index == 0:
                write(THUMBNAIL, _xml("Thumbnail"), photometric="rgb", subfiletype=1)
        write(MACRO, _xml("Overview"), photometric="rgb", subfiletype=1)
        write(LABEL, _xml("Label"), photometric="rgb", subfiletype=1)
