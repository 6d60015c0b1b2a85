"""TIFF predictors: samples stored as differences along each row.

Spec: TIFF 6.0, section 14 (2, horizontal differencing) and Adobe's TIFF Technical Note 3 (3,
floating point). TIFF tag 317; no Zarr name. Example: ``CodecSpec("tiff_predictor", {"predictor": 2,
"width": 256, "samples": 3, "dtype": "<u2"})``.

The result is in the file's byte order, like the samples of a chunk without a predictor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from zarrgpu.codecs.base import CodecError, checked
from zarrgpu.codecs.configuration import one_of, positive_int
from zarrgpu.errors import UnsupportedCodecError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zarrgpu.model import ByteArray


@dataclass(frozen=True, slots=True, kw_only=True)
class TiffPredictorCodec:
    """Undo the predictor of whole rows.

    Attributes
    ----------
    predictor : 2 or 3
    width, samples : int
        Pixels of a row of the chunk and samples of a pixel.
    dtype : numpy.dtype
        Of a sample, in the file's byte order.
    """

    name: ClassVar[str] = "tiff_predictor"
    predictor: int
    width: int
    samples: int
    dtype: np.dtype[Any]

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, Any]) -> Self:
        """Take ``predictor``, ``width``, ``samples``, ``dtype``."""
        predictor = one_of(cls.name, configuration, "predictor", (2, 3))
        dtype = np.dtype(configuration.get("dtype", "|V0"))
        # libtiff differences the bits of floats like integers with predictor 2
        if dtype.kind not in ("iuf" if predictor == 2 else "f"):
            msg = f"codec {cls.name!r}: predictor {predictor} cannot apply to samples of {dtype}"
            raise UnsupportedCodecError(msg)
        return cls(
            predictor=predictor,
            width=positive_int(cls.name, configuration, "width"),
            samples=positive_int(cls.name, configuration, "samples"),
            dtype=dtype,
        )

    def encoded_nbytes(self, decoded_nbytes: int) -> int | None:
        """Differences take the space of the samples."""
        return decoded_nbytes

    def decode_host(self, encoded: ByteArray, nbytes: int, out: ByteArray | None) -> ByteArray:
        """Sum the differences of each row, modulo the range of a sample."""
        size = checked(encoded.size, nbytes, exact=out is not None)
        row_nbytes = self.width * self.samples * self.dtype.itemsize
        if size % row_nbytes:
            msg = f"{size} bytes are not whole rows of {row_nbytes} bytes"
            raise CodecError(msg)
        if out is None:
            out = np.empty(size, np.uint8)
        if self.predictor == 2:
            self._sum_samples(encoded, out)
        else:
            self._sum_byte_planes(encoded, out)
        return out

    def _sum_samples(self, encoded: ByteArray, out: ByteArray) -> None:
        # signed and unsigned wrap to the same bytes; encoded may be unaligned, which views allow
        kind = self.dtype.str[0] + "u" + str(self.dtype.itemsize)
        shape = (-1, self.width, self.samples)
        differences = encoded.view(kind).reshape(shape)
        np.add.accumulate(differences, axis=1, out=out.view(kind).reshape(shape))

    def _sum_byte_planes(self, encoded: ByteArray, out: ByteArray) -> None:
        # a row is its samples' most significant bytes, then the next ones ...; the differences run
        # through the whole row, `samples` bytes apart
        per_row = self.width * self.samples
        itemsize = self.dtype.itemsize
        differences = encoded.reshape(-1, per_row * itemsize // self.samples, self.samples)
        planes = np.add.accumulate(differences, axis=1, dtype=np.uint8)
        planes = planes.reshape(-1, itemsize, per_row).swapaxes(1, 2)
        target = out.reshape(-1, per_row, itemsize)
        target[:] = planes if self.dtype.str[0] == ">" else planes[:, :, ::-1]
