"""Compressors, filters and checksums that imagecodecs registers with Zarr.

Zarr v2 and v3 ``imagecodecs_<name>``. Examples: ``CodecSpec("imagecodecs_lzma", {"codec": "lzma",
"options": {}})``; ``CodecSpec("imagecodecs_delta", {"codec": "delta", "shape": [64, 64], "dtype":
"<u2", "options": {"axis": -1, "dist": 1}})``, with what the metadata say under ``options``.

Filters keep the size and the type of elements. In v2 their own ``shape`` and ``dtype`` hold
(without them, ``delta`` and ``xor`` run over bytes); in v3 those of the chunk.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, NoReturn, Self

import numpy as np

from zarrgpu.codecs.base import CodecError, checked, place
from zarrgpu.codecs.elements import UnchangedCodec
from zarrgpu.codecs.imagecodecs_call import call_imagecodecs, require_codec
from zarrgpu.codecs.imagecodecs_recipes import COMPRESSORS, FILTERS, REFUSED, Recipe, arguments
from zarrgpu.errors import UnsupportedCodecError
from zarrgpu.model import ByteArray

_CHECKSUMS: Final = {
    "crc32": ("zlib_crc32", True),
    "adler32": ("zlib_adler32", True),
    "fletcher32": ("h5checksum_fletcher32", False),
    "lookup3": ("h5checksum_lookup3", False),
    "h5crc": ("h5checksum_crc", False),
}
"""Kind -> (function of imagecodecs, whether it stands before the data by default)."""

_CHECKSUM_NBYTES: Final = 4
_BYTE_ORDERS: Final = {"<": "little", ">": "big", "little": "little", "big": "big"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagecodecsCompressor:
    """Bytes-to-bytes decoder of imagecodecs."""

    name: str
    recipe: Recipe
    positional: list[Any]
    named: Mapping[str, Any]

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, Any]) -> Self:
        """Take ``codec`` and ``options``; ``dtype`` for ``dicomrle``."""
        codec, options = configuration["codec"], configuration["options"]
        recipe = COMPRESSORS[codec]
        require_codec(recipe.function)
        positional, named = _arguments(f"imagecodecs_{codec}", recipe, options)
        if "dtype" in recipe.takes:
            positional.insert(0, options.get("dtype") or configuration["dtype"])
        return cls(name=f"imagecodecs_{codec}", recipe=recipe, positional=positional, named=named)

    def encoded_nbytes(self, decoded_nbytes: int) -> None:
        """Depends on the data."""

    def decode_host(self, encoded: ByteArray, nbytes: int, out: ByteArray | None) -> ByteArray:
        """Decode the whole stream; one spare byte shows a stream that is too long."""
        # measured, imagecodecs 2026.3.6: with many codecs a full `out` ends the decoding without an
        # error; PGLZ alone wants the exact size
        spare = self.recipe.function != "pglz_decode"
        scratch = np.zeros(nbytes + spare, np.uint8)
        if not spare and self.named["header"]:
            size = int.from_bytes(encoded[:4].tobytes(), "little")
            scratch = scratch[: checked(size, nbytes, exact=False)]
        decoded = call_imagecodecs(
            self.recipe.function, encoded, *self.positional, out=scratch, **self.named
        )
        return place(scratch[: memoryview(decoded).nbytes], nbytes, out)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagecodecsFilter:
    """Array-to-array decoder of imagecodecs: as many bytes out as in.

    Attributes
    ----------
    name : str
    recipe : Recipe
    shape : tuple of int, or None
        As the encoder saw the chunk; None for one axis.
    dtype, encoded_dtype : numpy.dtype
        Of the elements to deliver, and of those stored: they differ in byte order at most.
    as_bytes : bool
        Whether imagecodecs is given bytes.
    named : mapping
        Arguments of the call.
    """

    name: str
    recipe: Recipe
    shape: tuple[int, ...] | None
    dtype: np.dtype[Any]
    encoded_dtype: np.dtype[Any]
    as_bytes: bool
    named: Mapping[str, Any] = field(repr=False)

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, Any]) -> Self:
        """Take ``codec``, ``options``, and in v3 ``shape``, ``dtype`` and ``encoded_dtype``."""
        codec, options = configuration["codec"], configuration["options"]
        name, recipe = f"imagecodecs_{codec}", FILTERS[codec]
        require_codec(recipe.function)
        _, named = _arguments(name, recipe, options)
        shape, dtype = _stated_elements(name, options)
        if configuration.get("dtype") is not None:
            shape = shape or configuration["shape"]
            dtype = np.dtype(configuration["dtype"])
            if codec == "bitshuffle":
                named["itemsize"] = dtype.itemsize
        return cls(
            name=name,
            recipe=recipe,
            shape=None if shape is None else tuple(shape),
            dtype=dtype,
            encoded_dtype=np.dtype(configuration.get("encoded_dtype", dtype)),
            as_bytes=codec in ("bitorder", "bitshuffle"),
            named=named,
        )

    def encoded_nbytes(self, decoded_nbytes: int) -> int:
        """One element for one element."""
        return decoded_nbytes

    def decode_host(self, encoded: ByteArray, nbytes: int, out: ByteArray | None) -> ByteArray:
        """Decode into `out`."""
        size = checked(encoded.size, nbytes, exact=out is not None)
        if out is None:
            out = np.empty(size, np.uint8)
        shape = (size // self.dtype.itemsize,) if self.shape is None else self.shape
        expected = math.prod(shape) * self.dtype.itemsize
        if size != expected:
            msg = f"holds {size} bytes, expected {expected}: {shape} elements of {self.dtype}"
            raise CodecError(msg)
        # a view of a larger buffer may start anywhere; imagecodecs reads whole elements
        data = np.require(encoded.view(self.encoded_dtype), self.dtype, "A").reshape(shape)
        if self.as_bytes:
            # of an array, its own item size would count
            flat = data.reshape(-1).view(np.uint8).data
            decoded = call_imagecodecs(self.recipe.function, flat, **self.named)
            out[:] = np.frombuffer(decoded, np.uint8)
        else:
            target = out.view(self.dtype).reshape(shape)
            call_imagecodecs(self.recipe.function, data, out=target, **self.named)
        return out


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeCodec(UnchangedCodec):
    """Rounded floats: nothing to undo, however they were rounded."""

    name: ClassVar[str] = "imagecodecs_quantize"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChecksumCodec:
    """Four bytes before or after the data: CRC-32, Adler-32, Fletcher-32, Jenkins lookup3, H5 CRC.

    Attributes
    ----------
    name : str
    function : str
        In imagecodecs.
    value : int or None
        What the checksum starts from.
    prefix : bytes
        Counted in before the data.
    prepend : bool
    byteorder : "little" or "big"
    """

    name: str = "imagecodecs_checksum"
    function: str
    value: int | None
    prefix: bytes
    prepend: bool
    byteorder: Any

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, Any]) -> Self:
        """Take ``kind``, ``value``, ``prefix``, ``prepend``, ``byteorder`` of ``options``."""
        options = configuration["options"]
        kind, order = options.get("kind", "crc32"), options.get("byteorder", "<")
        prefix, value = options.get("prefix") or b"", options.get("value")
        try:
            function, prepend = _CHECKSUMS[kind]
            if isinstance(prefix, str):
                prefix = base64.b64decode(prefix, validate=True)
            byteorder = _BYTE_ORDERS[order]
        except (KeyError, TypeError, binascii.Error) as error:
            msg = f"codec 'imagecodecs_checksum': {str(options)[:80]} is not understood ({error})"
            raise UnsupportedCodecError(msg) from None
        if options.get("prepend") is not None:
            prepend = bool(options["prepend"])
        return cls(
            function=function, value=value, prefix=prefix, prepend=prepend, byteorder=byteorder
        )

    def encoded_nbytes(self, decoded_nbytes: int) -> int:
        """Four bytes more."""
        return decoded_nbytes + _CHECKSUM_NBYTES

    def decode_host(self, encoded: ByteArray, nbytes: int, out: ByteArray | None) -> ByteArray:
        """Verify and return the data."""
        if encoded.size < _CHECKSUM_NBYTES:
            msg = f"has {encoded.size} bytes, expected a checksum of {_CHECKSUM_NBYTES}"
            raise CodecError(msg)
        if self.prepend:
            stored, data = encoded[:_CHECKSUM_NBYTES], encoded[_CHECKSUM_NBYTES:]
        else:
            stored, data = encoded[-_CHECKSUM_NBYTES:], encoded[:-_CHECKSUM_NBYTES]
        expected = int.from_bytes(stored.tobytes(), self.byteorder)
        counted = self.prefix + data.tobytes() if self.prefix else data
        got = call_imagecodecs(self.function, counted, self.value)
        if got != expected:
            msg = f"{self.function} is {got:08x}, expected {expected:08x} as stored"
            raise CodecError(msg)
        return place(data, nbytes, out)


class RefusedCodec:
    """A codec that is known and not decoded."""

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, Any]) -> NoReturn:
        """Say why."""
        codec = configuration["codec"]
        msg = f"codec 'imagecodecs_{codec}' is not decoded: {REFUSED[codec]}"
        raise UnsupportedCodecError(msg)


def _arguments(
    name: str, recipe: Recipe, options: Mapping[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    try:
        return arguments(recipe, options)
    except KeyError as error:
        msg = f"codec {name!r}: {error} is missing from its configuration"
        raise UnsupportedCodecError(msg) from None


def _stated_elements(
    name: str, options: Mapping[str, Any]
) -> tuple[list[int] | None, np.dtype[Any]]:
    """Shape and type that a v2 filter states; bytes where it states neither."""
    shape, dtype = options.get("shape"), options.get("dtype")
    sizes = [] if shape is None else shape
    if not isinstance(sizes, list) or not all(type(n) is int and n > 0 for n in sizes):
        msg = f"codec {name!r}: shape {str(shape)[:80]} is not a list of sizes"
        raise UnsupportedCodecError(msg)
    default = "|u1" if shape is None else "<f8"  # numpy.frombuffer's default
    try:
        stated = np.dtype(default if dtype is None else str(dtype))
    except (TypeError, ValueError, SyntaxError) as error:
        msg = f"codec {name!r}: dtype {str(dtype)[:40]!r} is unknown ({error})"
        raise UnsupportedCodecError(msg) from None
    if stated.kind not in "biuf" or not stated.itemsize:
        msg = f"codec {name!r} works on numbers, its dtype is {stated}"
        raise UnsupportedCodecError(msg)
    return shape, stated
