"""Image codecs in the place of Zarr's ``bytes``: one chunk is one image, or a stack of them.

Zarr v2 and v3 ``imagecodecs_<name>``, v2 ``{"id": "jpeg2k", "level": 10}`` (Glencoe), v3 ``jpeg``,
``jpegxl``, ``jpeg2k``, ``png``, ``webp``. Example: ``CodecSpec("imagecodecs_jpeg2k", {"codec":
"jpeg2k", "shape": [1, 256, 256, 3], "dtype": "|u1", "options": {"level": 80}})``, with what the
metadata say under ``options``.

The stream must hold an image of exactly the chunk's shape (axes of length 1 aside) and type. It is
decoded into memory of that size, which imagecodecs compares with the stream first. Images come in
native byte order and are turned into that of ``dtype``.

JPEG as proposed for Zarr v3 (zarr-extensions, pull request 66) is the exception: the image may
have any width and height with as many pixels as the chunk.
"""

from __future__ import annotations

import base64
import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

import numpy as np

from zarrgpu.codecs.base import CodecError, checked
from zarrgpu.codecs.image_checks import CHECKS, check_jpeg
from zarrgpu.codecs.imagecodecs_call import call_imagecodecs, require_codec
from zarrgpu.codecs.imagecodecs_recipes import IMAGES, Recipe, arguments
from zarrgpu.codecs.jpeg import read_header
from zarrgpu.errors import UnsupportedCodecError
from zarrgpu.model import ByteArray

_ALPHA_SAMPLES: Final = 4
_LIBJPEG_RGB: Final = 2
_LIBJPEG_SPACES: Final = {"rgb": 2, "ycbcr": 3}


@dataclass(frozen=True, slots=True, kw_only=True)
class ZarrImageCodec:
    """An image decoder of imagecodecs.

    Attributes
    ----------
    name : str
        ``imagecodecs_<name>``.
    recipe : Recipe
    shape : tuple of int
        Of the image as imagecodecs gives it.
    dtype : numpy.dtype
        Of the elements to deliver.
    positional, named : list, mapping
        Arguments of the call after the data.
    header : bytes
        What every stream lacks at its beginning (JPEG).
    """

    name: str
    recipe: Recipe
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    positional: list[Any]
    named: Mapping[str, Any] = field(repr=False)
    header: bytes = field(repr=False, default=b"")

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, Any]) -> Self:
        """Take ``codec``, ``shape``, ``dtype`` and ``options``."""
        codec = configuration["codec"]
        name, recipe = f"imagecodecs_{codec}", IMAGES[codec]
        require_codec(recipe.function)
        options = _with_bytes(name, configuration["options"])
        shape, dtype = _elements(name, configuration, recipe, options)
        try:
            positional, named = arguments(recipe, options)
        except KeyError as error:
            msg = f"codec {name!r}: {error} is missing from its configuration"
            raise UnsupportedCodecError(msg) from None
        if codec == "packints":
            positional.insert(0, dtype)
        elif recipe.takes:
            named |= {k: v for k, v in (("shape", shape), ("dtype", dtype)) if k in recipe.takes}
        named |= _implied(codec, options, shape, dtype)
        return cls(
            name=name,
            recipe=recipe,
            shape=shape,
            dtype=dtype,
            positional=positional,
            named=named,
            header=_jpeg_header(name, options) if codec.startswith("jpeg") else b"",
        )

    def encoded_nbytes(self, decoded_nbytes: int) -> int | None:
        """Known for codecs that store elements one by one."""
        if not self.recipe.element_nbytes:
            return None
        return decoded_nbytes // self.dtype.itemsize * self.recipe.element_nbytes

    def decode_host(self, encoded: ByteArray, nbytes: int, out: ByteArray | None) -> ByteArray:
        """Decode one image into `out`."""
        count = math.prod(self.shape)
        size = checked(count * self.dtype.itemsize, nbytes, exact=out is not None)
        if out is None:
            out = np.empty(size, np.uint8)
        data: Any = encoded
        if self.header:
            data = b"".join((self.header, encoded.tobytes(), b"\xff\xd9"))
        if (check := CHECKS.get(self.recipe.function)) is not None:
            data = bytes(data)
            check(data, count)
        if self.recipe.element_nbytes:
            checked(encoded.size, count * self.recipe.element_nbytes, exact=True)
        self._decode(data, out, self.shape)
        return out

    def _decode(self, data: Any, out: ByteArray, shape: tuple[int, ...]) -> None:
        if self.recipe.function == "packints_decode":
            self._unpack(data, out)
            return
        dtype = self.dtype if "dtype" in self.recipe.takes else self.dtype.newbyteorder("=")
        image = out.view(dtype).reshape(shape)
        call_imagecodecs(self.recipe.function, data, *self.positional, out=image, **self.named)
        if dtype != self.dtype:
            image.byteswap(inplace=True)

    def _unpack(self, data: ByteArray, out: ByteArray) -> None:
        """Unpack integers, for which imagecodecs knows no `out` and gives the padding as well."""
        decoded = call_imagecodecs("packints_decode", data, *self.positional, **self.named)
        count = math.prod(self.shape)
        if decoded.dtype != self.dtype or not count <= decoded.size < count + 8:
            msg = f"decodes to {decoded.size} x {decoded.dtype}, expected {count} x {self.dtype}"
            raise CodecError(msg)
        out[:] = decoded[:count].view(np.uint8)


