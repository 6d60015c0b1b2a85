"""Transfer syntaxes and storage classes of DICOM by their UIDs (PS3.6, annex A)."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

IMPLICIT: Final = "1.2.840.10008.1.2"
EXPLICIT: Final = "1.2.840.10008.1.2.1"
ENCAPSULATED: Final = "1.2.840.10008.1.2.1.98"
DEFLATED: Final = "1.2.840.10008.1.2.1.99"
BIG_ENDIAN: Final = "1.2.840.10008.1.2.2"
RLE: Final = "1.2.840.10008.1.2.5"
_JPEG: Final = "1.2.840.10008.1.2.4."

NATIVE: Final = frozenset((IMPLICIT, EXPLICIT))
"""Pixels lie there as they are, frame behind frame."""

JPEG: Final = frozenset((_JPEG + "50", _JPEG + "51"))
JPEG_LOSSLESS: Final = frozenset((_JPEG + "57", _JPEG + "70"))
JPEG_LS: Final = frozenset((_JPEG + "80", _JPEG + "81"))
JPEG_2000: Final = frozenset(_JPEG + n for n in ("90", "91", "201", "202", "203"))
JPEG_XL: Final = frozenset(_JPEG + n for n in ("110", "111", "112"))

_SYNTAX_NAMES: Final[Mapping[str, str]] = MappingProxyType(
    {
        IMPLICIT: "implicit VR little endian",
        EXPLICIT: "explicit VR little endian",
        ENCAPSULATED: "encapsulated uncompressed",
        DEFLATED: "deflated explicit VR little endian",
        BIG_ENDIAN: "explicit VR big endian, retired",
        RLE: "RLE lossless",
        _JPEG + "50": "JPEG baseline",
        _JPEG + "51": "JPEG extended",
        _JPEG + "57": "JPEG lossless, non-hierarchical",
        _JPEG + "70": "JPEG lossless, first-order prediction",
        _JPEG + "80": "JPEG-LS lossless",
        _JPEG + "81": "JPEG-LS near-lossless",
        _JPEG + "90": "JPEG 2000 lossless",
        _JPEG + "91": "JPEG 2000",
        _JPEG + "92": "JPEG 2000 part 2 multi-component lossless",
        _JPEG + "93": "JPEG 2000 part 2 multi-component",
        _JPEG + "94": "JPIP referenced",
        _JPEG + "95": "JPIP referenced, deflated",
        _JPEG + "100": "MPEG2 main profile, main level",
        _JPEG + "101": "MPEG2 main profile, high level",
        _JPEG + "102": "MPEG-4 AVC/H.264",
        _JPEG + "103": "MPEG-4 AVC/H.264, BD-compatible",
        _JPEG + "107": "HEVC/H.265 main profile",
        _JPEG + "108": "HEVC/H.265 main 10 profile",
        _JPEG + "110": "JPEG XL lossless",
        _JPEG + "111": "JPEG XL JPEG recompression",
        _JPEG + "112": "JPEG XL",
        _JPEG + "201": "HTJ2K lossless",
        _JPEG + "202": "HTJ2K lossless RPCL",
        _JPEG + "203": "HTJ2K",
    }
)

WHOLE_SLIDE: Final = "1.2.840.10008.5.1.4.1.1.77.1.6"
_STORAGE: Final = "1.2.840.10008.5.1.4.1.1."
_CLASS_NAMES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "1.2.840.10008.1.3.10": "media storage directory (DICOMDIR)",
        _STORAGE + "1": "computed radiography image",
        _STORAGE + "2": "CT image",
        _STORAGE + "2.1": "enhanced CT image",
        _STORAGE + "4": "MR image",
        _STORAGE + "4.1": "enhanced MR image",
        _STORAGE + "7": "secondary capture image",
        _STORAGE + "9.1.1": "12-lead ECG waveform",
        _STORAGE + "11.1": "grayscale softcopy presentation state",
        _STORAGE + "66.4": "segmentation",
        _STORAGE + "77.1.1": "VL endoscopic image",
        _STORAGE + "77.1.2": "VL microscopic image",
        _STORAGE + "77.1.3": "VL slide-coordinates microscopic image",
        _STORAGE + "77.1.4": "VL photographic image",
        _STORAGE + "88.34": "comprehensive 3D SR",
        _STORAGE + "91.1": "microscopy bulk simple annotations",
        _STORAGE + "104.1": "encapsulated PDF",
        _STORAGE + "128": "positron emission tomography image",
    }
)


def syntax_name(uid: str) -> str:
    """Name of a transfer syntax.

    >>> syntax_name("1.2.840.10008.1.2.4.50")
    'JPEG baseline'
    """
    return _SYNTAX_NAMES.get(uid, "of a name that zarrgpu does not know")


def class_name(uid: str) -> str:
    """Name of what a file of a storage class (SOP class) holds.

    >>> class_name("1.2.840.10008.5.1.4.1.1.2")
    'CT image'
    """
    return _CLASS_NAMES.get(uid, "kind of file that zarrgpu does not know")
