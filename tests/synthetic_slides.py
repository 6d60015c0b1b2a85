"""Slides that tests make for themselves: Aperio SVS files of every compression, and their truth.

tifffile writes the container, imagecodecs the streams; neither is what is tested.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

import imagecodecs
import numpy as np
import tifffile

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

DESCRIPTION = (
    "Aperio Image Library v11.2.1 \r\n{width}x{height} [0,0 {width}x{height}] ({tile}x{tile}) {how}"
    "|AppMag = 20|MPP = 0.4990|Filename = synthetic|Left = 25.691574|Empty =|odd part"
)

COMPRESSION = MappingProxyType(
    {
        "jpeg-rgb": 7,
        "jpeg-444": 7,
        "jpeg-420": 7,
        "j2k-rgb": 33005,
        "j2k-ycbcr": 33003,
        "j2k-ycbcr-422": 33003,
        "deflate": 8,
        "lzw": 5,
        "none": 1,
    }
)
LOSSLESS = ("j2k-rgb", "deflate", "lzw", "none")


def tissue(height: int, width: int, *, seed: int = 0) -> NDArray[np.uint8]:
    """Smooth colours with some grain; uint8 ``(height, width, 3)``."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [128 + 90 * np.sin(x / (9 + 7 * c) + seed) * np.cos(y / (13 + 5 * c)) for c in range(3)]
    grain = rng.integers(-6, 7, (height, width, 1))
    return np.clip(np.stack(waves, -1) + grain, 0, 255).astype(np.uint8)


def chunks(image: NDArray[np.uint8], rows: int, columns: int) -> Iterator[NDArray[np.uint8]]:
    """Full-size tiles of an image in row-major order, its edge repeated."""
    height, width = image.shape[:2]
    pad = ((0, -height % rows), (0, -width % columns), (0, 0))
    padded = np.pad(image, pad, mode="edge")
    for top in range(0, height, rows):
        for left in range(0, width, columns):
            yield padded[top : top + rows, left : left + columns]


def encode_jpeg(tile: NDArray[np.uint8], kind: str) -> tuple[bytes, bytes]:
    """Shared tables and abbreviated stream; RGB streams look like Aperio's (ids 0, 1, 2)."""
    stream = imagecodecs.jpeg8_encode(
        tile,
        level=80,
        colorspace="rgb",
        outcolorspace="rgb" if kind == "jpeg-rgb" else "ycbcr",
        subsampling="420" if kind == "jpeg-420" else "444",
    )
    tables, body, at = b"", b"", 2
    while True:
        marker = stream[at + 1]
        end = at + 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
        segment = bytearray(stream[at:end])
        if marker in (0xDB, 0xC4):
            tables += segment
        elif marker in (0xC0, 0xDA):
            if kind == "jpeg-rgb":
                first, step = (10, 3) if marker == 0xC0 else (5, 2)
                segment[first : first + 3 * step : step] = bytes(range(3))
            body += segment
        at = end
        if marker == 0xDA:
            return b"\xff\xd8" + tables + b"\xff\xd9", b"\xff\xd8" + body + bytes(stream[at:])


