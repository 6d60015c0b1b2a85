"""Codecs that only their own packages can decode, called through numcodecs.

``pcodec``  numcodecs' v2 id, v3 ``numcodecs.pcodec``: numbers, lossless; needs the package pcodec
``zfpy``    numcodecs' v2 id, v3 ``numcodecs.zfpy``: floats and integers, lossy; needs zfpy
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar, Self

import numpy as np

from zarrgpu.codecs.base import CodecError, Compressor, place
from zarrgpu.errors import MissingDependencyError
from zarrgpu.model import ByteArray


@dataclass(frozen=True, slots=True)
class NumcodecsCodec(Compressor):
    """A decoder of numcodecs that needs no configuration: the stream says all."""

    name: ClassVar[str]
    class_name: ClassVar[str]

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, Any]) -> Self:
        """Check that the package is there."""
        del configuration
        cls._decoder()
        return cls()

    @classmethod
    def _decoder(cls) -> Any:
        try:
            import_module(cls.name)
            return getattr(import_module(f"numcodecs.{cls.name}"), cls.class_name)()
        except (ImportError, AttributeError) as error:
            msg = f"codec {cls.name!r} needs a package: pip install {cls.name}"
            raise MissingDependencyError(msg) from error

    def decode_host(self, encoded: ByteArray, nbytes: int, out: ByteArray | None) -> ByteArray:
        """Decode."""
        try:
            decoded = np.asarray(self._decoder().decode(encoded.tobytes()))
        except Exception as error:  # these libraries raise what they like
            raise CodecError(str(error) or type(error).__name__) from error
        return place(np.ascontiguousarray(decoded).reshape(-1).view(np.uint8), nbytes, out)


@dataclass(frozen=True, slots=True)
class PcodecCodec(NumcodecsCodec):
    """Pcodec ("pico") standalone streams."""

    name: ClassVar[str] = "pcodec"
    class_name: ClassVar[str] = "PCodec"


@dataclass(frozen=True, slots=True)
class ZfpyCodec(NumcodecsCodec):
    """ZFP streams with a header."""

    name: ClassVar[str] = "zfpy"
    class_name: ClassVar[str] = "ZFPY"
