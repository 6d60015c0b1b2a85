"""Numbers and names of TIFF: field types, tags, compressions. No logic.

Sources: TIFF 6.0, the BigTIFF design (https://www.awaresystems.be/imaging/tiff/bigtiff.html), TIFF
Technical Note 2 (JPEG), and Aperio's private compressions 33003 and 33005.
"""

from __future__ import annotations

from enum import IntEnum
from types import MappingProxyType
from typing import Final


class Tag(IntEnum):
    """The tags that zarrgpu reads; every other tag is skipped without being fetched."""

    NewSubfileType = 254
    ImageWidth = 256
    ImageLength = 257
    BitsPerSample = 258
    Compression = 259
    PhotometricInterpretation = 262
    FillOrder = 266
    DocumentName = 269
    ImageDescription = 270
    Make = 271
    Model = 272
    StripOffsets = 273
    Orientation = 274
    SamplesPerPixel = 277
    RowsPerStrip = 278
    StripByteCounts = 279
    XResolution = 282
    YResolution = 283
    PlanarConfiguration = 284
    XPosition = 286
    YPosition = 287
    ResolutionUnit = 296
    Software = 305
    DateTime = 306
    Artist = 315
    HostComputer = 316
    Predictor = 317
    ColorMap = 320
    TileWidth = 322
    TileLength = 323
    TileOffsets = 324
    TileByteCounts = 325
    SubIFDs = 330
    ExtraSamples = 338
    SampleFormat = 339
    JPEGTables = 347
    XMLPacket = 700
    YCbCrSubSampling = 530
    ImageDepth = 32997
    Copyright = 33432
    ModelPixelScale = 33550
    ModelTiepoint = 33922
    ModelTransformation = 34264
    InterColorProfile = 34675
    GeoKeyDirectory = 34735
    GeoDoubleParams = 34736
    GeoAsciiParams = 34737
    GdalMetadata = 42112
    GdalNodata = 42113
    LercParameters = 50674
    NdpiOffsetsHigh = 65324
    ArgosMetadata = 65000
    NdpiFormatFlag = 65420
    NdpiSourceLens = 65421
    NdpiXOffset = 65422
    NdpiYOffset = 65423
    NdpiFocalPlane = 65424
    NdpiMcuStarts = 65426
    NdpiReference = 65427
    NdpiMcuStartsHigh = 65432
    NdpiCaptureMode = 65441
    NdpiPropertyMap = 65449


TEXT_TAGS: Final = (
    Tag.ImageDescription, Tag.Make, Tag.Model, Tag.Software, Tag.DateTime, Tag.Artist,
    Tag.HostComputer, Tag.Copyright, Tag.DocumentName,
)  # fmt: skip

RATIONAL_TAGS: Final = (Tag.XResolution, Tag.YResolution, Tag.XPosition, Tag.YPosition)

RESOLUTION_UNITS: Final = MappingProxyType({1: "none", 2: "inch", 3: "centimeter"})

FIELD_NBYTES: Final = MappingProxyType(
    {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8,
     18: 8}
)  # fmt: skip
"""Bytes per value of each field type."""

INTEGER_TYPES: Final = MappingProxyType({1: "u1", 3: "u2", 4: "u4", 13: "u4", 16: "u8", 18: "u8"})
"""Unsigned integer field types as NumPy type strings without a byte order."""

NUMBER_TYPES: Final = MappingProxyType(
    {1: "u1", 3: "u2", 4: "u4", 6: "i1", 8: "i2", 9: "i4", 11: "f4", 12: "f8", 13: "u4", 16: "u8",
     17: "i8", 18: "u8"}
)  # fmt: skip
"""All plain number types as NumPy type strings without a byte order."""

BYTE_TYPES: Final = frozenset({1, 2, 6, 7})
RATIONAL_TYPE: Final = 5

COMPRESSION_NAMES: Final = MappingProxyType(
    {
        1: "none",
        2: "CCITT RLE",
        3: "CCITT group 3",
        4: "CCITT group 4",
        5: "LZW",
        6: "old-style JPEG",
        7: "JPEG",
        8: "deflate",
        9: "JBIG",
        10: "JBIG",
        32766: "NeXT",
        32771: "CCITT RLE, word-aligned",
        32773: "PackBits",
        32809: "ThunderScan",
        32909: "PixarLog",
        32946: "deflate",
        33003: "JPEG 2000 (Aperio YCbCr)",
        33005: "JPEG 2000 (Aperio RGB)",
        33004: "JPEG 2000 (lossless)",
        33007: "JPEG (another code)",
        34661: "JBIG",
        34676: "SGI LogLuv",
        34677: "SGI LogLuv, 24 bits",
        34712: "JPEG 2000",
        34887: "LERC",
        34892: "lossy JPEG (DNG)",
        34925: "LZMA",
        34926: "Zstandard (before it had a number)",
        34927: "WebP (before it had a number)",
        34933: "PNG",
        34934: "JPEG XR",
        48124: "Jetraw",
        22610: "JPEG XR (NDPI)",
        50000: "Zstandard",
        50001: "WebP",
        50002: "JPEG XL",
        52546: "JPEG XL (DNG)",
    }
)
"""For messages; being listed does not mean being read."""

EXTRA_SAMPLE_NAMES: Final = MappingProxyType(
    {0: "unspecified", 1: "associated alpha", 2: "unassociated alpha"}
)

PHOTOMETRIC_NAMES: Final = MappingProxyType(
    {
        0: "white is zero",
        1: "black is zero",
        2: "RGB",
        3: "palette",
        4: "transparency mask",
        5: "separated (CMYK)",
        6: "YCbCr",
        8: "CIE L*a*b*",
        9: "ICC L*a*b*",
        10: "ITU L*a*b*",
        32803: "colour filter array",
        32844: "LogL",
        32845: "LogLuv",
        34892: "linear raw",
    }
)
