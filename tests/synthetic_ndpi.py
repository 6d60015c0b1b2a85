"""NDPI slides that tests make for themselves: directories in Hamamatsu's layout, JPEGs by Pillow.

Pillow writes the restart markers; what is around them is the format's (see formats/ndpi.py).
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO

import imagecodecs
import numpy as np
from PIL import Image

from tests.synthetic_slides import chunks, tissue

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

ASCII, SHORT, LONG, RATIONAL, SLONG, FLOAT = 2, 3, 4, 5, 9, 11
_CODES = {SHORT: "H", LONG: "I", SLONG: "i", FLOAT: "f"}

PROPERTY_MAP = "Created=2020/01/02\r\nNoFocusPoints=3\r\nEmpty=\r\nOdd line\r\nScanner=C13210=x\r\n"


def encode_jpeg(image: NDArray[np.uint8], *, interval: int, subsampling: str = "4:2:2") -> bytes:
    """One JPEG with a restart marker every `interval` MCUs; 0 for none."""
    file = io.BytesIO()
    picture = Image.fromarray(image)
    options = {} if image.ndim == 2 else {"subsampling": subsampling}
    picture.save(file, "JPEG", quality=85, restart_marker_blocks=interval, **options)
    return file.getvalue()


def scan_start(jpeg: bytes) -> int:
    """Where entropy-coded data begins."""
    at = 2
    while True:
        end = at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
        if jpeg[at + 1] == 0xDA:
            return end
        at = end


def frame_at(jpeg: bytes) -> int:
    """Where the height stands in the frame header."""
    at = 2
    while jpeg[at + 1] != 0xC0:
        at += 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
    return at + 5


def interval_starts(jpeg: bytes) -> NDArray[np.int64]:
    """Where each restart interval begins."""
    data = np.frombuffer(jpeg, np.uint8)
    first = scan_start(jpeg)
    markers = (data[:-1] == 0xFF) & (data[1:] >= 0xD0) & (data[1:] <= 0xD7)
    markers[:first] = False
    return np.append(first, np.flatnonzero(markers) + 2)


@dataclass(kw_only=True)
class NdpiImage:
    """One directory.

    `tags` adds to the usual ones, or replaces them, as (type, value); None leaves one out. `hole`
    is a place in the JPEG and a number of bytes that the file has there and that are not written.
    `tile_nbytes` are the sizes of tiles, which then stand one after the other in place of a JPEG.
    """

    jpeg: bytes
    width: int
    height: int
    lens: float
    plane: int = 0
    starts: NDArray[np.int64] | None = None
    tags: Mapping[int, tuple[int, object] | None] = field(default_factory=dict)
    hole: tuple[int, int] = (0, 0)
    tile_nbytes: tuple[int, ...] = ()

    def all_tags(self, offset: int) -> dict[int, tuple[int, object]]:
        """Entries, with the JPEG at `offset`."""
        tags: dict[int, tuple[int, object] | None] = {
            256: (LONG, [self.width]),
            257: (LONG, [self.height]),
            258: (SHORT, [8, 8, 8]),
            259: (SHORT, [7]),
            262: (SHORT, [6]),
            271: (ASCII, "Hamamatsu"),
            272: (ASCII, "C13210"),
            273: (LONG, [offset]),
            277: (SHORT, [3]),
            278: (LONG, [self.height]),
            279: (LONG, [len(self.jpeg) + self.hole[1]]),
            282: (RATIONAL, (43478, 1)),
            283: (RATIONAL, (40000, 1)),
            296: (SHORT, [3]),
            305: (ASCII, "NDP.scan"),
            65420: (LONG, [1]),
            65421: (FLOAT, [self.lens]),
            65422: (SLONG, [-1500]),
            65423: (SLONG, [2500]),
            65424: (SLONG, [self.plane]),
            65427: (ASCII, "slide-7"),
            65449: (ASCII, PROPERTY_MAP),
        }
        if self.starts is not None:
            tags[65426] = (LONG, (self.starts & 0xFFFFFFFF).tolist())
        if self.tile_nbytes:
            ends = offset + np.cumsum(self.tile_nbytes)
            tags[324] = (LONG, (ends - self.tile_nbytes).tolist())
            tags[325] = (LONG, list(self.tile_nbytes))
            tags[273] = tags[278] = tags[279] = None
        tags |= self.tags
        return {tag: value for tag, value in sorted(tags.items()) if value is not None}


def _packed(kind: int, value: object) -> tuple[int, bytes, int]:
    """Count, bytes and upper half of the first value."""
    if kind == ASCII:
        raw = str(value).encode() + b"\0"
        return len(raw), raw, 0
    if kind == RATIONAL:
        return 1, struct.pack("<II", *value), 0
    values = list(value)
    high = values[0] >> 32 if kind == LONG and len(values) == 1 else 0
    low = [v & 0xFFFFFFFF if kind == LONG else v for v in values]
    return len(values), struct.pack(f"<{len(low)}{_CODES[kind]}", *low), high


def write_ndpi(path: Path, images: list[NdpiImage], *, base: int = 16) -> None:
    """Write a slide whose data begins at `base`, in a sparse file where that is far away."""
    with path.open("wb") as file:
        file.write(b"II*\0")
        link = 4  # where the offset of the next directory is to be written
        file.seek(base)
        for image in images:
            offset = file.tell()
            file.write(image.jpeg[: image.hole[0]])
            file.seek(image.hole[1], io.SEEK_CUR)
            file.write(image.jpeg[image.hole[0] :])
            file.write(bytes(-file.tell() % 16))
            at, following = _write_directory(file, image.all_tags(offset))
            end = file.tell()
            file.seek(link)
            file.write(struct.pack("<Q", at))
            file.seek(end)
            link = following


def _write_directory(file: BinaryIO, tags: dict[int, tuple[int, object]]) -> tuple[int, int]:
    """Write values, then the directory; return its offset, and that of its link to the next."""
    entries, uppers = b"", b""
    for tag, (kind, value) in tags.items():
        count, raw, high = _packed(kind, value)
        if len(raw) > 4 or kind == ASCII:
            at = file.tell()
            file.write(raw + bytes(len(raw) % 2))
            raw, high = struct.pack("<I", at & 0xFFFFFFFF), at >> 32
        entries += struct.pack("<HHI", tag, kind, count) + raw.ljust(4, b"\0")
        uppers += struct.pack("<I", high)
    at = file.tell()
    file.write(struct.pack("<H", len(tags)) + entries + bytes(8))
    link = file.tell() - 8
    file.write(uppers)
    return at, link


def level_image(
    height: int,
    width: int,
    *,
    interval: int,
    lens: float = 20.0,
    subsampling: str = "4:2:2",
    seed: int = 0,
    table: bool = True,
    **options: object,
) -> NdpiImage:
    """A level of smooth colours."""
    jpeg = encode_jpeg(tissue(height, width, seed=seed), interval=interval, subsampling=subsampling)
    starts = interval_starts(jpeg) if table and interval else None
    return NdpiImage(jpeg=jpeg, width=width, height=height, lens=lens, starts=starts, **options)


def wide_image(across: int, down: int, *, interval: int, lens: float = 20.0) -> NdpiImage:
    """A level wider than a JPEG may be, whose header says 0.

    Pillow makes a narrow image with an interval in each row of MCUs; these are those of the wide
    one, one after the other.
    """
    narrow = tissue(8 * across * down, 8 * interval)
    jpeg = bytearray(encode_jpeg(narrow, interval=interval, subsampling="4:4:4"))
    at = frame_at(bytes(jpeg))
    starts = interval_starts(bytes(jpeg))
    jpeg[at : at + 4] = bytes(4)
    width, height = 8 * interval * across, 8 * down
    return NdpiImage(jpeg=bytes(jpeg), width=width, height=height, lens=lens, starts=starts)


def jpegxr_image(image: NDArray[np.generic], tile: int, **options: object) -> NdpiImage:
    """A level of lossless JPEG XR tiles, grey or colour."""
    streams = [
        imagecodecs.jpegxr_encode(np.ascontiguousarray(part.squeeze()))
        for part in chunks(image.reshape(*image.shape[:2], -1), tile, tile)
    ]
    kind = [image.itemsize * 8] * (image.shape[2] if image.ndim == 3 else 1)
    tags = {
        258: (SHORT, kind), 259: (SHORT, [22610]), 262: (SHORT, [2 if len(kind) == 3 else 1]),
        277: (SHORT, [len(kind)]), 322: (LONG, [tile]), 323: (LONG, [tile]),
    }  # fmt: skip
    return NdpiImage(
        jpeg=b"".join(streams),
        tile_nbytes=tuple(map(len, streams)),
        width=image.shape[1],
        height=image.shape[0],
        lens=20.0,
        tags=tags | dict(options.pop("tags", {})),
        **options,
    )


def usual_slide(subsampling: str = "4:2:2") -> list[NdpiImage]:
    """Three levels, a macro image and a map."""
    mcu = 8 if subsampling == "4:4:4" else 16
    return [
        level_image(304, 1024, interval=512 // mcu, lens=20.0, subsampling=subsampling),
        level_image(152, 512, interval=256 // mcu, lens=10.0, subsampling=subsampling, seed=1),
        level_image(80, 128, interval=0, lens=5.0, subsampling=subsampling, seed=2),
        level_image(60, 90, interval=0, lens=-1.0, subsampling=subsampling, seed=3),
        level_image(33, 47, interval=0, lens=-2.0, subsampling=subsampling, seed=4),
    ]
