"""Arrays that read, to be damaged: the subjects of `fuzz`, in families."""

from __future__ import annotations

import functools
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

import zarrgpu as zg
from tests.conformance.fixtures import ARCHIVE, KINDS
from tests.zarr_cases import MemoryStore

Objects = dict[str, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """An array or group that reads, in the objects of a store."""

    name: str
    objects: Objects

    @property
    def documents(self) -> list[str]:
        """Keys of metadata."""
        return [k for k in self.objects if k.rpartition("/")[2].startswith((".z", "zarr.json"))]

    @property
    def chunks(self) -> list[str]:
        return [k for k in self.objects if k not in self.documents and self.objects[k]]


@functools.cache
def fixtures() -> dict[str, Subject]:
    """What zarr-python 3.4.2 wrote: every kind, and two trees with consolidated metadata."""
    found: dict[str, Objects] = {name: {} for name in (*KINDS, "tree2", "tree3")}
    with zipfile.ZipFile(ARCHIVE) as archive:
        for key in archive.namelist():
            name, _, rest = key.partition("/")
            if name in found and rest:
                found[name][rest] = archive.read(key)
    return {name: Subject(name=name, objects=objects) for name, objects in found.items()}


@functools.cache
def coded() -> dict[str, Subject]:
    """An array for each v2 filter and v3 codec that numcodecs has, and a NetCDF dataset."""
    from tests.test_array_codecs import V2_CASES, V3_CASES, v2_objects, v3_objects
    from tests.test_nczarr import netcdf_objects

    found = {f"filter {name}": v2_objects(name, "F") for name in V2_CASES}
    found |= {f"codec {name}": v3_objects(name, "big") for name in V3_CASES}
    found["nczarr"] = netcdf_objects("attributes")
    return {name: Subject(name=name, objects=objects) for name, objects in found.items()}


def objects() -> dict[str, Subject]:
    """Arrays of objects, by every codec that makes them."""
    from tests.test_object_codecs import CASES

    found = {}
    for name, (codec, items) in CASES.items():
        chunk = np.empty(len(items), object)
        for index, item in enumerate(items):
            chunk[index] = item
        document = {
            "zarr_format": 2, "shape": [2 * len(items)], "chunks": [len(items)], "dtype": "|O",
            "fill_value": None, "order": "C", "filters": [codec.get_config()], "compressor": None,
        }  # fmt: skip
        kept = {".zarray": json.dumps(document).encode(), "0": bytes(codec.encode(chunk))}
        found[name] = Subject(name=name, objects=kept)
    return found


def images() -> dict[str, Subject]:
    """An array of one chunk for each image codec, encoded by imagecodecs."""
    from tests.test_zarr_image_codecs import IDS, IMAGES, reference, sample

    found = {}
    for name, (codec, dtype, shape, options) in zip(IDS, IMAGES, strict=True):
        codec = codec.removeprefix(">")
        document = {
            "zarr_format": 2, "shape": shape, "chunks": shape, "dtype": np.dtype(dtype).str,
            "fill_value": 0, "order": "C", "filters": None, "dimension_separator": "/",
            "compressor": {"id": f"imagecodecs_{codec}", **options},
        }  # fmt: skip
        stream = bytes(reference(codec, options).encode(sample(dtype, shape)))
        key = "/".join("0" * len(shape))
        kept = {".zarray": json.dumps(document).encode(), key: stream}
        found[name] = Subject(name=name, objects=kept)
    return found


def streams() -> dict[str, Subject]:
    """An array for each compressor of imagecodecs that encodes bytes without being told more."""
    from tests.test_zarr_image_codecs import reference, sample
    from zarrgpu.codecs.imagecodecs_recipes import COMPRESSORS, SAME_STREAMS

    found = {}
    for name in sorted({*COMPRESSORS, *SAME_STREAMS}):
        document = {
            "zarr_format": 2, "shape": [24, 40], "chunks": [24, 40], "dtype": "|u1",
            "fill_value": 0, "order": "C", "filters": None,
            "compressor": {"id": f"imagecodecs_{name}"},
        }  # fmt: skip
        try:
            kept = {
                ".zarray": json.dumps(document).encode(),
                "0.0": bytes(reference(name, {}).encode(sample("u1").tobytes())),
            }
            zg.open(MemoryStore(kept)).read(device="cpu")
        except Exception:  # not in this build, or it wants a configuration
            continue
        found[name] = Subject(name=name, objects=kept)
    return found


FAMILIES: dict[str, Callable[[], dict[str, Subject]]] = {
    "fixtures": fixtures, "coded": coded, "objects": objects, "images": images,
    "streams": streams,
}  # fmt: skip
