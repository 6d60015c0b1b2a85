"""What the pixels of a DICOM image are, and the codecs that decode a frame of it.

Spec: PS3.3, C.7.6.3 (image pixel module); PS3.5, section 8 and annex A. Colours are decoded to
RGB; `MONOCHROME1`, where 0 is white, stays as it is stored, as in pydicom. A JPEG 2000 stream says
itself whether its components were transformed (``YBR_ICT``, ``YBR_RCT``); its decoder undoes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from zarrgpu.errors import UnsupportedCodecError, UnsupportedFormatError
from zarrgpu.formats import dicom_syntaxes as syntaxes
from zarrgpu.model import CodecSpec

if TYPE_CHECKING:
    from zarrgpu.formats.dicom_file import DicomFile

_SAMPLES, _PHOTOMETRIC, _PLANAR = 0x00280002, 0x00280004, 0x00280006
_ROWS, _COLUMNS = 0x00280010, 0x00280011
_ALLOCATED, _STORED, _HIGH, _REPRESENTATION = 0x00280100, 0x00280101, 0x00280102, 0x00280103

_GREY: Final = ("MONOCHROME1", "MONOCHROME2")
_YBR: Final = ("YBR_FULL", "YBR_FULL_422")
_PLAIN: Final = (*_GREY, "RGB")
_MAX_SIDE: Final = 0xFFFF


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelFormat:
    """A frame of an image, decoded and stored.

    Attributes
    ----------
    rows, columns, samples : int
    dtype : numpy.dtype
    planar : bool
        Whether a decoded frame is ``(samples, rows, columns)``, else ``(rows, columns, samples)``.
    codecs : tuple of CodecSpec
    encapsulated : bool
        Whether frames are in fragments.
    photometric : str
    """

    rows: int
    columns: int
    samples: int
    dtype: np.dtype[Any]
    planar: bool
    codecs: tuple[CodecSpec, ...]
    encapsulated: bool
    photometric: str

    @property
    def frame_nbytes(self) -> int:
        """Decoded size of a frame."""
        return self.rows * self.columns * self.samples * self.dtype.itemsize


def pixel_format(file: DicomFile) -> PixelFormat:
    """Pixels of a file.

    Raises
    ------
    UnsupportedFormatError, UnsupportedCodecError
        By name: samples, colours or a transfer syntax that are not read.
    MetadataError
        Attributes are missing or contradict one another.
    """
    at = file.attributes
    samples = at.integer(_SAMPLES, 1, 0xFFFF)
    allocated = at.integer(_ALLOCATED, 1, 0xFFFF)
    stored = at.integer(_STORED, 1, allocated, allocated)
    photometric = at.required_text(_PHOTOMETRIC)
    grey = photometric in _GREY
    if samples not in (1, 3) or grey != (samples == 1):
        if samples in (1, 3) and (grey or photometric == "RGB" or photometric.startswith("YBR")):
            message = f"{photometric} of {samples} samples per pixel"
            raise at.fail(_SAMPLES, message)
        msg = f"{file.source!r}: {photometric[:40]} of {samples} samples per pixel is not read"
        raise UnsupportedFormatError(msg)
    if allocated not in (8, 16, 32):
        msg = f"{file.source!r}: {allocated} bits allocated per sample; 8, 16 and 32 are read"
        raise UnsupportedFormatError(msg)
    high = at.integer(_HIGH, 0, 0xFFFF, stored - 1)
    if high != stored - 1:
        msg = (
            f"{file.source!r}: high bit {high} of {stored} bits stored; only the low bits are read"
        )
        raise UnsupportedFormatError(msg)
    signed = at.integer(_REPRESENTATION, 0, 1, 0) == 1
    planar = at.integer(_PLANAR, 0, 1, 0) == 1 and samples > 1
    rows, columns = at.integer(_ROWS, 1, _MAX_SIDE), at.integer(_COLUMNS, 1, _MAX_SIDE)
    kind = f"{'i' if signed else 'u'}{allocated // 8}"
    image = _Image(file, (rows, columns, samples), kind, photometric)
    codecs, order = image.codecs()
    if file.syntax not in (*syntaxes.NATIVE, syntaxes.ENCAPSULATED):
        planar = file.syntax == syntaxes.RLE and samples > 1
    return PixelFormat(
        rows=rows,
        columns=columns,
        samples=samples,
        dtype=np.dtype(f"{order}{kind}"),
        planar=planar,
        codecs=codecs,
        encapsulated=file.syntax not in syntaxes.NATIVE,
        photometric=photometric,
    )


@dataclass(frozen=True, slots=True)
class _Image:
    """What the codecs are chosen by."""

    file: DicomFile
    shape: tuple[int, int, int]
    kind: str
    photometric: str

    def codecs(self) -> tuple[tuple[CodecSpec, ...], str]:
        """Codecs of a frame, and the byte order of what they decode to."""
        syntax = self.file.syntax
        if syntax in syntaxes.NATIVE or syntax == syntaxes.ENCAPSULATED:
            self._demand(_PLAIN, "u1 i1 u2 i2 u4 i4")
            return (), "<"
        if syntax == syntaxes.RLE:
            self._demand(_PLAIN, "u1 i1 u2 i2")
            options = {"dtype": f"<{self.kind}"}
            configuration = {"codec": "dicomrle", "options": options, "dtype": f"<{self.kind}"}
            return (CodecSpec("imagecodecs_dicomrle", configuration),), "<"
        return (self._image_codec(syntax),), "="

    def _image_codec(self, syntax: str) -> CodecSpec:
        rows, columns, samples = self.shape
        size = {"height": rows, "width": columns, "samples": samples}
        if syntax in syntaxes.JPEG:
            self._demand((*_PLAIN, *_YBR), "u1")
            return CodecSpec("jpeg", {**size, "colorspace": self._colorspace()})
        if syntax in syntaxes.JPEG_2000:
            self._demand((*_PLAIN, "YBR_ICT", "YBR_RCT", "YBR_FULL"), "u1 i1 u2 i2")
            signed = {"signed": True} if self.kind[0] == "i" else {}
            bits = 8 * int(self.kind[1])
            colorspace = self._colorspace()
            if colorspace == "ycbcr" and self.kind != "u1":
                raise self._refused(f"{self.photometric} of {self.kind}")
            return CodecSpec("jpeg2k", {**size, "bits": bits, **signed, "colorspace": colorspace})
        if syntax in syntaxes.JPEG_XL:
            self._demand((*_PLAIN, "XYB", *_YBR), "u1 u2")
            dtype = np.dtype(f"={self.kind}").str
            return CodecSpec("tiff_image", {"format": "jpegxl", **size, "dtype": dtype})
        if syntax in syntaxes.JPEG_LS:
            return self._by_imagecodecs("jpegls")
        if syntax in syntaxes.JPEG_LOSSLESS:
            return self._by_imagecodecs("ljpeg")
        raise self._refused("")

    def _by_imagecodecs(self, codec: str) -> CodecSpec:
        self._demand(_PLAIN, "u1 u2")
        dtype = np.dtype(f"={self.kind}").str
        configuration = {"codec": codec, "shape": self.shape, "dtype": dtype, "options": {}}
        return CodecSpec(f"imagecodecs_{codec}", configuration)

    def _colorspace(self) -> str:
        if self.photometric in _GREY:
            return "gray"
        return "ycbcr" if self.photometric in _YBR else "rgb"

    def _demand(self, photometrics: tuple[str, ...], kinds: str) -> None:
        if self.photometric not in photometrics:
            raise self._refused(f"photometric interpretation {self.photometric[:40]}")
        if self.kind not in kinds.split():
            signed = "signed" if self.kind[0] == "i" else "unsigned"
            raise self._refused(f"{signed} samples of {8 * int(self.kind[1])} bits")

    def _refused(self, what: str) -> UnsupportedCodecError:
        syntax = self.file.syntax
        name = syntaxes.syntax_name(syntax)
        of = f" with {what}" if what else ""
        msg = f"{self.file.source!r}: transfer syntax {syntax} ({name}){of} is not read"
        return UnsupportedCodecError(msg)
