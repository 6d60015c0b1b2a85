"""Restart intervals of one large JPEG, each decoded as an image of its own (Hamamatsu NDPI).

Spec: ITU-T T.81, B.2.1 (restart intervals), E.1.4 (decoders start anew at each). zarrgpu's own, no
Zarr name. Example: ``CodecSpec("restart_jpeg", {"header": b"...", "height": 8, "width": 1024,
"samples": 3, "colorspace": "ycbcr", "down": 1, "across": 1})``.

A chunk is a run of consecutive intervals: some within one row of MCUs (``down`` is 1), or several
whole rows. Its bytes begin with the two bytes before the first interval, a restart marker or the
end of the scan header, and end with the marker behind the last. So what a table of interval starts
claims is checked: every interval lies between two markers that follow one another in number.
Intervals are decoded apart, as OpenSlide does, so that interpolated chroma does not cross their
edges. As of any JPEG, flipped bits inside of an interval that make other valid codes are not found;
others are where there is the compiled library, which decodes plain intervals (`jpeg`).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

import numpy as np

from zarrgpu.codecs.base import CodecError, checked
from zarrgpu.codecs.configuration import one_of, positive_int
from zarrgpu.codecs.imagecodecs_call import call_imagecodecs
from zarrgpu.codecs.jpeg import DAMAGED
from zarrgpu.devices.native import jpeg_library
from zarrgpu.errors import UnsupportedCodecError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zarrgpu.model import ByteArray

_SPACES: Final = MappingProxyType({"gray": (1, 1), "rgb": (2, 2), "ycbcr": (3, 2)})
"""J_COLOR_SPACE of the stream and of the result (jpeglib.h)."""

_SCAN_HEADER_END: Final = b"\x3f\x00"
"""Se and Ah/Al of a sequential scan: what lies before the first interval of an image."""

_RST0, _RST7, _EOI = 0xD0, 0xD7, 0xD9
_END: Final = b"\xff\xd9"
_MAX_PADDING_NBYTES: Final = 3
"""Arbitrary bytes after the end that word alignment explains; zeros and 0xFF may be more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartJpegCodec:
    """Baseline JPEG by libjpeg-turbo (imagecodecs), an interval at a time.

    Attributes
    ----------
    header : bytes
        Everything before the entropy-coded data of an image of `height` x `width`, without DRI.
    height, width, samples : int
        Of an interval; `samples` is 1 or 3.
    colorspace : "gray", "rgb" or "ycbcr"
        What is stored.
    down, across : int
        Intervals of a chunk; `across` is as wide as the image where `down` is not 1.
    short_down : int or None
        Rows of intervals in the last chunk, where they are fewer than `down`.
    """

    name: ClassVar[str] = "restart_jpeg"
    header: bytes = field(repr=False)
    height: int
    width: int
    samples: int
    colorspace: str
    down: int
    across: int
    short_down: int | None

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, Any]) -> Self:
        """Take the attributes by name; ``short_down`` may be left out."""
        header = configuration.get("header")
        if not isinstance(header, bytes):
            msg = f"codec {cls.name!r}: header must be bytes, got {type(header).__name__}"
            raise UnsupportedCodecError(msg)
        colorspace = one_of(cls.name, configuration, "colorspace", tuple(_SPACES))
        samples = 1 if colorspace == "gray" else 3
        one_of(cls.name, configuration, "samples", (samples,))
        short = configuration.get("short_down")
        return cls(
            header=header,
            height=positive_int(cls.name, configuration, "height"),
            width=positive_int(cls.name, configuration, "width"),
            samples=samples,
            colorspace=colorspace,
            down=positive_int(cls.name, configuration, "down"),
            across=positive_int(cls.name, configuration, "across"),
            short_down=short
            if short is None
            else positive_int(cls.name, configuration, "short_down"),
        )

    def encoded_nbytes(self, decoded_nbytes: int) -> None:
        """Depends on the data."""

    def decode_host(self, encoded: ByteArray, nbytes: int, out: ByteArray | None) -> ByteArray:
        """Decode into `out`, uint8 ``(down * height, across * width, samples)``."""
        shape = (self.down * self.height, self.across * self.width, self.samples)
        checked(shape[0] * shape[1] * shape[2], nbytes, exact=True)
        edges = self._edges(encoded)
        if out is None:
            out = np.empty(nbytes, np.uint8)
        image = out.reshape(shape)
        for number, (first, last) in enumerate(itertools.pairwise(edges)):
            row, column = divmod(number, self.across)
            rows = slice(row * self.height, (row + 1) * self.height)
            columns = slice(column * self.width, (column + 1) * self.width)
            self._decode(encoded[first + 2 : last], image[rows, columns])
        image[(len(edges) - 1) // self.across * self.height :] = 0  # beyond the image
        return out

    def _decode(self, data: ByteArray, target: ByteArray) -> None:
        """Decode one interval; `target` is contiguous where a chunk is one interval wide."""
        stored, wanted = _SPACES[self.colorspace]
        whole = target.flags.c_contiguous
        room = target if whole else np.empty(target.shape, np.uint8)
        stream = b"".join((self.header, data.tobytes(), _END))
        library, shape = jpeg_library(), (self.height, self.width, self.samples)
        if library is None or not library.decode_jpeg(stream, shape, (stored, wanted), room):
            call_imagecodecs(
                "jpeg8_decode",
                stream,
                colorspace=stored,
                outcolorspace=wanted,
                out=room if self.samples > 1 else room[..., 0],
            )
            if library is not None and library.jpeg_warns(stream, shape, (stored, wanted), b""):
                raise CodecError(DAMAGED)
        if not whole:
            target[...] = room

    def _edges(self, encoded: ByteArray) -> list[int]:
        """Where the markers around each interval are; `CodecError` unless they are in order."""
        at = np.flatnonzero(encoded[:-1] == 0xFF)
        code = encoded[at + 1]
        inside = (code != 0) & (code != 0xFF)  # neither a stuffed nor a fill byte
        at, code = at[inside], code[inside]
        end = np.flatnonzero(code == _EOI)
        if end.size:
            at, code = at[: end[0] + 1], code[: end[0] + 1]
            rest = encoded[at[-1] + 2 :]
            if rest.size > _MAX_PADDING_NBYTES and ((rest != 0) & (rest != 0xFF)).any():
                msg = f"the image ends at byte {at[-1]} of {encoded.size}: damaged"
                raise CodecError(msg)
        known = (code >= _RST0) & (code <= _RST7) | (code == _EOI)
        if not known.all():
            bad = int(np.flatnonzero(~known)[0])
            msg = f"JPEG marker ff{code[bad]:02x} at byte {at[bad]} of a restart interval"
            raise CodecError(msg)
        begins_image = encoded[:2].tobytes() == _SCAN_HEADER_END
        if begins_image:
            edges, numbers = [0, *at.tolist()], [_RST7, *code.tolist()]
        else:
            edges, numbers = at.tolist(), code.tolist()
        self._check_edges(encoded, edges, numbers)
        return edges

    def _check_edges(self, encoded: ByteArray, edges: list[int], numbers: list[int]) -> None:
        if not edges or edges[0] != 0:
            msg = (
                f"no restart marker before the interval: {encoded[:2].tobytes().hex()}; the table "
                "of intervals is wrong"
            )
            raise CodecError(msg)
        last = numbers[-1] == _EOI
        if not last and edges[-1] != encoded.size - 2:
            raise CodecError("no restart marker behind the interval: cut off, or a wrong table")
        for before, after in itertools.pairwise(numbers):
            if after != _EOI and after != _RST0 + (before - _RST0 + 1) % 8:
                msg = f"restart marker ff{after:02x} follows ff{before:02x}: out of order"
                raise CodecError(msg)
        wanted = [self.down * self.across]
        if self.short_down is not None:
            wanted.append(self.short_down * self.across)
        if len(edges) - 1 not in wanted:
            msg = (
                f"{len(edges) - 1} restart intervals, expected {' or '.join(map(str, wanted))}"
                f"{'; the image ends here' if last else ''}"
            )
            raise CodecError(msg)