def rgb_to_ycbcr(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Full-range BT.601."""
    matrix = [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]
    return np.clip(np.rint(image @ np.array(matrix).T + [0, 128, 128]), 0, 255).astype(np.uint8)


def encode_j2k(tile: NDArray[np.uint8], kind: str) -> bytes:
    """Reversible codestream: RGB with component transform, or YCbCr without."""
    options = {"codecformat": "j2k", "reversible": True, "level": 0, "resolutions": 2}
    if kind == "j2k-rgb":
        return bytes(imagecodecs.jpeg2k_encode(tile, mct=True, **options))
    ycbcr = rgb_to_ycbcr(tile)
    if kind == "j2k-ycbcr":
        return bytes(imagecodecs.jpeg2k_encode(ycbcr, mct=False, **options))
    return encode_subsampled_j2k(ycbcr, **options)


def encode_subsampled_j2k(ycbcr: NDArray[np.uint8], rows: int = 1, **options) -> bytes:
    """Codestream with 2x1 chroma, or 2x2 for two `rows`; `options` of imagecodecs."""
    planes = [ycbcr[..., 0], ycbcr[::rows, ::2, 1], ycbcr[::rows, ::2, 2]]
    return _join_components(
        [imagecodecs.jpeg2k_encode(np.ascontiguousarray(p), **options) for p in planes], rows
    )


def _join_components(streams: list[bytes], rows: int) -> bytes:
    """Three one-component codestreams as one, which imagecodecs cannot encode.

    In progression order CPRL, with one tile-part, one layer and one precinct per resolution, the
    packets of a component follow one another, so the three bodies are simply put in a row.
    """
    parts = []
    for stream in streams:
        at, segments = 2, []
        while stream[at : at + 2] != b"\xff\x90":
            end = at + 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
            segments.append(bytearray(stream[at:end]))
            at = end
        tile_end = at + int.from_bytes(stream[at + 6 : at + 10], "big")
        body = stream[stream.index(b"\xff\x93", at) + 2 : tile_end]
        parts.append((segments, bytearray(stream[at : at + 12]), body))
    segments, sot, _ = parts[0]
    siz, cod, qcd = segments[:3]
    assert all(other[0][2] == qcd for other in parts)
    siz[38:] = struct.pack(">H", 3) + bytes([7, 1, 1, 7, 2, rows, 7, 2, rows])
    siz[2:4] = struct.pack(">H", len(siz) - 2)
    cod[5] = 4  # CPRL
    body = b"".join(part[2] for part in parts)
    sot[6:10] = struct.pack(">I", len(body) + 14)
    return b"\xff\x4f" + bytes(siz + cod + qcd + sot) + b"\xff\x93" + body + b"\xff\xd9"


@dataclass(frozen=True, kw_only=True)
class SlideRecipe:
    """What `make_svs` writes; `missing` maps a level to the tiles that get no bytes."""

    kind: str = "jpeg-rgb"
    height: int = 331
    width: int = 287
    tile: int = 64
    n_levels: int = 3
    description: str = DESCRIPTION
    missing: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    associated: bool = True
    big: bool = False
    byteorder: str = "<"
    icc_profile: bytes | None = None

    def level(self, index: int) -> NDArray[np.uint8]:
        """Pixels of a level before encoding."""
        full = tissue(self.height, self.width)
        step = 2**index
        return np.ascontiguousarray(full[: self.height // step * step : step, ::step])


def make_svs(recipe: SlideRecipe) -> bytes:
    """Bytes of an Aperio slide: level 0, thumbnail, other levels, label, macro."""
    file = io.BytesIO()
    with tifffile.TiffWriter(file, bigtiff=recipe.big, byteorder=recipe.byteorder) as writer:
        for index in range(recipe.n_levels):
            _write_level(writer, recipe, index)
            if index == 0 and recipe.associated:
                thumbnail = "Aperio Image Library v11.2.1 \r\n287x331 -> 40x46 - |AppMag = 20"
                _write_strips(writer, tissue(46, 40, seed=1), thumbnail, 0)
        if recipe.associated:
            label = "Aperio Image Library v11.2.1 \r\nlabel 39x50"
            writer.write(
                tissue(50, 39, seed=2), photometric="rgb", compression="lzw", predictor=2,
                rowsperstrip=7, subfiletype=1, description=label, metadata=None, software=False,
            )  # fmt: skip
            macro = "Aperio Image Library v11.2.1 \r\nmacro 64x40"
            _write_strips(writer, tissue(40, 64, seed=3), macro, 9)
    return file.getvalue()


def _write_level(writer: tifffile.TiffWriter, recipe: SlideRecipe, index: int) -> None:
    image, kind, tile = recipe.level(index), recipe.kind, recipe.tile
    how = {"jpeg": "JPEG/RGB Q=30", "j2k": "J2K/KDU"}.get(kind.split("-")[0], kind)
    text = recipe.description
    if text == DESCRIPTION:
        text = text.format(width=recipe.width, height=recipe.height, tile=tile, how=how)
    options = {
        "tile": (tile, tile), "shape": image.shape, "dtype": np.uint8, "metadata": None,
        "photometric": "rgb", "compression": COMPRESSION[kind],
        "description": text, "software": False, "iccprofile": None if index else recipe.icc_profile,
    }  # fmt: skip
    if kind in ("deflate", "lzw"):
        options["predictor"] = 2
    encoded: list[bytes] = []
    for data in chunks(image, tile, tile):
        if kind.startswith("jpeg"):
            options["jpegtables"], stream = encode_jpeg(data, kind)
            options |= _jpeg_options(kind)
        elif kind.startswith("j2k"):
            stream = encode_j2k(data, kind)
        elif kind == "none":
            stream = data.tobytes()
        else:
            differences = np.diff(data, axis=1, prepend=np.uint8(0)).tobytes()
            encode = imagecodecs.lzw_encode if kind == "lzw" else imagecodecs.zlib_encode
            stream = bytes(encode(differences))
        encoded.append(stream)
    for at in recipe.missing.get(index, ()):
        encoded[at] = b""
    writer.write(iter(encoded), **options)


def _jpeg_options(kind: str) -> dict[str, object]:
    """Make tifffile write the photometric tag (2 or 6) and YCbCrSubSampling that we want."""
    space = "rgb" if kind == "jpeg-rgb" else "ycbcr"
    subsampling = (2, 2) if kind == "jpeg-420" else (1, 1)
    return {"compressionargs": {"outcolorspace": space}, "subsampling": subsampling}


def _write_strips(
    writer: tifffile.TiffWriter, image: NDArray[np.uint8], description: str, subfiletype: int
) -> None:
    """JPEG/RGB strips of 16 rows; the last one is short."""
    pairs = [encode_jpeg(image[top : top + 16], "jpeg-rgb") for top in range(0, len(image), 16)]
    writer.write(
        iter([stream for _, stream in pairs]), shape=image.shape, dtype=np.uint8, photometric="rgb",
        compression=7, **_jpeg_options("jpeg-rgb"), jpegtables=pairs[0][0], rowsperstrip=16,
        subfiletype=subfiletype, description=description, metadata=None, software=False,
    )  # fmt: skip
