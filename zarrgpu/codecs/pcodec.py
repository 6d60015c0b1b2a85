"""Pcodec ("pico"): numbers, lossless, as the standalone streams of the package pcodec.

Source: numcodecs 0.16. v2 ``{"id": "pcodec", "level": 8}``, v3 ``numcodecs.pcodec``. Example:
``CodecSpec("pcodec", {"dtype": "<f4"})``.

imagecodecs reads the same streams, but ends the process where one is damaged; so it is not used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar, Self

import numpy as np

from zarrgpu.codecs.base import CodecError, place
from zarrgpu.errors import MissingDependencyError
from zarrgpu.model import ByteArray


@dataclass(frozen=True, slots=True, kw_only=True)
class PcodecCodec:
    """Decode with pcodec.

    Attributes
    ----------
    dtype : numpy.dtype
        Of the numbers.
    """

    name: ClassVar[str] = "pcodec"
    dtype: np.dtype[Any]

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, Any]) -> Self:
        """Take ``dtype``; check that the package is there."""
        _standalone()
        return cls(dtype=np.dtype(configuration["dtype"]))

    def encoded_nbytes(self, decoded_nbytes: int) -> None:
        """Depends on the data."""
        del decoded_nbytes

    def decode_host(self, encoded: ByteArray, nbytes: int, out: ByteArray | None) -> ByteArray:
        """Decode into memory of the expected size, which the library does not exceed."""
        numbers = np.empty(nbytes // self.dtype.itemsize, self.dtype.newbyteorder("="))
        try:
            progress = _standalone().simple_decompress_into(encoded.tobytes(), numbers)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # panics of Rust are no Exception
            raise CodecError(str(error) or type(error).__name__) from error
        if not progress.finished:
            raise CodecError(f"holds more than the {numbers.size} numbers expected")
        decoded = numbers[: progress.n_processed].astype(self.dtype, copy=False)
        return place(decoded.view(np.uint8), nbytes, out)


def _standalone() -> Any:
    try:
        return import_module("pcodec").standalone
    except ImportError as error:
        msg = "codec 'pcodec' needs a package: pip install pcodec"
        raise MissingDependencyError(msg) from error
