"""Which chains a device decodes, and the tables that tell it how: pure NumPy, no device.

A device chain is, in the order of decoding: checksums around what was fetched, at most one
compressor, and codecs of elements. What of a chunk a device cannot decode or verify is decoded on
the host, which either succeeds or says what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np

from zarrgpu.codecs.base import Codec, CodecChain
from zarrgpu.codecs.device_elements import CHECKSUM_NBYTES, Checksum, ElementStage, Kernel, Rooms
from zarrgpu.codecs.device_images import DeviceImage, add_images, device_image
from zarrgpu.codecs.device_stages import checksum_of, element_stage
from zarrgpu.codecs.device_steps import ELEMENTS, FETCHED, DecodeTables, Int64s, read_word
from zarrgpu.codecs.device_streams import COMPRESSORS, REVERSED
from zarrgpu.codecs.short_chunk import ShortChunkCodec
from zarrgpu.devices.requests import ImageFormat
from zarrgpu.devices.tables import ChecksumKind
from zarrgpu.model import ByteArray

DEVICE_DECODERS = {
    "bytes": "no decoding needed",
    "crc32c": "nvCOMP, or own kernels after a compressor",
    "crc32c_start": "nvCOMP, or own kernels after a compressor",
    "crc32": "own kernels",
    "adler32": "own kernels",
    "fletcher32": "own kernels",
    "astype": "own kernel; values that no cast agrees on, on the host",
    "bitround": "no decoding needed",
    "cast_value": "own kernel where integers become a type that holds them all; else the host",
    "delta": "own kernels",
    "fixedscaleoffset": "own kernel; values that no cast agrees on, on the host",
    "packbits": "own kernel",
    "quantize": "own kernel",
    "reshape": "no decoding needed",
    "scale_offset": "own kernel for floats; integers on the host",
    "shuffle": "own kernel",
    "transpose": "own kernel",
    "zstd": "nvCOMP; content checksums by an own kernel",
    "lz4": "nvCOMP",
    "zlib": "nvCOMP and own checksum kernels",
    "gzip": "nvCOMP and own checksum kernels",
    "blosc": "nvCOMP and own kernels",
    "lzw": "own kernel",
    "short_chunk": "no decoding needed",
    "tiff_bits": "own kernel",
    "tiff_fill_order": "own kernel",
    "tiff_packbits": "own kernel",
    "tiff_predictor": "own kernel",
    "jpeg": "nvJPEG and own kernels",
    "jpeg2k": "nvJPEG2000 and own kernels",
    "imagecodecs_jpeg": "nvJPEG and own kernels, where the metadata tell the colours",
    "imagecodecs_jpeg8": "nvJPEG and own kernels, where the metadata tell the colours",
    "zarr_jpeg": "nvJPEG and own kernels, where the metadata tell the colours",
    "imagecodecs_jpeg2k": "nvJPEG2000 and own kernels",
}
"""Codec -> what decodes it on a CUDA device."""

_DEVICE_BYTES_PER_DECODED: dict[str | None, float] = {
    None: 0, "lz4": 1, "zlib": 2.1, "gzip": 2.1, "zstd": 4.1, "blosc": 5.1, "lzw": 1,
    "lzw_reversed": 1, "tiff_packbits": 1, "tiff_packbits_reversed": 1,
}  # fmt: skip
"""Memory besides the payload: room to decode into, aligned copies, and nvCOMP's for zstd."""


