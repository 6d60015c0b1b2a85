"""Write `zarr342.json`: chunks of codecs that only zarr-python 3.4.2 has, and how it decodes them.

Not a test. Run it where zarr 3.4.2 and cast-value-rs 0.4.2 are installed:
``python tests/oracles/write_zarr342.py > tests/oracles/zarr342.json``.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import itertools
import json
import sys
import warnings
from typing import Any

import numpy as np
import zarr
from cast_value_rs import cast_array
from zarr.storage import MemoryStore

ROUNDINGS = (
    "nearest-even", "towards-zero", "towards-positive", "towards-negative", "nearest-away",
)  # fmt: skip
TYPES = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64",
         "float16", "float32", "float64")  # fmt: skip


def samples(name: str) -> np.ndarray:
    """Values at and around every limit of every type."""
    dtype = np.dtype(name)
    edges = [sign * ((1 << k) + d) for k in (0, 3, 7, 8, 11, 15, 16, 24, 31, 32, 53, 63, 64)
             for d in (-1, 0, 1) for sign in (1, -1)]  # fmt: skip
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        return np.array([0, *(e for e in edges if info.min <= e <= info.max)], dtype)
    halves = [
        0.5,
        1.5,
        2.5,
        0.1,
        1e-9,
        1e-40,
        2049,
        2051,
        65504,
        65519,
        65520,
        65535,
        65536,
        2.0**128,
        3.4028235677973366e38,
        1e300,
        0.49999999999999994,
        127.5,
        255.5,
        np.inf,
    ]
    numbers = [*map(float, edges), *halves, *(-h for h in halves), 0.0, -0.0, np.nan]
    with np.errstate(all="ignore"):
        return np.unique(np.array(numbers, np.float64).astype(dtype))


def text(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def casts() -> list[list[str]]:
    """Digests of what each pair of types casts to, over all roundings: see `test_cast_value`.

    Infinity clamps to an integer's limits by the specification, and is an error here: left out.
    """
    rows = []
    for source, target in itertools.permutations(TYPES, 2):
        for beyond in (
            ("error", "clamp") if target.startswith("float") else ("error", "clamp", "wrap")
        ):
            digest = hashlib.sha256()
            values = samples(source)
            if beyond == "clamp" and "int" in target:
                values = values[~np.isinf(values)]
            for rounding, value in itertools.product(ROUNDINGS, values):
                try:
                    result = cast_array(
                        np.array([value]), target_dtype=np.dtype(target), rounding_mode=rounding,
                        out_of_range_mode=None if beyond == "error" else beyond,
                    )  # fmt: skip
                    digest.update(result.tobytes())
                except ValueError:
                    digest.update(b"error")
            rows.append([source, target, beyond, digest.hexdigest()[:16]])
    return rows


def arrays() -> list[dict[str, Any]]:
    """Whole arrays with both codecs in their chain."""

    def scale(**options: Any) -> dict[str, Any]:
        return {"name": "scale_offset", "configuration": options}

    def cast(**options: Any) -> dict[str, Any]:
        return {"name": "cast_value", "configuration": options}

    ramp = np.arange(24).reshape(4, 6)
    gaps = ramp.astype("f4")
    gaps[1, 2:4] = np.nan, np.inf
    nan_map = {"encode": [["NaN", 255]], "decode": [[255, "NaN"]]}
    cases: list[tuple[np.ndarray, list[dict[str, Any]]]] = [
        (ramp.astype("f4"), [scale(offset=5, scale=0.1)]),
        (ramp.astype("f8"), [scale(offset=-2.5, scale=8), cast(data_type="int16")]),
        (ramp.astype("f2"), [scale(scale=0.5)]),
        (ramp.astype("i4"), [scale(offset=5, scale=3)]),
        (ramp.astype("i1"), [scale(offset=-5, scale=-4)]),
        (ramp.astype("u8") + 2**63, [scale(offset=2**63, scale=2)]),
        (ramp.astype("u2"), [scale(offset=0, scale=1)]),
        (ramp.astype("i8") - 9, [cast(data_type="int8", out_of_range="wrap")]),
        (ramp.astype("u1") * 10, [cast(data_type="float16", rounding="towards-zero")]),
        (ramp.astype("f4") * 20, [cast(data_type="uint8", out_of_range="clamp")]),
        (np.where(np.isinf(gaps), 3, gaps), [cast(data_type="uint8", scalar_map=nan_map)]),
        (ramp.astype("f8") / 4, [
            {"name": "transpose", "configuration": {"order": [1, 0]}}, scale(offset=-1, scale=4),
            cast(data_type="uint16"), {"name": "transpose", "configuration": {"order": [1, 0]}},
        ]),
    ]  # fmt: skip
    rows = []
    for data, filters in cases:
        for endian in ("little", "big"):
            objects: dict[str, Any] = {}
            array = zarr.create_array(
                MemoryStore(objects), shape=data.shape, dtype=data.dtype,
                fill_value=data.flat[0], chunks=(3, 4), filters=filters, compressors=None,
                serializer={"name": "bytes", "configuration": {"endian": endian}},
            )  # fmt: skip
            array[...] = data
            rows.append({
                "objects": {k: base64.b64encode(v.to_bytes()).decode() for k, v in objects.items()},
                "dtype": data.dtype.str, "read": text(array[...]),
            })  # fmt: skip
    return rows


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    versions = {n: importlib.metadata.version(n) for n in ("zarr", "cast-value-rs", "numpy")}
    document = {
        "versions": versions,
        "samples": {name: text(samples(name)) for name in TYPES},
        "casts": casts(),
        "arrays": arrays(),
    }
    sys.stdout.write(json.dumps(document, separators=(",", ":")) + "\n")
