"""LERC, WebP and JPEG XL, as TIFF tiles and strips hold them.

Specs: LERC (Esri, github.com/Esri/lerc; in TIFF with tag 50674), RFC 9649 (WebP), ISO/IEC 18181
(JPEG XL). TIFF compressions 34887, 50001, 50002 and 52546; no Zarr names. Example:
``CodecSpec("tiff_image", {"format": "lerc", "height": 256, "width": 256, "samples": 1, "dtype":
"=f4", "second": "deflate"})``, and ``"short_height"`` as for ``jpeg``.

A stream must hold exactly a chunk's image: imagecodecs compares the shape with its header before it
decodes. Pixels that LERC marks as invalid become NaN in floats, as libtiff has it, and 0 in
integers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Final, Self

import numpy as np

from zarrgpu.codecs.base import Codec, CodecError, checked
from zarrgpu.codecs.configuration import one_of, positive_int, short_height
from zarrgpu.codecs.deflate import ZlibCodec
from zarrgpu.codecs.imagecodecs_call import call_imagecodecs, require_codec
from zarrgpu.codecs.zstd import ZstdCodec
from zarrgpu.errors import UnsupportedCodecError
from zarrgpu.model import ByteArray

_DTYPES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "lerc": ("i1", "u1", "i2", "u2", "i4", "u4", "f4", "f8"),
        "webp": ("u1",),
        "jpegxl": ("u1", "u2", "f4"),
    }
)
_SECOND: Final[Mapping[str, type[Codec]]] = MappingProxyType(
    {"deflate": ZlibCodec, "zstd": ZstdCodec}
)
_OTHER_SHAPE: Final = "invalid out"
"""What imagecodecs says of a stream of another shape or type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TiffImageCodec:
    """An image decoder of imagecodecs.

    Attributes
    ----------
    format : "lerc", "webp" or "jpegxl"
    height, width, samples : int
        What the stream must hold.
    dtype : numpy.dtype
        Native byte order.
    second : Codec or None
        What the stream is compressed with once more (LERC).
    short_height : int or None
        Rows that the last strip may have instead of `height`.
    """

    name: ClassVar[str] = "tiff_image"
    format: str
    height: int
    width: int
    samples: int
    dtype: np.dtype[Any]
    second: Codec | None
    short_height: int | None

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, Any]) -> Self:
        """Take the attributes by name; ``second`` and ``short_height`` may be left out."""
        kind = one_of(cls.name, configuration, "format", tuple(_DTYPES))
        dtype = np.dtype(configuration["dtype"])
        samples = positive_int(cls.name, configuration, "samples")
        if dtype.str[1:] not in _DTYPES[kind] or (kind == "webp" and samples not in (3, 4)):
            msg = f"codec {cls.name!r}: {kind} cannot hold {samples} samples of {dtype}"
            raise UnsupportedCodecError(msg)
        require_codec(f"{kind}_decode")
        second = configuration.get("second")
        if second is not None:
            one_of(cls.name, configuration, "second", tuple(_SECOND))
        height = positive_int(cls.name, configuration, "height")
        return cls(
            format=kind,
            height=height,
            width=positive_int(cls.name, configuration, "width"),
            samples=samples,
            dtype=dtype,
            second=_SECOND[second]() if second is not None else None,
            short_height=short_height(cls.name, configuration, height),
        )

    def encoded_nbytes(self, decoded_nbytes: int) -> None:
        """Depends on the data."""

    def decode_host(self, encoded: ByteArray, nbytes: int, out: ByteArray | None) -> ByteArray:
        """Decode into `out`, ``(rows, width, samples)``."""
        size = self.height * self.width * self.samples * self.dtype.itemsize
        checked(size, nbytes, exact=out is not None)
        if self.second is not None:
            # LERC may be larger than the samples by its headers
            encoded = self.second.decode_host(encoded, 2 * size + (1 << 16), None)
        if self.format == "lerc" and encoded[:4].tobytes() not in (b"Lerc", b"CntZ"):
            # imagecodecs would undo a compression that the file does not state, of any size
            msg = f"not a LERC stream: starts with {encoded[:4].tobytes().hex() or 'nothing'}"
            raise CodecError(msg)
        try:
            return self._decode(encoded, self.height, out)
        except CodecError as error:
            if self.short_height is None or _OTHER_SHAPE not in str(error):
                raise
        return self._decode(encoded, self.short_height, None)

    def _decode(self, encoded: ByteArray, height: int, out: ByteArray | None) -> ByteArray:
        shape: tuple[int, ...] = (height, self.width, self.samples)
        if out is None:
            out = np.empty(height * self.width * self.samples * self.dtype.itemsize, np.uint8)
        image = out.view(self.dtype).reshape(shape if self.samples > 1 else shape[:2])
        options: dict[str, Any] = {}
        if self.format == "webp":  # libwebp drops alpha that is opaque everywhere
            options = {"hasalpha": self.samples == 4}
        elif self.format == "jpegxl":
            options = {"numthreads": 1}
        elif self.dtype.kind == "f":
            options = {"masks": True}
        result = call_imagecodecs(f"{self.format}_decode", encoded, out=image, **options)
        valid = result[1] if "masks" in options else None
        if valid is not None:  # (rows, width)
            image[~valid] = np.nan
        return out
