"""JPEG 2000 codestreams of 8 or 16 bits, as TIFF tiles and strips hold them.

Spec: ITU-T T.800 (ISO/IEC 15444-1), annex A. TIFF compressions 33003 (Aperio, YCbCr), 33005
(Aperio, RGB), 34712; no Zarr name. Example: ``CodecSpec("jpeg2k", {"height": 256, "width": 256,
"samples": 3, "bits": 8, "colorspace": "ycbcr"})``, and ``"short_height"`` as for ``jpeg``.

`colorspace` says what is stored once the codestream's own component transform is undone, and comes
from the TIFF tags. YCbCr becomes RGB by ITU-R BT.601, full range, chroma repeated.

A codestream states the length of its tile-parts, so truncation is found; only a missing or damaged
end-of-codestream marker behind complete tile-parts is forgiven (some Aperio files lack it, and
OpenSlide reads them). There is no checksum: flipped bits inside a tile-part are not found.

On a CUDA device nvJPEG2000 decodes (`device_images`): reversible codestreams to the same bytes,
irreversible ones to samples that may differ by `device_images.TOLERANCE`.

The compiled executor (``kernels/host/jpeg2k.cpp``) decodes codestreams of one tile and 8 bits by
itself, those with subsampled chroma as well, with OpenJPEG's pixels (2.5.4), and of them only the
code-blocks that are needed: all packet headers are read, other code-blocks are not looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from zarrgpu.codecs.base import CodecError, checked
from zarrgpu.codecs.configuration import one_of, positive_int, short_height
from zarrgpu.codecs.imagecodecs_call import call_imagecodecs
from zarrgpu.codecs.jpeg2k_stream import Codestream, read_codestream
from zarrgpu.errors import UnsupportedCodecError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from zarrgpu.model import ByteArray

_SAMPLES = {"gray": 1, "rgb": 3, "ycbcr": 3}
_SUBSAMPLED_CHROMA = (((1, 1), (2, 1), (2, 1)), ((1, 1), (2, 2), (2, 2)))
"""4:2:2 and 4:2:0, which imagecodecs (OpenJPEG's rules) turns into RGB by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Jpeg2kCodec:
    """JPEG 2000 by OpenJPEG (imagecodecs).

    Attributes
    ----------
    height, width, samples : int
        What the codestream must hold.
    bits : 8 or 16
        Of a decoded sample; 16 bits come out in native byte order.
    signed : bool
        Whether samples have a sign.
    colorspace : "gray", "rgb", "ycbcr" or "unknown"
        What is stored; only YCbCr is converted.
    short_height : int or None
        Rows that the last strip may have instead of `height`.
    """

    name: ClassVar[str] = "jpeg2k"
    height: int
    width: int
    samples: int
    bits: int
    signed: bool
    colorspace: str
    short_height: int | None

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, Any]) -> Self:
        """Take the attributes by name; ``signed`` and ``short_height`` may be left out."""
        height = positive_int(cls.name, configuration, "height")
        colorspace = one_of(cls.name, configuration, "colorspace", (*_SAMPLES, "unknown"))
        samples = positive_int(cls.name, configuration, "samples")
        one_of(cls.name, configuration, "samples", (_SAMPLES.get(colorspace, samples),))
        bits = one_of(cls.name, configuration, "bits", (8, 16))
        if colorspace == "ycbcr" and bits != 8:
            msg = f"codec {cls.name!r}: YCbCr of {bits} bits is not decoded, only of 8"
            raise UnsupportedCodecError(msg)
        return cls(
            height=height,
            width=positive_int(cls.name, configuration, "width"),
            samples=samples,
            bits=bits,
            signed=configuration.get("signed") is True,
            colorspace=colorspace,
            short_height=short_height(cls.name, configuration, height),
        )

    def encoded_nbytes(self, decoded_nbytes: int) -> None:
        """Depends on the data."""

    def decode_part_host(
        self, encoded: ByteArray, start: int, nbytes: int, decoded_nbytes: int
    ) -> ByteArray:
        """Decode all of it: only the compiled executor can leave code-blocks out."""
        return self.decode_host(encoded, decoded_nbytes, None)[start : start + nbytes]

    def decode_host(self, encoded: ByteArray, nbytes: int, out: ByteArray | None) -> ByteArray:
        """Decode into `out`, uint8 or uint16 ``(rows, width, samples)``."""
        stream = read_codestream(encoded.tobytes())
        self._check(stream)
        n_samples = stream.height * stream.width * self.samples
        size = checked(n_samples * self.bits // 8, nbytes, exact=out is not None)
        if out is None:
            out = np.empty(size, np.uint8)
        shape: tuple[int, ...] = (stream.height, stream.width)
        if self.samples > 1:
            shape = (*shape, self.samples)
        image = out.view(f"={'i' if self.signed else 'u'}{self.bits // 8}").reshape(shape)
        call_imagecodecs("jpeg2k_decode", stream.data, numthreads=1, out=image)
        if self.colorspace == "ycbcr" and stream.chroma_is_full_size:
            ycbcr_to_rgb(image)
        return out

    def _check(self, stream: Codestream) -> None:
        heights = (self.height,) if self.short_height is None else (self.height, self.short_height)
        got = (stream.width, len(stream.subsampling))
        if stream.height not in heights or got != (self.width, self.samples):
            msg = (
                f"JPEG 2000 of {stream.height} x {stream.width} x {len(stream.subsampling)}, "
                f"expected {' or '.join(map(str, heights))} x {self.width} x {self.samples}"
            )
            raise CodecError(msg)
        low = 1 if self.bits == 8 else 9
        if stream.signed != self.signed or not low <= stream.precision <= self.bits:
            kinds = {True: "signed", False: "unsigned"}
            msg = (
                f"JPEG 2000 of {stream.precision} {kinds[stream.signed]} bits, expected {low} to "
                f"{self.bits} {kinds[self.signed]}"
            )
            raise CodecError(msg)
        if not stream.chroma_is_full_size and (
            self.colorspace != "ycbcr" or stream.subsampling not in _SUBSAMPLED_CHROMA
        ):
            msg = f"JPEG 2000 with subsampling {stream.subsampling} in {self.colorspace}"
            raise CodecError(f"{msg}, expected none, or 4:2:2 or 4:2:0 in ycbcr")


def _chroma_table(factor: float) -> NDArray[np.int32]:
    """``factor * (chroma - 128)`` in 1/65536 for each of 256 chroma values."""
    table: NDArray[np.int32] = np.rint(factor * 65536 * np.arange(-128, 128)).astype(np.int32)
    return table


# fixed point of 16 bits, each table entry rounded: measured to be what OpenSlide gives
_HALF = 1 << 15
_RED_CR = (_chroma_table(1.402) + _HALF) >> 16
_GREEN_CB = _chroma_table(-0.34414)
_GREEN_CR = _chroma_table(-0.71414) + _HALF
_BLUE_CB = (_chroma_table(1.772) + _HALF) >> 16


def ycbcr_to_rgb(image: NDArray[np.uint8]) -> None:
    """Turn full-range BT.601 YCbCr into RGB in place; uint8 ``(rows, width, 3)``."""
    luma = image[..., 0].astype(np.int32)
    cb, cr = image[..., 1], image[..., 2]
    green = luma + ((_GREEN_CB[cb] + _GREEN_CR[cr]) >> 16)
    blue = luma + _BLUE_CB[cb]
    image[..., 0] = np.clip(luma + _RED_CR[cr], 0, 255)
    image[..., 1] = np.clip(green, 0, 255)
    image[..., 2] = np.clip(blue, 0, 255)
