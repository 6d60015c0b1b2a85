"""Zstandard.

Spec: RFC 8878. Zarr v3 ``zstd``, v2 ``{"id": "zstd"}``, TIFF compression 50000.
Example: ``{"name": "zstd", "configuration": {"level": 3, "checksum": false}}``.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from zarrgpu.codecs.base import CodecError, Compressor, checked, place
from zarrgpu.model import ByteArray

_MAGIC = 0xFD2FB528
_SKIPPABLE_MAGIC = 0x184D2A50
_BLOCK_MAX = 128 << 10
_UNSIZED_SLACK = 1 << 20
_contexts = threading.local()


@dataclass(frozen=True, slots=True)
class FrameHeader:
    """First frame of a zstd stream.

    Attributes
    ----------
    content_nbytes : int or None
        Decoded size if the writer stored it.
    header_nbytes : int
    has_checksum : bool
    has_dictionary : bool
    """

    content_nbytes: int | None
    header_nbytes: int
    has_checksum: bool
    has_dictionary: bool


def parse_frame_header(encoded: ByteArray) -> FrameHeader:
    """Read the frame header (RFC 8878, 3.1.1.1); raise CodecError if it is not one."""
    head = encoded[:18].tobytes()
    if len(head) < 6 or int.from_bytes(head[:4], "little") != _MAGIC:
        msg = f"not a zstd frame: starts with {head[:4].hex() or 'nothing'}, expected 28b52ffd"
        raise CodecError(msg)
    descriptor = head[4]
    single_segment = bool(descriptor & 0x20)
    at = 5 + (not single_segment)
    dictionary_nbytes = (0, 1, 2, 4)[descriptor & 3]
    dictionary = int.from_bytes(head[at : at + dictionary_nbytes], "little")
    at += dictionary_nbytes
    size_code = descriptor >> 6
    size_nbytes = (1 if single_segment else 0, 2, 4, 8)[size_code]
    content: int | None = None
    if size_nbytes:
        content = int.from_bytes(head[at : at + size_nbytes], "little") + (256 * (size_code == 1))
    at += size_nbytes
    if at > len(head):
        msg = f"zstd frame header is cut off after {len(head)} bytes"
        raise CodecError(msg)
    return FrameHeader(content, at, bool(descriptor & 4), dictionary != 0)


def is_one_frame(encoded: ByteArray, header: FrameHeader) -> bool:
    """Whether the first frame's blocks end where `encoded` does."""
    at, last = header.header_nbytes, False
    while not last:
        raw = encoded[at : at + 3].tobytes()
        if len(raw) < 3:
            return False
        block = int.from_bytes(raw, "little")
        last = bool(block & 1)
        at += 3 + (1 if (block >> 1) & 3 == 1 else block >> 3)
    return at + 4 * header.has_checksum == encoded.size


def decoded_bound(encoded: ByteArray) -> int:
    """Upper bound of the decoded size of all frames, by walking their block headers."""
    at, bound = 0, 0
    while at < encoded.size:
        head = encoded[at : at + 8].tobytes()
        if len(head) == 8 and int.from_bytes(head[:4], "little") >> 4 == _SKIPPABLE_MAGIC >> 4:
            at += 8 + int.from_bytes(head[4:], "little")
            continue
        header = parse_frame_header(encoded[at:])
        at += header.header_nbytes
        last = False
        while not last:
            raw = encoded[at : at + 3].tobytes()
            if len(raw) < 3:
                msg = f"zstd frame is cut off at byte {encoded.size}"
                raise CodecError(msg)
            block = int.from_bytes(raw, "little")
            last, kind, size = bool(block & 1), (block >> 1) & 3, block >> 3
            bound += size if kind in (0, 1) else _BLOCK_MAX
            at += 3 + (1 if kind == 1 else size)
        at += 4 * header.has_checksum
    return bound


def decode_frame(encoded: ByteArray, out: ByteArray) -> None:
    """Decode one frame that says it has ``out.size`` bytes, with a context that is used again.

    Making a context for each frame, as numcodecs and imagecodecs do, costs more than decoding a
    small chunk.
    """
    import zstandard

    decompressor = getattr(_contexts, "decompressor", None)
    if decompressor is None:
        decompressor = _contexts.decompressor = zstandard.ZstdDecompressor()
    try:
        reader = decompressor.stream_reader(encoded.data)
        got = reader.readinto(out)
        # the end of the frame, with its checksum, is looked at when more is asked for
        more = reader.read(1) if got == out.size else b""
    except zstandard.ZstdError as error:
        raise CodecError(str(error)) from error
    checked(got + len(more), out.size, exact=True)


@dataclass(frozen=True, slots=True)
class ZstdCodec(Compressor):
    """Zstandard frames; the content checksum is verified by the library where it is present."""

    name: ClassVar[str] = "zstd"

    def decode_host(self, encoded: ByteArray, nbytes: int, out: ByteArray | None) -> ByteArray:
        """Decode with libzstd: one frame by python-zstandard, several by numcodecs."""
        from numcodecs import zstd

        header = parse_frame_header(encoded)
        if header.has_dictionary:
            msg = "zstd frame needs a dictionary, which Zarr and TIFF do not carry"
            raise CodecError(msg)
        if header.content_nbytes is not None:
            checked(header.content_nbytes, nbytes, exact=out is not None)
            target = np.empty(header.content_nbytes, np.uint8) if out is None else out
        elif out is None:
            return self._decode_unsized(encoded, nbytes)
        else:
            target = out
        if header.content_nbytes is not None and is_one_frame(encoded, header):
            decode_frame(encoded, target)
            return target
        try:
            zstd.decompress(encoded, target)
        except (RuntimeError, ValueError) as error:
            raise CodecError(str(error)) from error
        return target

    def _decode_unsized(self, encoded: ByteArray, nbytes: int) -> ByteArray:
        """Decode a stream without a stored size; bounded before it is run."""
        from numcodecs import zstd

        bound = decoded_bound(encoded)
        if bound > 2 * nbytes + _UNSIZED_SLACK:
            msg = f"zstd stream may decode to {bound} bytes, expected at most {nbytes}"
            raise CodecError(msg)
        try:
            decoded = np.frombuffer(zstd.decompress(encoded), np.uint8)
        except (RuntimeError, ValueError) as error:
            raise CodecError(str(error)) from error
        return place(decoded, nbytes, None)
