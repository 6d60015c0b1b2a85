"""Writing Zarr arrays for tests, byte by byte: an encoder that shares no code with zarrgpu.

`encode` turns a NumPy array and a `Recipe` into the objects of a Zarr array, by the letter of the
specifications and with numcodecs, so that tests can hold arrays that zarr-python would not write
(index without checksum, holes, any byte order) and can damage each byte on purpose.
`test_formats.py` shows that zarr-python reads what it writes.
"""

from __future__ import annotations

import base64
import itertools
import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import google_crc32c
import numcodecs
import numpy as np

from zarrgpu.errors import StoreError
from zarrgpu.model import ByteArray, ByteRange
from zarrgpu.stores.base import check_size

BLOSC_SHUFFLES = {"noshuffle": 0, "shuffle": 1, "bitshuffle": 2}
BLOSC_INNER = [c for c in ("blosclz", "lz4", "lz4hc", "snappy", "zlib", "zstd")
               if c in numcodecs.blosc.list_compressors()]  # fmt: skip

Coords = tuple[int, ...]
Codec = tuple[str, dict[str, Any]]

CHAINS: dict[str, tuple[Codec, ...]] = {
    "none": (),
    "zstd": (("zstd", {"level": 1, "checksum": False}),),
    "zstd-checksum": (("zstd", {"level": 1, "checksum": True}),),
    "gzip": (("gzip", {"level": 1}),),
    "zlib": (("numcodecs.zlib", {"level": 1}),),
    "lz4": (("numcodecs.lz4", {"acceleration": 1}),),
    "crc32c": (("crc32c", {}),),
    "zstd+crc32c": (("zstd", {"level": 1, "checksum": False}), ("crc32c", {})),
    "crc32c+gzip": (("crc32c", {}), ("gzip", {"level": 1})),
    **{
        f"blosc-{inner}-{shuffle}": (
            ("blosc", {"cname": inner, "clevel": 5, "shuffle": shuffle, "blocksize": 0}),
        )
        for inner in BLOSC_INNER
        for shuffle in BLOSC_SHUFFLES
    },
}
"""Every codec that the Zarr path decodes, alone and in chains."""

