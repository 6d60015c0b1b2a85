"""Arrays for the tests of our codec pipeline in zarr-python, and what all of them count."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import zarr
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, GzipCodec, TransposeCodec, ZstdCodec
from zarr.core.buffer import cpu
from zarr.core.config import config
from zarr.registry import register_pipeline
from zarr.storage import ZipStore

from zarrgpu.interop.zarr_python import Pipeline

PROTOTYPE = cpu.buffer_prototype
PATH = "zarrgpu.interop.zarr_python.Pipeline"
DEFAULT = "zarr.core.codec_pipeline.BatchedCodecPipeline"
SHAPE, CHUNKS, SHARDS = (13, 22, 3), (4, 5, 3), (8, 10, 3)


V3 = {
    "raw": {"compressors": None},
    "zstd": {"compressors": ZstdCodec(level=1)},
    "gzip": {"compressors": GzipCodec(level=1)},
    "blosc": {"compressors": BloscCodec(cname="lz4", shuffle="shuffle")},
    "crc32c": {"compressors": [ZstdCodec(level=1), Crc32cCodec()]},
    "big": {"serializer": BytesCodec(endian="big")},
    "transposed": {"filters": [TransposeCodec(order=(2, 0, 1))]},
}
"""Codecs of v3 arrays, as options of `zarr.create_array`."""


@contextmanager
def our_pipeline():
    """Our pipeline, with all counts at zero."""
    register_pipeline(Pipeline)
    Pipeline.stats.reset()
    with config.set({"codec_pipeline.path": PATH}):
        yield


def data(dtype="u2", shape=SHAPE):
    values = np.random.default_rng(3).integers(0, 100, shape)
    return values.astype(dtype)


def reopened(array):
    """The same array, with the pipeline that is configured now."""
    return zarr.open_array(array.store_path, mode="r+")


def create(store, values, **options):
    """Array of `values` written by zarr-python's own pipeline."""
    options = {"chunks": CHUNKS, "fill_value": 7, "overwrite": True, **options}
    if isinstance(store, ZipStore):
        options["overwrite"] = False
    with config.set({"codec_pipeline.path": DEFAULT}):
        array = zarr.create_array(store, shape=values.shape, dtype=values.dtype, **options)
        array[...] = values
    return reopened(array)


def nothing_delegated():
    counts = Pipeline.stats.as_dict()
    assert not counts["reads_delegated"], counts
    return counts
