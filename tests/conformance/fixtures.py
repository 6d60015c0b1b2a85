"""The arrays that zarr-python 3.4.2 wrote, in ``tests/data/zarr-3.4.2.zip``, and their values.

``scripts/make-zarr-fixtures`` writes the archive and says what lies where in it.
"""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

ARCHIVE = Path(__file__).parents[1] / "data" / "zarr-3.4.2.zip"

with zipfile.ZipFile(ARCHIVE) as _archive:
    _ABOUT = json.loads(_archive.read("kinds.json"))
    _EXPECTED = {name: _archive.read(f"expected/{name}.npy") for name in _ABOUT["kinds"]}

KINDS: tuple[str, ...] = tuple(_ABOUT["kinds"])
LISTED: tuple[str, ...] = KINDS[: _ABOUT["listed"]]
"""The 44 of shared/facts/zarr.md."""

_DEVICE_KINDS = "biufc"
"""Of the types that a CuPy array can have."""


def expected(name: str) -> np.ndarray:
    """Values in native byte order, as zarr-python 3.4.2 gave them."""
    about = _ABOUT["kinds"][name]
    kept = np.load(io.BytesIO(_EXPECTED[name]), allow_pickle=False)
    if about["kept"] == "strings":
        found = np.empty(kept.shape, np.dtypes.StringDType())
        found[...] = kept
    elif about["kept"] == "objects":
        found = np.empty(kept.shape, object)
        for index in np.ndindex(kept.shape):
            found[index] = bytes.fromhex(json.loads(str(kept[index])))
    else:
        found = kept.astype(kept.dtype.newbyteorder("="))
    assert list(found.shape) == about["shape"]
    return found


def can_be_on_a_gpu(name: str) -> bool:
    return expected(name).dtype.kind in _DEVICE_KINDS


def assert_same(got: Any, wanted: np.ndarray) -> None:
    """Same type, shape and bits, payloads of NaN and signs of zero included."""
    assert isinstance(got, np.ndarray)
    assert got.dtype == wanted.dtype
    assert got.shape == wanted.shape
    if not wanted.dtype.hasobject:
        assert got.dtype.isnative
        assert np.ascontiguousarray(got).tobytes() == np.ascontiguousarray(wanted).tobytes()
        return
    pairs = zip(got.ravel().tolist(), wanted.ravel().tolist(), strict=True)
    assert all(type(a) is type(b) and a == b for a, b in pairs)
