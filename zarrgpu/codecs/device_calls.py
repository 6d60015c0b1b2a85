"""Which calls a device chain can make for a wave, before anything of it was fetched.

What streams turn out to hold decides which of them are made: a Blosc container names its own codec,
a zstd frame says whether it has a checksum.
"""

from __future__ import annotations

from zarrgpu.codecs.blosc_streams import FORMATS
from zarrgpu.codecs.device import DeviceChain
from zarrgpu.codecs.device_elements import ChecksumStage, Kernel
from zarrgpu.codecs.device_steps import DECODED, ELEMENTS, FETCHED, STREAMS
from zarrgpu.devices.tables import ChecksumKind

Call = tuple[int, str]
"""Level and name of a step: steps of all arrays that share both are one call."""

_DEFLATE: tuple[Call, ...] = (
    (FETCHED, "copy_segments"), (STREAMS, "deflate"), (DECODED, "checksum"),
)  # fmt: skip
_COMPRESSORS: dict[str | None, tuple[Call, ...]] = {
    None: (),
    "lz4": ((STREAMS, "lz4"),),
    "zstd": ((STREAMS, "zstd"), (DECODED, "xxh64")),
    "zlib": _DEFLATE,
    "gzip": _DEFLATE,
    "blosc": (
        (FETCHED, "copy_segments"),
        *((STREAMS, name) for name in sorted(FORMATS.values())),
        (DECODED, "checksum"), (DECODED, "unshuffle_bits"), (DECODED, "unshuffle_bytes"),
    ),
    "lzw": ((STREAMS, "lzw"),),
    "lzw_reversed": ((STREAMS, "lzw"),),
    "tiff_packbits": ((STREAMS, "packbits_runs"),),
    "tiff_packbits_reversed": ((STREAMS, "packbits_runs"),),
}  # fmt: skip
"""Compressor -> the steps of `device_streams`."""


def possible_calls(chain: DeviceChain) -> set[Call]:
    """Steps that chunks of a chain can need.

    Parameters
    ----------
    chain : DeviceChain

    Returns
    -------
    set of (level, name)
    """
    calls: set[Call] = set()
    for checksum in chain.checksums:
        own = checksum.kind != ChecksumKind.CRC32C
        calls.add((FETCHED, "checksum" if own else "crc32c"))
    if chain.image is not None:
        names = ("jpeg_scan", "mark_planes")
        calls |= {(FETCHED, name) for name in names}
        calls |= {(STREAMS, chain.image.image_format), (DECODED, "ycbcr")}
    else:
        calls |= set(_COMPRESSORS[chain.compressor])
    for level, stage in enumerate(chain.elements, ELEMENTS):
        if isinstance(stage, Kernel):
            calls.add((level, stage.name))
        elif isinstance(stage, ChecksumStage):
            calls.add((level, "checksum"))
    return calls if chain.short is None else calls | possible_calls(chain.short)
