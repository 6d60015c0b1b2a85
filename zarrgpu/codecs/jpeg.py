"""Baseline, extended and progressive JPEG of 8 bits, as TIFF tiles and strips hold it.

Spec: ITU-T T.81; TIFF Technical Note 2 (shared tables, tag 347). TIFF compression 7; no Zarr name.
Example: ``CodecSpec("jpeg", {"height": 240, "width": 240, "samples": 3, "colorspace": "rgb",
"tables": b"..."})``, and ``"short_height": 15`` where the last strip of a page has fewer rows.

`colorspace` says what is stored and comes from the TIFF photometric tag. What is decoded is RGB,
grey, or what is stored. libjpeg's own guess from markers and component ids is wrong for Aperio
(facts/slides.md: RGB with ids 0, 1, 2 and no Adobe marker is taken for YCbCr).

libjpeg fills what a cut-off stream does not hold with grey and only warns, and imagecodecs does
not pass warnings on. So the end-of-image marker is looked for here: entropy-coded data cannot
contain it, hence any truncation is found. Where there is the compiled library, libjpeg is asked
again for its warnings, which OpenSlide takes for errors too: data that ends before the image does,
codes and markers that are none. JPEG has no checksum: flipped bits that make other valid codes are
not found.

On a CUDA device nvJPEG decodes baseline streams (`device_images`); chroma and colour are computed
as here, bit for bit, but its inverse DCT rounds in its own way: samples may differ by
`device_images.TOLERANCE`.

The compiled executor decodes plain streams, of one scan without markers in it: by itself where the
processor has AVX2 (``kernels/host/jpeg_plain.cpp``, libjpeg-turbo's pixels), and of them only the
area that is needed; otherwise by libjpeg, and the rows that are needed (``jpeg.cpp``). What libjpeg
warns of is left to this module. Entropy-coded data behind the last of these rows is not looked at,
but for markers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

import numpy as np

from zarrgpu.codecs.base import CodecError, checked
from zarrgpu.codecs.configuration import one_of, positive_int, short_height
from zarrgpu.codecs.imagecodecs_call import call_imagecodecs
from zarrgpu.devices.native import jpeg_library
from zarrgpu.errors import UnsupportedCodecError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zarrgpu.model import ByteArray

DAMAGED: Final = (
    "JPEG data is damaged: it ends before the image does, or holds codes or markers that are none"
)
"""What libjpeg only warns of."""

_EOI: Final = b"\xff\xd9"
_SOS: Final = 0xDA
_SOS_MARKER: Final = b"\xff\xda"
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_STANDALONE: Final = frozenset({0x01, *range(0xD0, 0xD9)})
_SEQUENTIAL: Final = frozenset({0xC0, 0xC1})
_MAX_SCANS: Final = 256
"""Encoders make some ten. Each goes over the whole image, whatever it holds: a few bytes."""
_MAX_PADDING_NBYTES: Final = 3
"""Arbitrary bytes after the end that word alignment explains; zeros and 0xFF may be more."""

_LIBJPEG_SPACES: Final = MappingProxyType(
    {"gray": (1, 1), "rgb": (2, 2), "ycbcr": (3, 2), "unknown": (0, 0)}
)
"""J_COLOR_SPACE of the stream and of the result (jpeglib.h)."""

_SAMPLES: Final = MappingProxyType(
    {"gray": (1,), "rgb": (3,), "ycbcr": (3,), "unknown": (1, 2, 3, 4)}
)


@dataclass(frozen=True, slots=True)
class JpegHeader:
    """What a JPEG stream says before its first scan.

    Attributes
    ----------
    frame : int
        Second byte of the start-of-frame marker; 0xC0 is baseline.
    precision : int
        Bits per sample.
    height, width, samples : int
    scan_offset : int
        Where the first scan header ends and entropy-coded data begins.
    """

    frame: int
    precision: int
    height: int
    width: int
    samples: int
    scan_offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JpegCodec:
    """JPEG by libjpeg-turbo (imagecodecs).

    Attributes
    ----------
    height, width, samples : int
        What the stream must hold; `samples` is 1 or 3, in an unknown colour space up to 4.
    colorspace : "gray", "rgb", "ycbcr" or "unknown"
        What is stored; samples of an unknown one, such as CMYK, stay as they are.
    tables : bytes
        Abbreviated table stream, shared by all chunks; empty if each has its own.
    short_height : int or None
        Rows that the last strip may have instead of `height`.
    """

    name: ClassVar[str] = "jpeg"
    height: int
    width: int
    samples: int
    colorspace: str
    tables: bytes = field(repr=False)
    short_height: int | None

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, Any]) -> Self:
        """Take the attributes by name; ``tables`` and ``short_height`` may be left out."""
        height = positive_int(cls.name, configuration, "height")
        colorspace = one_of(cls.name, configuration, "colorspace", tuple(_LIBJPEG_SPACES))
        samples = one_of(cls.name, configuration, "samples", _SAMPLES[colorspace])
        tables = configuration.get("tables", b"")
        if not isinstance(tables, bytes):
            msg = f"codec {cls.name!r}: tables must be bytes, got {type(tables).__name__}"
            raise UnsupportedCodecError(msg)
        return cls(
            height=height,
            width=positive_int(cls.name, configuration, "width"),
            samples=samples,
            colorspace=colorspace,
            tables=tables,
            short_height=short_height(cls.name, configuration, height),
        )

    @property
    def libjpeg_spaces(self) -> tuple[int, int]:
        """J_COLOR_SPACE of the stream and of the result (jpeglib.h); 0 leaves it to libjpeg."""
        return _LIBJPEG_SPACES[self.colorspace]

    def encoded_nbytes(self, decoded_nbytes: int) -> None:
        """Depends on the data."""

    def decode_part_host(
        self, encoded: ByteArray, start: int, nbytes: int, decoded_nbytes: int
    ) -> ByteArray:
        """Decode all of it: only the compiled executor can leave rows out."""
        return self.decode_host(encoded, decoded_nbytes, None)[start : start + nbytes]

    def decode_host(self, encoded: ByteArray, nbytes: int, out: ByteArray | None) -> ByteArray:
        """Decode into `out`, uint8 ``(rows, width, samples)``."""
        data = encoded.tobytes()
        header = read_header(data)
        self._check(header)
        check_end(data, header)
        size = checked(header.height * header.width * header.samples, nbytes, exact=out is not None)
        if out is None:
            out = np.empty(size, np.uint8)
        shape: tuple[int, ...] = (header.height, header.width)
        if self.samples > 1:
            shape = (*shape, self.samples)
        stored, wanted = self.libjpeg_spaces
        call_imagecodecs(
            "jpeg8_decode",
            data,
            tables=self.tables or None,
            colorspace=stored,
            outcolorspace=wanted,
            out=out.reshape(shape),
        )
        self._check_data(data, header)
        return out

    def _check_data(self, data: bytes, header: JpegHeader) -> None:
        """Refuse what libjpeg completed with what was not encoded, where it can be asked."""
        library, shape = jpeg_library(), (header.height, header.width, self.samples)
        if library and library.jpeg_warns(data, shape, self.libjpeg_spaces, self.tables):
            raise CodecError(DAMAGED)

    def _check(self, header: JpegHeader) -> None:
        if header.precision != 8:
            msg = f"JPEG of {header.precision} bits per sample, expected 8"
            raise CodecError(msg)
        heights = (self.height,) if self.short_height is None else (self.height, self.short_height)
        got = (header.width, header.samples)
        if header.height not in heights or got != (self.width, self.samples):
            msg = (
                f"JPEG of {header.height} x {header.width} x {header.samples}, expected "
                f"{' or '.join(map(str, heights))} x {self.width} x {self.samples}"
            )
            raise CodecError(msg)


def read_header(data: bytes) -> JpegHeader:
    """Walk the marker segments up to the first scan; `CodecError` if they do not reach it."""
    if data[:2] != b"\xff\xd8":
        msg = f"not a JPEG stream: starts with {data[:4].hex() or 'nothing'}"
        raise CodecError(msg)
    frame: tuple[int, int, int, int, int] | None = None
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker in _STANDALONE:
            at += 2
            continue
        nbytes = int.from_bytes(data[at + 2 : at + 4], "big")
        end = at + 2 + nbytes
        if marker in _FRAMES and nbytes >= 8:
            body = data[at + 4 : at + 10].ljust(6, b"\0")
            height, width = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
            frame = (marker, body[0], height, width, body[5])
        if nbytes < 2 or end > len(data):
            break
        if marker == _SOS:
            if frame is None:
                raise CodecError("JPEG scan without a frame header")
            return JpegHeader(*frame, end)
        at = end
    msg = f"JPEG stream of {len(data)} bytes is cut off or damaged before its first scan"
    raise CodecError(msg)


def check_end(data: bytes, header: JpegHeader) -> None:
    """Demand an end-of-image marker, in a sequential stream none before the end, and few scans."""
    if header.frame in _SEQUENTIAL:
        at = data.find(_EOI, header.scan_offset)
    else:  # tables between progressive scans may contain the two bytes
        at = data.rfind(_EOI, header.scan_offset)
    if at < 0:
        msg = f"JPEG stream is cut off: no end-of-image marker in {len(data)} bytes"
        raise CodecError(msg)
    scans = 1 + data.count(_SOS_MARKER, header.scan_offset, at)
    if scans > _MAX_SCANS:
        msg = f"JPEG of {scans} scans, at most {_MAX_SCANS} are decoded"
        raise CodecError(msg)
    rest = data[at + 2 :]
    if len(rest) > _MAX_PADDING_NBYTES and rest.strip(b"\0\xff"):
        msg = f"JPEG stream ends at byte {at + 2} of {len(data)}: damaged, or with data behind it"
        raise CodecError(msg)
