"""Arrays written by zarr-python, and read back through parsed metadata and `CodecChain` alone."""

from __future__ import annotations

import itertools
import json
import math
import warnings
from typing import Any

import numpy as np
import zarr
from zarr.storage import MemoryStore

from zarrgpu.codecs.base import CodecChain
from zarrgpu.codecs.registry import build_chain
from zarrgpu.codecs.run import decode_chunk
from zarrgpu.formats import zarr_v2, zarr_v3
from zarrgpu.formats.document import Document
from zarrgpu.model import ArraySpec, ByteArray, ObjectPerChunk

Objects = dict[str, bytes]


def write(data: np.ndarray, chunks: tuple[int, ...], **options: Any) -> Objects:
    """Objects of an array that zarr-python wrote."""
    store: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that numcodecs and object types are no standard
        options = {"compressors": None, **options}
        array = zarr.create_array(
            MemoryStore(store), shape=data.shape, dtype=data.dtype, chunks=chunks, **options
        )
        array[...] = data
    return {key: value.to_bytes() for key, value in store.items()}


def read_with_zarr(objects: Objects) -> Any:
    """The whole array as zarr-python reads it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        buffer = zarr.core.buffer.default_buffer_prototype().buffer
        store = {key: buffer.from_bytes(value) for key, value in objects.items()}
        return zarr.open_array(MemoryStore(store), mode="r")[...]


def parse(objects: Objects) -> ArraySpec:
    """What the metadata says."""
    if ".zarray" in objects:
        return zarr_v2.parse_array(Document("m://a", json.loads(objects[".zarray"])), {}, "")
    spec = zarr_v3.parse_node(Document("m://a", json.loads(objects["zarr.json"])), "")
    assert isinstance(spec, ArraySpec)
    return spec


def chain_of(spec: ArraySpec) -> CodecChain:
    return build_chain(spec.codecs, spec.decoded_limit_nbytes, source=spec.source)


def decode(spec: ArraySpec, chain: CodecChain, encoded: ByteArray) -> np.ndarray:
    """One chunk as elements, axes in array order."""
    count = math.prod(spec.chunk_shape)
    if chain.object_codec is not None:
        data = decode_chunk(chain, encoded, None)
        elements = chain.object_codec.decode_objects(data, count, spec.dtype)
    else:
        out = np.empty(chain.decoded_nbytes, np.uint8)
        elements = decode_chunk(chain, encoded, out).view(spec.dtype)
    assert elements.shape == (count,)
    stored = elements.reshape([spec.chunk_shape[axis] for axis in spec.axis_order])
    return stored.transpose(np.argsort(spec.axis_order))


def read(objects: Objects) -> np.ndarray:
    """The whole array, chunk by chunk; all chunks must be there."""
    spec = parse(objects)
    chain = chain_of(spec)
    assert isinstance(spec.location, ObjectPerChunk)
    out = np.empty(spec.shape, spec.dtype)
    for coords in itertools.product(*map(range, spec.grid_shape)):
        key = spec.location.key_encoding.key(coords)
        chunk = decode(spec, chain, np.frombuffer(objects[key], np.uint8))
        box = tuple(
            slice(i * c, min((i + 1) * c, n))
            for i, c, n in zip(coords, spec.chunk_shape, spec.shape, strict=True)
        )
        out[box] = chunk[tuple(slice(0, s.stop - s.start) for s in box)]
    return out


def chunk_keys(objects: Objects) -> list[str]:
    return [k for k in objects if not k.endswith(("zarr.json", ".zarray", ".zattrs", ".zgroup"))]


def assert_same(got: np.ndarray, expected: Any) -> None:
    """Equal values of equal types, NaN and negative zero included; byte order aside."""
    expected = np.asarray(expected)
    got = got if got.dtype.hasobject else got.astype(got.dtype.newbyteorder("="))
    if not expected.dtype.hasobject:
        expected = expected.astype(expected.dtype.newbyteorder("="))
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    if got.dtype.hasobject:
        assert all(map(_same_objects, got.ravel().tolist(), expected.ravel().tolist()))
    else:
        assert np.ascontiguousarray(got).tobytes() == np.ascontiguousarray(expected).tobytes()


def _same_objects(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and np.array_equal(a, b)
    return type(a) is type(b) and a == b
