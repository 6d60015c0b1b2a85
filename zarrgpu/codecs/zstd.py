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


def is_skippable(encoded: ByteArray) -> bool:
    """Whether a skippable frame comes first (RFC 8878, 3.1.2)."""
    magic = int.from_bytes(encoded[:4].tobytes(), "little")
    return encoded.size >= 8 and magic >> 4 == _SKIPPABLE_MAGIC >> 4


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


def decoded_bound(encoded: ByteArray) -> tuple[int, bool]:
    """Upper bound of the decoded size of all frames, by walking their block headers.

    Returns
    -------
    bound : int
        Sum of the sizes that the frames state, where all do.
    stated : bool
        Whether all do; they need not keep to it.
    """
    at, bound, content, stated = 0, 0, 0, True
    while at < encoded.size:
        if is_skippable(encoded[at : at + 8]):
            at += 8 + int.from_bytes(encoded[at + 4 : at + 8].tobytes(), "little")
            continue
        header = parse_frame_header(encoded[at:])
        content += header.content_nbytes or 0
        stated &= header.content_nbytes is not None
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
    return (content, True) if stated else (bound, False)


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


def decode_prefix(encoded: ByteArray, out: ByteArray) -> ByteArray:
    """Decode the first ``out.size`` bytes of a frame that has no fewer."""
    import zstandard

    try:
        got = zstandard.ZstdDecompressor().stream_reader(encoded.data).readinto(out)
    except zstandard.ZstdError as error:
        raise CodecError(str(error)) from error
    checked(got, out.size, exact=True)
    return out


@dataclass(frozen=True, slots=True)
class ZstdCodec(Compressor):
    """Zstandard frames; the content checksum is verified by the library where it is present."""

    name: ClassVar[str] = "zstd"

    def decode_host(self, encoded: ByteArray, nbytes: int, out: ByteArray | None) -> ByteArray:
        """Decode with libzstd: one frame by python-zstandard, several by numcodecs."""
        header = None if is_skippable(encoded) else parse_frame_header(encoded)
        if header is not None and header.has_dictionary:
            msg = "zstd frame needs a dictionary, which Zarr and TIFF do not carry"
            raise CodecError(msg)
        if header is None or header.content_nbytes is None or not is_one_frame(encoded, header):
            return self._decode_frames(encoded, nbytes, out)
        checked(header.content_nbytes, nbytes, exact=out is not None)
        target = np.empty(header.content_nbytes, np.uint8) if out is None else out
        decode_frame(encoded, target)
        return target

    def decode_part_host(
        self, encoded: ByteArray, start: int, nbytes: int, decoded_nbytes: int
    ) -> ByteArray:
        """Decode up to the end of the part; all, where there is a checksum or another frame."""
        header = None if is_skippable(encoded) else parse_frame_header(encoded)
        room = np.empty(decoded_nbytes, np.uint8)
        if (
            header is None
            or header.content_nbytes != decoded_nbytes
            or header.has_checksum
            or header.has_dictionary
        ):
            return self.decode_host(encoded, decoded_nbytes, room)[start : start + nbytes]
        return decode_prefix(encoded, room[: start + nbytes])[start:]

    def _decode_frames(self, encoded: ByteArray, nbytes: int, out: ByteArray | None) -> ByteArray:
        """Decode any number of frames, which may not state their size; bounded before it is run."""
        from numcodecs import zstd

        bound, stated = decoded_bound(encoded)
        target = out
        if stated:  # numcodecs leaves the rest of a larger `out` as it is, without an error
            checked(bound, nbytes, exact=out is not None)
            target = np.empty(bound, np.uint8) if out is None else out
        elif out is None and bound > 2 * nbytes + _UNSIZED_SLACK:
            msg = f"zstd stream may decode to {bound} bytes, expected at most {nbytes}"
            raise CodecError(msg)
        try:
            if target is not None:  # an error where it is not filled
                zstd.decompress(encoded, target)
                return target
            decoded = np.frombuffer(zstd.decompress(encoded), np.uint8)
        except (RuntimeError, ValueError) as error:
            raise CodecError(str(error)) from error
        return place(decoded, nbytes, None)