DTYPES = ("bool", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16")
"""Core types of v3, as NumPy names them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How an array is stored.

    Attributes
    ----------
    chunks : tuple of int
    shards : tuple of int, optional
    codecs : tuple of (name, configuration)
    order : tuple of int, optional
        The ``transpose`` codec's order (v3); for v2 the reversed axes mean order ``F``.
    big_endian : bool
    fill_value : scalar or None
    separator : "/" or "."
    key_encoding : "default" or "v2"
    index_location : "start" or "end"
    index_checksum, index_big_endian : bool
    missing : frozenset of chunk coordinates
        Chunks (inner chunks of shards) that are not stored.
    zarr_format : 2 or 3
    """

    chunks: tuple[int, ...]
    shards: tuple[int, ...] | None = None
    codecs: tuple[Codec, ...] = ()
    order: tuple[int, ...] | None = None
    big_endian: bool = False
    fill_value: Any = 0
    separator: str = "/"
    key_encoding: str = "default"
    index_location: str = "end"
    index_checksum: bool = True
    index_big_endian: bool = False
    missing: frozenset[Coords] = field(default_factory=frozenset)
    zarr_format: int = 3


def grid(shape: tuple[int, ...], chunks: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(-(-n // c) for n, c in zip(shape, chunks, strict=True))


def all_coords(shape: tuple[int, ...], chunks: tuple[int, ...]) -> Iterator[Coords]:
    return itertools.product(*map(range, grid(shape, chunks)))


def box_of(coords: Coords, chunks: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(i * c, (i + 1) * c) for i, c in zip(coords, chunks, strict=True))


def expected(data: np.ndarray, recipe: Recipe) -> np.ndarray:
    """What a reader must give: the data, and the fill value where chunks are missing."""
    out = data.astype(data.dtype.newbyteorder("="))
    for coords in recipe.missing:
        fill = recipe.fill_value
        out[box_of(coords, recipe.chunks)] = np.zeros((), out.dtype) if fill is None else fill
    return out


def encode(data: np.ndarray, recipe: Recipe) -> dict[str, bytes]:
    """Objects of the array: key to bytes, metadata included."""
    stored = data.astype(data.dtype.newbyteorder(">" if recipe.big_endian else "<"))
    chunks = {
        coords: encode_chunk(stored, coords, recipe)
        for coords in all_coords(data.shape, recipe.chunks)
        if coords not in recipe.missing
    }
    stored_objects = chunks if recipe.shards is None else _shards(data, chunks, recipe)
    objects = {chunk_key(coords, recipe): value for coords, value in stored_objects.items()}
    document = metadata(stored, recipe)
    name = "zarr.json" if recipe.zarr_format == 3 else ".zarray"
    return {name: json.dumps(document).encode(), **objects}


def encode_chunk(stored: np.ndarray, coords: Coords, recipe: Recipe) -> bytes:
    """One chunk: whole, overhanging the array with zeros, in stored order, through the codecs."""
    whole = np.zeros(recipe.chunks, stored.dtype)
    part = stored[box_of(coords, recipe.chunks)]
    whole[tuple(map(slice, part.shape))] = part
    if recipe.order is not None:
        whole = whole.transpose(recipe.order)
    encoded: Any = np.ascontiguousarray(whole)
    for name, configuration in recipe.codecs:
        encoded = apply_codec(name, configuration, encoded)
    return encoded if isinstance(encoded, bytes) else encoded.tobytes()


def apply_codec(name: str, configuration: Mapping[str, Any], data: Any) -> bytes:
    raw = data if isinstance(data, bytes) else data.tobytes()
    name = name.removeprefix("numcodecs.")
    if name == "crc32c":
        return raw + google_crc32c.value(raw).to_bytes(4, "little")
    if name == "blosc":
        typesize = data.dtype.itemsize if isinstance(data, np.ndarray) else 1
        codec = numcodecs.Blosc(
            configuration["cname"],
            configuration["clevel"],
            BLOSC_SHUFFLES[configuration["shuffle"]],
            blocksize=configuration["blocksize"],
            typesize=min(typesize, 255),
        )
        return bytes(codec.encode(raw))
    codec = numcodecs.get_codec({"id": name, **configuration})
    return bytes(codec.encode(raw))


def chunk_key(coords: Coords, recipe: Recipe) -> str:
    parts = [str(i) for i in coords]
    if recipe.zarr_format == 2 or recipe.key_encoding == "v2":
        return recipe.separator.join(parts) or "0"
    return recipe.separator.join(["c", *parts])


def _shards(
    data: np.ndarray, chunks: Mapping[Coords, bytes], recipe: Recipe
) -> dict[Coords, bytes]:
    assert recipe.shards is not None
    per_shard = grid(recipe.shards, recipe.chunks)
    shards = {}
    for outer in all_coords(data.shape, recipe.shards):
        index = np.full((*per_shard, 2), 2**64 - 1, ">u8" if recipe.index_big_endian else "<u8")
        index_nbytes = index.nbytes + 4 * recipe.index_checksum
        body = bytearray(index_nbytes if recipe.index_location == "start" else 0)
        for inner in np.ndindex(*per_shard):
            coords = tuple(o * n + i for o, n, i in zip(outer, per_shard, inner, strict=True))
            if coords in chunks:
                index[inner] = len(body), len(chunks[coords])
                body += chunks[coords]
        if (index == 2**64 - 1).all():
            continue
        encoded = index.tobytes()
        if recipe.index_checksum:
            encoded = apply_codec("crc32c", {}, encoded)
        if recipe.index_location == "start":
            body[:index_nbytes] = encoded
        else:
            body += encoded
        shards[outer] = bytes(body)
    return shards


def metadata(stored: np.ndarray, recipe: Recipe) -> dict[str, Any]:
    """The metadata document."""
    fill = json_fill(recipe.fill_value, stored.dtype)
    if recipe.zarr_format == 2:
        named = [
            {"id": name.removeprefix("numcodecs."), **configuration}
            for name, configuration in recipe.codecs
        ]
        for codec in named:
            if codec["id"] == "blosc":
                codec["shuffle"] = BLOSC_SHUFFLES[codec["shuffle"]]
        return {
            "zarr_format": 2, "shape": list(stored.shape), "chunks": list(recipe.chunks),
            "dtype": stored.dtype.str, "fill_value": fill, "order": "F" if recipe.order else "C",
            "filters": named[:-1] or None, "compressor": named[-1] if named else None,
            "dimension_separator": recipe.separator,
        }  # fmt: skip
    codecs: list[dict[str, Any]] = []
    if recipe.order is not None:
        codecs.append({"name": "transpose", "configuration": {"order": list(recipe.order)}})
    endian = "big" if recipe.big_endian else "little"
    codecs.append({"name": "bytes", "configuration": {"endian": endian}})
    for name, configuration in recipe.codecs:
        if name == "blosc":
            configuration = {**configuration, "typesize": stored.dtype.itemsize}
        codecs.append({"name": name, "configuration": configuration})
    if recipe.shards is not None:
        index_endian = "big" if recipe.index_big_endian else "little"
        index_codecs: list[dict[str, Any]] = [
            {"name": "bytes", "configuration": {"endian": index_endian}}
        ]
        if recipe.index_checksum:
            index_codecs.append({"name": "crc32c"})
        sharding = {
            "chunk_shape": list(recipe.chunks), "codecs": codecs, "index_codecs": index_codecs,
            "index_location": recipe.index_location,
        }  # fmt: skip
        codecs = [{"name": "sharding_indexed", "configuration": sharding}]
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(stored.shape),
        "data_type": v3_name(stored.dtype),
        "chunk_grid": {
            "name": "regular",
            "configuration": {
                "chunk_shape": list(recipe.chunks if recipe.shards is None else recipe.shards)
            },
        },
        "chunk_key_encoding": {
            "name": recipe.key_encoding,
            "configuration": {"separator": recipe.separator},
        },
        "fill_value": fill,
        "codecs": codecs,
        "attributes": {},
    }


def v3_name(dtype: np.dtype) -> str:
    return f"r{8 * dtype.itemsize}" if dtype.kind == "V" else dtype.newbyteorder("=").name


def json_fill(value: Any, dtype: np.dtype) -> Any:
    """Fill value as the specifications write it."""
    if value is None:
        return None
    if dtype.kind == "c":
        return [
            json_fill(part, np.dtype("f8")) for part in (complex(value).real, complex(value).imag)
        ]
    if dtype.kind == "f":
        value = float(value)
        if np.isnan(value):
            return "NaN"
        return value if np.isfinite(value) else "Infinity" if value > 0 else "-Infinity"
    if dtype.kind == "S":
        return base64.b64encode(bytes(value).ljust(dtype.itemsize, b"\0")).decode()
    if dtype.kind == "V":
        return list(bytes(value)) if not isinstance(value, np.void) else list(value.tobytes())
    if dtype.kind in "mM":
        return int(np.asarray(value).astype(dtype).view("i8"))
    return str(value) if dtype.kind == "U" else bool(value) if dtype.kind == "b" else int(value)


def write(path: Path, objects: Mapping[str, bytes]) -> Path:
    """Write objects as files."""
    for key, data in objects.items():
        file = path / key
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return path


def values(shape: tuple[int, ...], dtype: Any, seed: int = 0) -> np.ndarray:
    """Compressible values over the whole range of a type, NaN and infinities included."""
    dtype = np.dtype(dtype)
    rng = np.random.default_rng(seed)
    if dtype.kind == "b":
        return rng.integers(0, 2, shape).astype(dtype)
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        edges = np.array([info.min, info.max, 0, 1], dtype)
        ramp = (np.arange(int(np.prod(shape))) % 100).astype(dtype).reshape(shape)
        return np.where(rng.random(shape) < 0.2, rng.choice(edges, shape), ramp)
    if dtype.kind in "fc":
        part = np.dtype(f"f{dtype.itemsize // (2 if dtype.kind == 'c' else 1)}")
        real = np.round(rng.standard_normal((*shape, 2)) * 100).astype(part)
        real[rng.random((*shape, 2)) < 0.1] = np.nan
        real[rng.random((*shape, 2)) < 0.1] = -np.inf
        return real.view(dtype)[..., 0] if dtype.kind == "c" else real[..., 0].copy()
    if dtype.kind in "mM":
        return (
            rng.integers(-(1 << 40), 1 << 40, shape).astype(np.int64).view(dtype.newbyteorder("="))
        )
    raw = rng.integers(65, 70, (*shape, dtype.itemsize), np.uint8)
    if dtype.kind == "U":
        raw = raw[..., : dtype.itemsize // 4].astype("=u4").view(np.uint8)
    return np.ascontiguousarray(raw).view(dtype.newbyteorder("="))[..., 0]


class MemoryStore:
    """A store of a dictionary that counts its requests."""

    io_concurrency = 4
    max_gap_bytes = 1 << 10
    max_coalesced_bytes = 1 << 20

    def __init__(self, objects: Mapping[str, bytes], url: str = "dict://test") -> None:
        self.objects = dict(objects)
        self.url = url
        self.requests: list[tuple[str, int | None, int | None]] = []
        self._lock = threading.Lock()

    def __getstate__(self) -> tuple[dict[str, bytes], str]:
        return self.objects, self.url

    def __setstate__(self, state: tuple[dict[str, bytes], str]) -> None:
        self.__init__(*state)  # type: ignore[misc]

    def _get(self, key: str, offset: int | None, nbytes: int | None) -> bytes | None:
        with self._lock:
            self.requests.append((key, offset, nbytes))
        return self.objects.get(key)

    def get(
        self, key: str, allocate: Any = None, max_nbytes: int | None = None
    ) -> ByteArray | None:
        data = self._get(key, None, None)
        if data is not None:
            check_size(self.url, key, len(data), max_nbytes)
        return None if data is None else np.frombuffer(data, np.uint8)

    def get_range(self, key: str, byte_range: ByteRange, allocate: Any = None) -> ByteArray | None:
        data = self._get(key, byte_range.offset, byte_range.nbytes)
        if data is None:
            return None
        if byte_range.end > len(data):
            msg = f"{self.url!r} key {key!r}: range ends at {byte_range.end}, object at {len(data)}"
            raise StoreError(msg)
        return np.frombuffer(data, np.uint8)[byte_range.offset : byte_range.end]

    def get_suffix(self, key: str, nbytes: int) -> ByteArray | None:
        data = self._get(key, None, nbytes)
        return None if data is None else np.frombuffer(data, np.uint8)[-nbytes:]

    def size(self, key: str) -> int | None:
        data = self.objects.get(key)
        return None if data is None else len(data)

    def list_dir(self, prefix: str) -> list[str]:
        base = f"{prefix}/" if prefix else ""
        return sorted({k[len(base) :].split("/")[0] for k in self.objects if k.startswith(base)})


def store_of(data: np.ndarray, **recipe) -> MemoryStore:
    return MemoryStore(encode(data, Recipe(**recipe)))


def corrupt(store: MemoryStore, key: str) -> bytes:
    """Break a chunk so that no decoder takes it; return what it was."""
    good = store.objects[key]
    store.objects[key] = good[: len(good) // 2]
    return good
