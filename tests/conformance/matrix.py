"""A drawn matrix of arrays that zarr-python writes: every pair of choices occurs in some array.

Pairs, since a reader's mistakes sit where two features meet; all combinations would be a million.
Choices that cannot go together (shards in v2, packed bits of floats) are never drawn.
"""

from __future__ import annotations

import functools
import itertools
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numcodecs
import numpy as np
import zarr
from zarr.codecs import BytesCodec, ShardingCodec, TransposeCodec
from zarr.registry import get_codec_class
from zarr.storage import MemoryStore

from tests.chain_cases import read_with_zarr
from tests.zarr_cases import values

DTYPES = (
    "bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16",
    "float32", "float64", "complex64", "complex128", "datetime64[s]", "U3", "S4",
)  # fmt: skip
COMPRESSORS: dict[str, tuple[dict[str, Any], ...]] = {
    "none": (),
    "zstd": ({"id": "zstd", "level": 1, "checksum": False},),
    "zstd checksum": ({"id": "zstd", "level": 1, "checksum": True},),
    "gzip": ({"id": "gzip", "level": 1},),
    "zlib": ({"id": "zlib", "level": 1},),
    "lz4": ({"id": "lz4", "acceleration": 1},),
    "bz2": ({"id": "bz2", "level": 1},),
    "lzma": ({"id": "lzma", "preset": 1},),
    "crc32c": ({"id": "crc32c"},),
    "zstd, crc32c": ({"id": "zstd", "level": 1, "checksum": False}, {"id": "crc32c"}),
    "adler32, zlib": ({"id": "adler32"}, {"id": "zlib", "level": 1}),
    "fletcher32": ({"id": "fletcher32"},),
    "shuffle, zlib": ({"id": "shuffle", "elementsize": 4}, {"id": "zlib", "level": 1}),
    **{
        f"blosc {name} {shuffle}": (
            {"id": "blosc", "cname": name, "clevel": 5, "shuffle": shuffle, "blocksize": 0},
        )
        for name, shuffle in (("lz4", 1), ("zstd", 2), ("blosclz", 0), ("zlib", 1))
    },
}
FILTERS = ("none", "delta", "fixedscaleoffset", "quantize", "bitround", "astype", "packbits")
_FILTER_KINDS = {
    "delta": "iu", "fixedscaleoffset": "iuf", "quantize": "f", "bitround": "f", "astype": "iuf",
    "packbits": "b",
}  # fmt: skip