@dataclass(frozen=True, slots=True, kw_only=True)
class ZarrJpegCodec(ZarrImageCodec):
    """JPEG as proposed for Zarr v3: samples in C order, in an image of any width and height."""

    def decode_host(self, encoded: ByteArray, nbytes: int, out: ByteArray | None) -> ByteArray:
        """Decode one image into `out`."""
        count = math.prod(self.shape)
        size = checked(count, nbytes, exact=out is not None)
        data = encoded.tobytes()
        check_jpeg(data, count)
        header = read_header(data)
        samples = 3 if self.shape[-1] == 3 else 1
        if header.samples != samples or header.height * header.width * samples != count:
            msg = (
                f"JPEG of {header.height} x {header.width} x {header.samples}, expected "
                f"{count // samples} pixels of {samples} samples"
            )
            raise CodecError(msg)
        if out is None:
            out = np.empty(size, np.uint8)
        shape = (header.height, header.width)
        self._decode(data, out, shape if samples == 1 else (*shape, samples))
        return out


def _elements(
    name: str, configuration: Mapping[str, Any], recipe: Recipe, options: Mapping[str, Any]
) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of the image that the chunk was encoded as."""
    dtype = np.dtype(configuration["dtype"])
    if dtype.kind not in "biuf":
        msg = f"codec {name!r} holds real numbers, the elements here are {dtype}"
        raise UnsupportedCodecError(msg)
    stated = options.get("dtype")
    if stated is not None and "dtype" in recipe.takes:
        dtype = _same_size(name, dtype, stated)
    shape = tuple(configuration["shape"])
    squeeze = options.get("squeeze")
    if not recipe.squeezed or squeeze is False:
        return shape, dtype
    if isinstance(squeeze, list) and len(squeeze) == len(shape):
        return tuple(n for n, gone in zip(shape, squeeze, strict=True) if not gone), dtype
    squeezed = tuple(n for n in shape if n != 1)
    return (1,) * (2 - len(squeezed)) + squeezed, dtype


def _same_size(name: str, dtype: np.dtype[Any], stated: Any) -> np.dtype[Any]:
    other: np.dtype[Any] = np.dtype("V0")
    with contextlib.suppress(TypeError, ValueError, SyntaxError):
        other = np.dtype(str(stated))  # a JSON value, which may be anything
    if other.itemsize != dtype.itemsize or other.kind not in "biuf":
        msg = f"codec {name!r}: dtype {str(stated)[:40]!r} is not the size of {dtype}"
        raise UnsupportedCodecError(msg)
    return other


def _implied(
    codec: str, options: Mapping[str, Any], shape: tuple[int, ...], dtype: np.dtype[Any]
) -> dict[str, Any]:
    """Arguments that follow from others."""
    if codec == "webp" and options.get("hasalpha") is None and shape[-1] == _ALPHA_SAMPLES:
        return {"hasalpha": True}  # libwebp drops alpha that is opaque everywhere
    if codec == "jpeg" and (space := options.get("encoded_color_space")) is not None:
        if space not in _LIBJPEG_SPACES:
            msg = f"codec 'jpeg': encoded_color_space {str(space)[:40]!r} is not rgb or ycbcr"
            raise UnsupportedCodecError(msg)
        return {"colorspace": _LIBJPEG_SPACES[space], "outcolorspace": _LIBJPEG_RGB}
    return {}


def _jpeg_header(name: str, options: Mapping[str, Any]) -> bytes:
    header = options.get("header") or b""
    if not isinstance(header, bytes):
        msg = f"codec {name!r}: header {str(header)[:40]!r} is not base64"
        raise UnsupportedCodecError(msg)
    return header


def _with_bytes(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options with the binary ones, which JSON holds as base64, decoded."""
    decoded = dict(options)
    for key in ("header", "tables"):
        if isinstance(options.get(key), str):
            try:
                decoded[key] = base64.b64decode(options[key], validate=True)
            except ValueError as error:
                msg = f"codec {name!r}: {key} is not base64: {error}"
                raise UnsupportedCodecError(msg) from None
    return decoded
