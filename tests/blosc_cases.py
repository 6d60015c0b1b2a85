"""Blosc containers taken apart and put together by hand, by the letter of the format."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

import imagecodecs
import numcodecs
import numpy as np

CODES = {"blosclz": 0, "lz4": 1, "snappy": 2, "zlib": 3, "zstd": 4}


def blosclz(raw: bytes) -> bytes:
    """Stream of c-blosc's own encoder: a container of one block and one stream has it."""
    encoded = numcodecs.blosc.compress(raw, b"blosclz", 9, 0, len(raw), typesize=1)
    flags, start = encoded[2], struct.unpack_from("<i", encoded, 16)[0]
    if flags & 2:  # it did not shrink
        return raw
    size = struct.unpack_from("<i", encoded, start)[0]
    return bytes(encoded[start + 4 : start + 4 + size])


_ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "blosclz": blosclz,
    "lz4": lambda raw: bytes(imagecodecs.lz4_encode(raw)),
    "snappy": lambda raw: bytes(imagecodecs.snappy_encode(raw)),
    "zlib": zlib.compress,
    "zstd": lambda raw: bytes(numcodecs.Zstd(1).encode(raw)),
}


@dataclass(kw_only=True)
class Container:
    """A container of `blocks` blocks, each a list of encoded streams with their sizes in front.

    Attributes
    ----------
    cname : str
    typesize, nbytes, blocksize : int
    flags : int
        Besides the codec.
    blocks : list of bytes
    order : list of int, optional
        Where each block lies among the others: threaded writers do not keep them in order.
    gap : int
        Bytes of nothing between blocks.
    """

    cname: str
    typesize: int
    nbytes: int
    blocksize: int
    flags: int
    blocks: list[bytes]
    order: list[int] | None = None
    gap: int = 0
    versions: tuple[int, int] = (2, 1)
    said: dict[str, int] = field(default_factory=dict)

    def encode(self) -> bytes:
        """The container's bytes."""
        starts = [0] * len(self.blocks)
        body = b""
        first = 16 + 4 * len(self.blocks)
        for index in self.order or range(len(self.blocks)):
            starts[index] = first + len(body)
            body += self.blocks[index] + b"\xee" * self.gap
        size = first + len(body)
        flags = self.flags | CODES[self.cname] << 5
        header = struct.pack(
            "<BBBBiii", *self.versions, flags, self.typesize, self.said.get("nbytes", self.nbytes),
            self.said.get("blocksize", self.blocksize), self.said.get("cbytes", size),
        )  # fmt: skip
        return header + struct.pack(f"<{len(starts)}i", *starts) + body


def shuffle(block: np.ndarray, typesize: int) -> np.ndarray:
    """Bytes of each significance together; what does not fill an element stays at the end."""
    whole = block.size // typesize * typesize
    return np.concatenate([block[:whole].reshape(-1, typesize).T.ravel(), block[whole:]])


def build(
    data: np.ndarray,
    *,
    cname: str,
    typesize: int,
    blocksize: int,
    split: bool = False,
    shuffled: bool = False,
    stored: bool = False,
    **options,
) -> Container:
    """Container of a byte array.

    `stored` keeps every stream as it is, as encoders do with what does not shrink.
    """
    blocks = []
    for at in range(0, data.size, blocksize):
        block = data[at : at + blocksize]
        if shuffled:
            block = shuffle(block, typesize)
        splits = typesize if split and block.size == blocksize else 1
        coded = [
            raw if stored or len(made := _ENCODERS[cname](raw)) >= len(raw) else made
            for raw in (part.tobytes() for part in np.split(block, splits))
        ]
        blocks.append(b"".join(struct.pack("<i", len(c)) + c for c in coded))
    flags = (1 if shuffled else 0) | (0 if split else 16)
    return Container(
        cname=cname, typesize=typesize, nbytes=data.size, blocksize=blocksize, flags=flags,
        blocks=blocks, **options,
    )  # fmt: skip