CHOICES: dict[str, tuple[Any, ...]] = {
    "zarr_format": (2, 3),
    "dtype": DTYPES,
    "compressor": tuple(COMPRESSORS),
    "filter": FILTERS,
    "order": ("C", "F", "other"),
    "big_endian": (False, True),
    "shards": ("none", "end", "start", "nested"),
    "fill": ("zero", "value", "special"),
    "missing": (False, True),
    "separator": (".", "/"),
    "shape": ((13,), (9, 14), (5, 8, 7)),
}
_CHUNKS = {1: (4,), 2: (4, 6), 3: (2, 4, 6)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """How one array is stored; the members are those of `CHOICES`."""

    zarr_format: int
    dtype: str
    compressor: str
    filter: str
    order: str
    big_endian: bool
    shards: str
    fill: str
    missing: bool
    separator: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return " ".join(f"{v}" for v in asdict(self).values()).replace(" ", "-")

    @property
    def is_possible(self) -> bool:
        """Whether zarr-python 3.1 writes such an array."""
        kind = np.dtype(self.dtype).kind
        if self.zarr_format == 2 and (self.shards != "none" or self.order == "other"):
            return False
        if self.order != "C" and len(self.shape) == 1:
            return False
        if self.big_endian and (self.dtype in ("bool", "int8", "uint8", "S4")):
            return False
        if self.compressor.startswith("shuffle") and np.dtype(self.dtype).itemsize < 2:
            return False  # chunks might have no whole words of 4 bytes
        if self.filter == "bitround" and self.zarr_format == 2 and self.big_endian:
            return False  # numcodecs takes native floats only
        return self.filter == "none" or kind in _FILTER_KINDS[self.filter]

    @property
    def twin(self) -> Case:
        """Case that must give the same values, and that zarr-python reads right.

        zarr-python 3.1.6 gives big-endian elements to numcodecs' filters, which take them for
        little-endian ones: it does not read back what it wrote there.
        """
        typed = self.filter in ("delta", "fixedscaleoffset", "quantize", "astype")
        return replace(self, big_endian=self.big_endian and not (typed and self.zarr_format == 3))


@functools.cache
def _pairs(case: Case) -> frozenset[tuple[tuple[str, Any], tuple[str, Any]]]:
    members = [(name, getattr(case, name)) for name in CHOICES]
    return frozenset(itertools.combinations(members, 2))


def _draws(rng: np.random.Generator, choices: dict[str, tuple[Any, ...]]) -> Iterator[Case]:
    while True:
        drawn = {name: some[rng.integers(len(some))] for name, some in choices.items()}
        case = Case(**drawn)
        if case.is_possible:
            yield case


_THEIRS = {"zstd", "gzip", "blosc", "crc32c", "zlib", "bz2"}
TENSORSTORE = {
    "filter": ("none",),
    "dtype": tuple(name for name in DTYPES if np.dtype(name).kind in "biufc"),
    "compressor": tuple(
        name for name, codecs in COMPRESSORS.items() if {c["id"] for c in codecs} <= _THEIRS
    ),
}  # fmt: skip
"""Choices that TensorStore has too, in one of the two formats at least."""


@functools.cache
def cases(*, tensorstore: bool = False) -> tuple[Case, ...]:
    """Cases in which every pair of choices that was ever drawn occurs; the same ones every time."""
    rng = np.random.default_rng(0)
    choices = CHOICES | TENSORSTORE if tensorstore else CHOICES
    pool = list(itertools.islice(_draws(rng, choices), 2000))
    left = set().union(*map(_pairs, pool))
    chosen = []
    while left:
        if not len(chosen) % 50:
            pool = [case for case in pool if _pairs(case) & left]
        some = [pool[i] for i in rng.integers(len(pool), size=30)]
        best = max(some, key=lambda case: len(_pairs(case) & left))
        if not _pairs(best) & left:
            pool = [case for case in pool if _pairs(case) & left]
            continue
        chosen.append(best)
        left -= _pairs(best)
    return tuple(chosen)


def data_of(case: Case) -> np.ndarray:
    """Values of the whole type; where a filter would lose some, only those that it keeps."""
    dtype = np.dtype(case.dtype)
    if case.filter in ("fixedscaleoffset", "astype"):
        return (np.arange(np.prod(case.shape)) % 100).astype(dtype).reshape(case.shape)
    data = values(case.shape, dtype, len(case.compressor))
    return np.nan_to_num(data, posinf=1, neginf=-1) if case.filter == "quantize" else data


def fill_of(case: Case) -> Any:
    """Fill value; the special one is what JSON has no number for, or a type's limit."""
    dtype = np.dtype(case.dtype)
    if case.fill == "zero":
        return np.zeros((), dtype)[()]
    if case.fill == "value":
        return values((20,), dtype, 3)[11]
    if dtype.kind in "iu":
        return np.iinfo(dtype).max
    if dtype.kind == "c":
        return dtype.type(complex(np.nan, -np.inf))
    if dtype.kind == "M":
        return np.datetime64("NaT", "s")
    return {"b": True, "f": dtype.type(-np.inf), "U": "ż\U0001f98b", "S": b"\xff\0z"}[dtype.kind]


def _filter(case: Case) -> dict[str, Any] | None:
    """Numcodecs' configuration."""
    dtype = np.dtype(case.dtype)
    stored = dtype.newbyteorder(">" if case.big_endian and case.zarr_format == 2 else "<").str
    wide = f"{stored[:-1]}{dtype.itemsize}" if dtype.kind != "b" else stored
    configurations = {
        "delta": {"dtype": stored},
        "fixedscaleoffset": {"offset": 1, "scale": 2, "dtype": stored, "astype": stored},
        "quantize": {"digits": 2, "dtype": stored},
        "bitround": {"keepbits": 5},
        "astype": {
            "encode_dtype": "<f8" if case.zarr_format == 2 else wide,
            "decode_dtype": stored,
        },
        "packbits": {},
    }
    if case.filter == "none":
        return None
    return {"id": case.filter, **configurations[case.filter]}


def _v3_codec(configuration: dict[str, Any]) -> Any:
    """zarr-python's codec for numcodecs' configuration: the registered one where there is one."""
    name, options = configuration["id"], {k: v for k, v in configuration.items() if k != "id"}
    if name in ("zstd", "gzip", "crc32c", "blosc"):
        if name == "blosc":
            options["shuffle"] = ("noshuffle", "shuffle", "bitshuffle")[options["shuffle"]]
        return get_codec_class(name)(**options)
    return get_codec_class(f"numcodecs.{name}")(**options)


def _v3_options(case: Case, chunks: tuple[int, ...]) -> dict[str, Any]:
    filters: list[Any] = []
    if case.order != "C":
        axes = tuple(range(len(chunks)))
        filters.append(
            TransposeCodec(order=axes[::-1] if case.order == "F" else (*axes[1:], axes[0]))
        )
    found = _filter(case)
    if found is not None:
        filters.append(_v3_codec(found))
    endian = "big" if case.big_endian else "little"
    serializer = BytesCodec(endian=endian)
    compressors = [_v3_codec(c) for c in COMPRESSORS[case.compressor]]
    options: dict[str, Any] = {
        "chunk_key_encoding": {"name": "default", "separator": case.separator},
    }
    if case.shards == "none":
        return options | {
            "chunks": chunks, "filters": filters, "serializer": serializer,
            "compressors": compressors,
        }  # fmt: skip
    inner = [*filters, serializer, *compressors]
    shard = tuple(2 * n for n in chunks)
    if case.shards == "nested":
        inner = [ShardingCodec(chunk_shape=tuple(n // 2 for n in chunks), codecs=inner)]
    where = "end" if case.shards == "nested" else case.shards
    return options | {
        "chunks": shard, "filters": [], "compressors": [],
        "serializer": ShardingCodec(chunk_shape=chunks, codecs=inner, index_location=where),
    }  # fmt: skip


def _v2_options(case: Case, chunks: tuple[int, ...]) -> dict[str, Any]:
    found = _filter(case)
    codecs = [numcodecs.get_codec(dict(c)) for c in COMPRESSORS[case.compressor]]
    filters = [] if found is None else [numcodecs.get_codec(found)]
    return {
        "chunks": chunks, "order": case.order, "filters": [*filters, *codecs[:-1]] or None,
        "compressors": codecs[-1] if codecs else None,
        "chunk_key_encoding": {"name": "v2", "separator": case.separator},
    }  # fmt: skip


@functools.cache
def stored(case: Case) -> dict[str, bytes]:
    """Objects that zarr-python wrote for a case."""
    chunks = _CHUNKS[len(case.shape)]
    dtype = np.dtype(case.dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that numcodecs and some types are no standard
        if case.zarr_format == 2:
            options = _v2_options(case, chunks)
            dtype = dtype.newbyteorder(">" if case.big_endian else "<")
        else:
            options = _v3_options(case, chunks)
        objects: dict[str, Any] = {}
        array = zarr.create_array(
            MemoryStore(objects), shape=case.shape, dtype=dtype, fill_value=fill_of(case),
            zarr_format=case.zarr_format, **options,
        )  # fmt: skip
        part = tuple(slice(n // 2) for n in case.shape) if case.missing else ...
        array[part] = data_of(case)[part]
    return {key: value.to_bytes() for key, value in objects.items()}


@functools.cache
def expected(case: Case) -> np.ndarray:
    """What zarr-python reads, in native byte order."""
    found = read_with_zarr(stored(case.twin))
    return np.asarray(found, found.dtype.newbyteorder("="))
