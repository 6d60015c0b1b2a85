"""Philips TIFF that tests make for themselves, after OpenSlide's and tifffile's description."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

import imagecodecs
import numpy as np
import tifffile

from tests.synthetic_slides import chunks, encode_jpeg, tissue

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

TILE = 64


@dataclass(frozen=True, kw_only=True)
class PhilipsRecipe:
    """What `make_philips` writes; `missing` maps a level to the tiles that get no bytes."""

    height: int = 250
    width: int = 300
    n_levels: int = 3
    missing: Mapping[int, tuple[int, ...]] = field(default_factory=lambda: MappingProxyType({}))
    spacing_mm: tuple[float, float] = (0.000227, 0.000225)
    associated_in_xml: bool = True
    wsi_images: int = 1

    def level(self, index: int) -> NDArray[np.uint8]:
        """Pixels of a level before encoding, without padding."""
        step = 2**index
        full = tissue(self.height, self.width)
        return np.ascontiguousarray(
            full[::step, ::step][: self.height // step, : self.width // step]
        )


def jpeg_file(image: NDArray[np.uint8]) -> bytes:
    """A whole JPEG file, as the XML holds it."""
    return bytes(imagecodecs.jpeg8_encode(image, level=90))


LABEL, MACRO = tissue(40, 30, seed=5), tissue(35, 61, seed=6)


def _attribute(name: str, value: str, group: str = "0x301D") -> str:
    start = f'<Attribute Name="{name}" Group="{group}" Element="0x1000" PMSVR="IString">'
    return f"{start}{value}</Attribute>"


def _image(kind: str, *more: str) -> str:
    inner = _attribute("PIM_DP_IMAGE_TYPE", kind) + "".join(more)
    return f'<DataObject ObjectType="DPScannedImage">{inner}</DataObject>'


def description(recipe: PhilipsRecipe) -> str:
    """The XML document."""

    def spacing(index: int) -> str:
        rows, columns = (f"{mm * 2**index:.9f}" for mm in recipe.spacing_mm)
        return _attribute(
            "DICOM_PIXEL_SPACING", f"&quot;{rows}&quot; &quot;{columns}&quot;", "0x0028"
        )

    levels = "".join(
        f'<DataObject ObjectType="PixelDataRepresentation">{spacing(index)}'
        f"{_attribute('PIIM_PIXEL_DATA_REPRESENTATION_NUMBER', str(index))}</DataObject>"
        for index in range(recipe.n_levels)
    )
    representations = _attribute(
        "PIIM_PIXEL_DATA_REPRESENTATION_SEQUENCE", f"<Array>{levels}</Array>", "0x1001"
    )
    images = [
        _image(
            "WSI",
            spacing(0),
            _attribute("DICOM_DERIVATION_DESCRIPTION", "a-levels=40,20,10"),
            representations,
        )
    ] * recipe.wsi_images
    if recipe.associated_in_xml:
        for kind, image in (("LABELIMAGE", LABEL), ("MACROIMAGE", MACRO)):
            text = base64.b64encode(jpeg_file(image)).decode()
            images.append(_image(kind, _attribute("PIM_DP_IMAGE_DATA", text)))
    scanned = _attribute("PIM_DP_SCANNED_IMAGES", f"<Array>{''.join(images)}</Array>")
    maker = _attribute("DICOM_MANUFACTURER", "PHILIPS", "0x0008")
    head = '<?xml version="1.0" encoding="UTF-8" ?>\n<DataObject ObjectType="DPUfsImport">'
    return f"{head}{maker}{scanned}</DataObject>"


def make_philips(recipe: PhilipsRecipe) -> bytes:
    """Bytes of a slide: padded levels, and label and macro in pages or in the XML."""
    file = io.BytesIO()
    with tifffile.TiffWriter(file, bigtiff=True) as writer:
        for index in range(recipe.n_levels):
            image = recipe.level(index)
            pairs = [encode_jpeg(tile, "jpeg-420") for tile in chunks(image, TILE, TILE)]
            streams = [stream for _, stream in pairs]
            for at in recipe.missing.get(index, ()):
                streams[at] = b""
            height, width = image.shape[:2]
            if index:  # sizes of coarser levels include the padding
                height, width = -(-height // TILE) * TILE, -(-width // TILE) * TILE
            writer.write(
                iter(streams), shape=(height, width, 3), dtype=np.uint8, tile=(TILE, TILE),
                photometric="rgb", compression=7, jpegtables=pairs[0][0], subsampling=(2, 2),
                compressionargs={"outcolorspace": "ycbcr"}, subfiletype=1 if index else 0,
                description=description(recipe) if index == 0 else "", metadata=None,
                software="Philips DP v1.0" if index == 0 else False,
            )  # fmt: skip
        if not recipe.associated_in_xml:
            for name, image in (("Label", LABEL), ("Macro", MACRO)):
                writer.write(
                    image, photometric="rgb", compression="lzw", subfiletype=1, software=False,
                    description=name, metadata=None, rowsperstrip=16,
                )  # fmt: skip
    return file.getvalue()
