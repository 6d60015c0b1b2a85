"""What a JPEG 2000 codestream says of itself, read before a decoder allocates anything.

Spec: ITU-T T.800, A.4 (delimiting markers), A.5.1 (SIZ), I.4 (JP2 boxes).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from zarrgpu.codecs.base import CodecError

_JP2_SIGNATURE: Final = b"\0\0\0\x0cjP  "
_SOC_SIZ: Final = b"\xff\x4f\xff\x51"
_SOT: Final = b"\xff\x90"
_EOC: Final = b"\xff\xd9"
_MAX_TILES: Final = 4096
"""OpenJPEG allocates some 10 kB for each tile that a header claims."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Codestream:
    """A complete codestream and the contents of its SIZ marker.

    Attributes
    ----------
    data : bytes
        Without JP2 boxes, with an end marker.
    height, width : int
    precision : int
        Bits per sample, the same for all components.
    signed : bool
    subsampling : tuple of (int, int)
        Horizontal and vertical, per component.
    """

    data: bytes
    height: int
    width: int
    precision: int
    signed: bool
    subsampling: tuple[tuple[int, int], ...]

    @property
    def chroma_is_full_size(self) -> bool:
        """Whether no component is subsampled."""
        return all(step == (1, 1) for step in self.subsampling)


def read_codestream(data: bytes) -> Codestream:
    """Parse a codestream, bare or in a JP2 file, and find out whether it is complete.

    The colour boxes of a JP2 file are ignored: colour is for the caller's tags to say.

    Raises
    ------
    CodecError
        Not a codestream, cut off, or of a kind that no image of ours can have.
    """
    if data.startswith(_JP2_SIGNATURE):
        data = _contiguous_codestream(data)
    if not data.startswith(_SOC_SIZ) or len(data) < 42:
        msg = f"not a JPEG 2000 codestream: {len(data)} bytes, starts with {data[:4].hex()}"
        raise CodecError(msg)
    (x1, y1, x0, y0, tile_w, tile_h, tile_x0, tile_y0, n_components) = struct.unpack_from(
        ">8IH", data, 8
    )
    components = data[42 : 42 + 3 * n_components]
    if not n_components or len(components) != 3 * n_components or not (tile_w and tile_h):
        raise CodecError("damaged JPEG 2000 size marker")
    if x1 <= x0 or y1 <= y0 or tile_x0 > x0 or tile_y0 > y0:
        raise CodecError("damaged JPEG 2000 size marker")
    n_tiles = -(-(x1 - tile_x0) // tile_w) * -(-(y1 - tile_y0) // tile_h)
    if n_tiles > _MAX_TILES:
        msg = f"JPEG 2000 codestream of {n_tiles} tiles, expected at most {_MAX_TILES}"
        raise CodecError(msg)
    if len({*components[::3]}) > 1:
        raise CodecError("JPEG 2000 components of different depths")
    return Codestream(
        data=_completed(data),
        height=y1 - y0,
        width=x1 - x0,
        precision=(components[0] & 0x7F) + 1,
        signed=bool(components[0] & 0x80),
        subsampling=tuple(zip(components[1::3], components[2::3], strict=True)),
    )


def _contiguous_codestream(data: bytes) -> bytes:
    """Contents of the ``jp2c`` box."""
    at = 0
    while at + 8 <= len(data):
        nbytes, kind = struct.unpack_from(">I4s", data, at)
        header = 8
        if nbytes == 1 and at + 16 <= len(data):
            (nbytes,) = struct.unpack_from(">Q", data, at + 8)
            header = 16
        end = len(data) if nbytes == 0 else at + nbytes
        if kind == b"jp2c":
            return data[at + header : end]
        if end < at + header:
            break
        at = end
    raise CodecError("JP2 file without a codestream")


def _completed(data: bytes) -> bytes:
    """Return `data` with an end marker after its last tile-part; `CodecError` if it is cut off."""
    at = 2
    while data[at : at + 2] != _SOT:  # main header
        if at + 4 > len(data) or data[at] != 0xFF:
            msg = f"JPEG 2000 codestream of {len(data)} bytes is cut off in its header"
            raise CodecError(msg)
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    while data[at : at + 2] == _SOT:
        nbytes = int.from_bytes(data[at + 6 : at + 10], "big")
        if nbytes == 0:  # last tile-part, reaches to the end marker
            if not data.removesuffix(b"\0").endswith(_EOC):  # DICOM pads to an even size
                raise CodecError("JPEG 2000 codestream is cut off: no end marker")
            return data
        at += max(nbytes, 12)
    if at > len(data):
        msg = f"JPEG 2000 codestream is cut off: {len(data)} bytes, its tile-parts need {at}"
        raise CodecError(msg)
    return data if data[at : at + 2] == _EOC else data[:at] + _EOC