_LIBRARY_BYTES_PER_SAMPLE = 5
"""Memory that an image library takes for itself: coefficients of 2 or 4 bytes, and streams."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceChain:
    """A chain that a device can run, in the order of decoding.

    Attributes
    ----------
    names : tuple of str
        Its codecs.
    checksums : tuple of Checksum
        Around what was fetched, outermost first.
    compressor : str or None
    stream_nbytes : int
        What the compressor decodes to.
    elements : tuple of ElementStage
        After the compressor.
    image : DeviceImage or None
        What decodes images, in place of a compressor.
    short_nbytes : int or None
        Decoded size of chunks that hold fewer rows than others: the last strips of a TIFF.
    short : DeviceChain or None
        Decodes these; None where no device does.
    spare_nbytes : int
        Device memory that is readable behind decoded chunks.
    """

    names: tuple[str, ...]
    checksums: tuple[Checksum, ...]
    compressor: str | None
    stream_nbytes: int
    elements: tuple[ElementStage, ...]
    image: DeviceImage | None = None
    short_nbytes: int | None = None
    short: DeviceChain | None = None
    spare_nbytes: int = 0

    @property
    def device_nbytes(self) -> float:
        """Device memory for a chunk besides its encoded bytes, at most."""
        rooms = 2.1 * max((stage.nbytes for stage in self.elements), default=0)
        if self.image is not None:
            image = self.image
            samples = image.height * image.width * image.samples
            own = image.planes_nbytes + image.decoded_nbytes
            return own + _LIBRARY_BYTES_PER_SAMPLE * samples + rooms
        return _DEVICE_BYTES_PER_DECODED[self.compressor] * self.stream_nbytes + rooms

    @property
    def description(self) -> str:
        """What decodes it, for people."""
        named = [f"{name} by {DEVICE_DECODERS[name]}" for name in dict.fromkeys(self.names)]
        return "; ".join(named) or DEVICE_DECODERS["bytes"]


def device_chain(
    chain: CodecChain, image_formats: Collection[ImageFormat] = ()
) -> DeviceChain | None:
    """Recognise a chain that a device can run; None if it cannot.

    Parameters
    ----------
    chain : CodecChain
    image_formats : collection of str
        Images that the device has a library for (`Driver.image_formats`).
    """
    if chain.codecs and isinstance(chain.codecs[0], ShortChunkCodec):
        return _chain_of_two_sizes(chain, chain.codecs[0], image_formats)
    codecs = list(zip(chain.codecs, chain.stage_nbytes(), strict=True))
    names = tuple(codec.name for codec, _ in reversed(codecs))
    checksums: list[Checksum] = []
    while codecs and (found := checksum_of(codecs[-1][0])) is not None:
        checksums.append(found)
        codecs.pop()
    compressor, stream_nbytes = None, codecs[-1][1] if codecs else chain.decoded_nbytes
    image = _image_of(codecs, image_formats)
    if image is not None:
        codecs.pop()
    elif len(codecs) > 1 and _is_reversed(codecs[-1][0], codecs[-2][0]):
        codecs.pop()
        codec, stream_nbytes = codecs.pop()
        compressor = REVERSED[codec.name]
    elif codecs and codecs[-1][0].name in COMPRESSORS:
        compressor = codecs.pop()[0].name
    elif codecs:
        stream_nbytes = codecs[-1][0].encoded_nbytes(codecs[-1][1] or 0)
    elements = []
    for codec, nbytes in reversed(codecs):
        stage = None if nbytes is None else element_stage(codec, nbytes)
        if stage is None:
            return None
        elements.append(stage)
    if stream_nbytes is None:
        return None
    return DeviceChain(
        names=names, checksums=tuple(checksums), compressor=compressor,
        stream_nbytes=stream_nbytes, elements=tuple(elements), image=image,
    )  # fmt: skip


def _is_reversed(last: Codec, before: Codec) -> bool:
    """Whether a decoder of streams puts their bits in order itself."""
    return last.name == "tiff_fill_order" and before.name in REVERSED


def _chain_of_two_sizes(
    chain: CodecChain, codec: ShortChunkCodec, image_formats: Collection[ImageFormat]
) -> DeviceChain | None:
    """Chains for whole chunks and for short ones.

    Nobody reads what lies beyond the rows of a short chunk, but a copy of the chunk may.
    """
    nbytes = codec.short_nbytes
    whole, short = (
        device_chain(CodecChain(chain.codecs[1:], size), image_formats)
        for size in (chain.decoded_nbytes, nbytes)
    )
    if whole is None:
        return None
    if short is not None:
        short = replace(short, spare_nbytes=chain.decoded_nbytes - nbytes)
    return replace(whole, names=(*whole.names, codec.name), short_nbytes=nbytes, short=short)


def _image_of(
    codecs: list[tuple[Codec, int | None]], image_formats: Collection[ImageFormat]
) -> DeviceImage | None:
    """How a device with libraries for `image_formats` decodes the last of the codecs."""
    image = device_image(codecs[-1][0]) if codecs else None
    if image is None or image.image_format not in image_formats:
        return None
    return image if image.decoded_nbytes == codecs[-1][1] else None


def decode_tables(
    chain: DeviceChain,
    payload: ByteArray,
    offset: Int64s,
    nbytes: Int64s,
    *,
    itemsize: int,
    verify_checksums: bool,
) -> DecodeTables:
    """Say what a device has to do to decode n fetched chunks of one array.

    Parameters
    ----------
    chain : DeviceChain
    payload : uint8 array
        Fetched bytes, in host memory.
    offset, nbytes : int64 (n,)
        Each encoded chunk in `payload`.
    itemsize : int
        Size of a decoded element.
    verify_checksums : bool
    """
    n = len(offset)
    tables = DecodeTables(
        payload=payload,
        on_device=nbytes > CHECKSUM_NBYTES * len(chain.checksums),
        result=np.zeros(n, np.int64),
        shuffle_block_nbytes=np.zeros(n, np.int64),
        verify=verify_checksums,
    )
    for checksum in chain.checksums:
        offset, nbytes = _take_off(tables, checksum, offset, nbytes)
    item = itemsize if not chain.elements else 0
    if chain.image is not None:
        add_images(tables, chain.image, offset, nbytes)
    else:
        COMPRESSORS[chain.compressor](tables, offset, nbytes, chain.stream_nbytes, item)
    rows = np.flatnonzero(tables.on_device)
    if chain.elements and len(rows):
        _add_elements(tables, chain.elements, rows, itemsize)
    tables.reserve(np.array([chain.spare_nbytes], np.int64))
    return tables


def _take_off(
    tables: DecodeTables, checksum: Checksum, offset: Int64s, nbytes: Int64s
) -> tuple[Int64s, Int64s]:
    """Take a checksum off fetched bytes, and note what it must be."""
    nbytes = nbytes - CHECKSUM_NBYTES
    stored = offset if checksum.at_start else offset + nbytes
    offset = offset + CHECKSUM_NBYTES if checksum.at_start else offset
    rows = np.flatnonzero(tables.on_device)
    if checksum.kind != ChecksumKind.CRC32C:
        tables.verify_checksum(
            FETCHED, checksum.kind, rows, offset[rows], nbytes[rows], stored[rows]
        )
    elif tables.verify:
        tables.add(
            FETCHED, "crc32c", row=rows, source=offset[rows], nbytes=nbytes[rows],
            expected=read_word(tables.payload, stored[rows]),
        )  # fmt: skip
    return offset, nbytes


def _add_elements(
    tables: DecodeTables, stages: tuple[ElementStage, ...], rows: Int64s, itemsize: int
) -> None:
    """Steps of the codecs after the compressor, each a level below the one before."""
    last = stages[-1]
    fused = isinstance(last, Kernel) and last.columns.get("typesize") == itemsize
    rooms = Rooms(tables, len(rows), max(stage.nbytes for stage in stages))
    at = tables.result[rows]
    for level, stage in enumerate(stages[: len(stages) - fused], ELEMENTS):
        at = stage.add(tables, level, rows, at, rooms)
    tables.result[rows] = at
    if fused:  # the gather unshuffles
        tables.shuffle_block_nbytes[rows] = last.nbytes
