"""How to convert, as one value."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

CODECS: Final = ("auto", "zstd", "blosc", "lz4", "gzip", "none", "jpeg")
PYRAMIDS: Final = ("auto", "keep", "generate")

ZSTD_LEVEL: Final = 5
"""Decoding is as fast at any level; beyond this one encoding slows down more than files shrink."""

BLOSC: Final = MappingProxyType({"blosc": "zstd", "lz4": "lz4"})
"""Codec option -> compressor in Blosc."""

_COUNTS: Final = ("chunk_px", "shard_px", "num_threads", "memory_budget_bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertOptions:
    """How to write.

    Attributes
    ----------
    chunk_px : int or None
        Elements of a chunk along y and x. By default 256, and bricks of 64 along z, y and x for
        volumes (32 planes and more): some 64 to 512 KiB, enough chunks in a batch for a GPU to be
        busy, and few elements read beside a patch.
    shard_px : int or None
        Elements of a shard along the same axes, made a multiple of the chunk. By default 4096 for
        planes, 256 for bricks: files of tens of MiB.
    codec : str
        "zstd"; "blosc" (zstd with a byte shuffle); "lz4" (in Blosc, with a byte shuffle); "gzip";
        "none"; "jpeg" with `copy_tiles`. "auto" is zstd for elements of a byte, blosc for others.
    copy_tiles : bool
        Take the JPEG tiles of a slide over as they are: bytes of the same image, nothing decoded.
        Chunks are the slide's tiles.
    pyramid : "auto", "keep" or "generate"
        Coarser levels: those of the source, or those made by averaging 2 x 2 (x 2) elements down to
        a chunk. "auto" keeps, and generates where the source has one level only.
    axes : str or None
        Names of the source's axes (of t, c, z, y, x), such as "czyx", where it does not say.
    associated : bool
        Whether to write label, macro and thumbnail. Labels may name patients.
    labels : bool
        Whether to write the label images below an OME-Zarr image.
    overwrite : bool
        Whether to replace what is at the output.
    num_threads : int or None
        Shards in the works at a time; by default the cores, as far as memory allows.
    memory_budget_bytes : int
        Upper bound of what shards in the works hold.
    """

    chunk_px: int | None = None
    shard_px: int | None = None
    codec: str = "auto"
    copy_tiles: bool = False
    pyramid: str = "auto"
    axes: str | None = None
    associated: bool = True
    labels: bool = True
    overwrite: bool = False
    num_threads: int | None = None
    memory_budget_bytes: int = 1 << 30

    def __post_init__(self) -> None:
        for name, allowed in (("codec", CODECS), ("pyramid", PYRAMIDS)):
            if getattr(self, name) not in allowed:
                msg = f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}"
                raise ValueError(msg)
        for name in _COUNTS:
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                msg = f"{name} must be an integer of at least 1, got {value!r}"
                raise ValueError(msg)
        if (self.codec == "jpeg") != self.copy_tiles:
            msg = "codec 'jpeg' and copy_tiles go together: JPEG tiles are copied, never made"
            raise ValueError(msg)
        if self.copy_tiles and (self.chunk_px is not None or self.pyramid == "generate"):
            msg = "with copy_tiles, chunks and levels are those of the source"
            raise ValueError(msg)

    def of_output(self) -> dict[str, Any]:
        """Those that decide what is written, for comparison with an interrupted run."""
        return {
            name: getattr(self, name)
            for name in ("chunk_px", "shard_px", "codec", "copy_tiles", "pyramid", "axes",
                         "associated", "labels")
        }  # fmt: skip
