"""Law: docs/zarr-support.md says what the code's tables say, and an array of each name opens.

The page is written by ``python scripts/zarr-support``.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import zarrgpu as zg
from tests.zarr_cases import MemoryStore, Recipe, encode
from zarrgpu.codecs.device import DEVICE_DECODERS
from zarrgpu.codecs.imagecodecs_recipes import REFUSED
from zarrgpu.codecs.registry import CODECS
from zarrgpu.errors import MissingDependencyError, UnsupportedCodecError, UnsupportedFormatError
from zarrgpu.formats import data_types
from zarrgpu.formats.extended_types import EXTENDED_TYPES
from zarrgpu.gather_tables import check_device_dtype

_PATH = Path(__file__).parents[1] / "scripts" / "zarr-support"
_LOADER = SourceFileLoader("zarr_support", str(_PATH))
_SPEC = spec_from_loader("zarr_support", _LOADER)
assert _SPEC is not None
support = module_from_spec(_SPEC)
_LOADER.exec_module(support)

ROWS = {row[0]: row for row in support.codec_rows()}
LITTLE = {"name": "bytes", "configuration": {"endian": "little"}}
SHARDS = {"chunk_shape": [2, 2], "codecs": [LITTLE], "index_codecs": [LITTLE, {"name": "crc32c"}]}
N5 = [
    {"name": "transpose", "configuration": {"order": [1, 0]}},
    {"name": "bytes", "configuration": {"endian": "big"}},
]
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "astype": {"encode_dtype": "<i4", "decode_dtype": "<u2"},
    "bitround": {"keepbits": 5},
    "bytes": {"endian": "little"},
    "cast_value": {"data_type": "uint8"},
    "categorize": {"labels": ["a"], "dtype": "<U1", "astype": "|u1"},
    "delta": {"dtype": "<u2"},
    "fixedscaleoffset": {"dtype": "<f4", "astype": "<f4", "scale": 1, "offset": 0},
    "n5_default": {"codecs": N5},
    "quantize": {"dtype": "<f4", "digits": 2},
    "reshape": {"shape": [-1]},
    "sharding_indexed": SHARDS,
    "transpose": {"order": [1, 0]},
    "vlen-array": {"dtype": "<i4"},
}
DATA_TYPES = {
    "bitround": "float32", "packbits": "bool", "quantize": "float32", "fixedscaleoffset": "float32",
    "categorize": "U", "jpeg": "uint8", "webp": "uint8", "vlen-utf8": "string",
    "vlen-bytes": "bytes", "scale_offset": "float32",
}  # fmt: skip
FILLS = {"string": "", "bytes": "", "bool": False}
NEED_PACKAGES = {"jpeg", "jpeg2k", "jpegxl", "msgpack2", "pcodec", "png", "webp"}
OBJECTS = ("json2", "msgpack2", "vlen-array", "vlen-bytes", "vlen-utf8")


def opens(opened: Callable[..., Any], *arguments: Any) -> bool:
    """Whether an array opens; False if a package that the page names is not installed here."""
    try:
        assert isinstance(opened(*arguments), zg.Array)
    except MissingDependencyError:
        return False
    return True


def open_v3(name: str, configuration: dict[str, Any], data_type: str = "uint16") -> Any:
    """Open an array with a codec in the place where it belongs."""
    codec = {"name": name, "configuration": configuration}
    plain = {"string": [{"name": "vlen-utf8"}], "bytes": [{"name": "vlen-bytes"}]}
    before = plain.get(data_type, [LITTLE])
    if name in support.v3_bytes_names() - support.v3_array_names():
        codecs = [*before, codec]
    else:
        serialises = name in support.codec_chain._SERIALISER_RULES
        serialises |= name in ("bytes", "sharding_indexed")
        codecs = [codec] if serialises else [codec, LITTLE]
    document = {
        "zarr_format": 3, "node_type": "array", "shape": [4, 4], "data_type": data_type,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [4, 4]}},
        "chunk_key_encoding": "default", "fill_value": FILLS.get(data_type, 0), "codecs": codecs,
    }  # fmt: skip
    return zg.open(MemoryStore({"zarr.json": json.dumps(document).encode()}))


def open_v2(codec: dict[str, Any], dtype: str = "<u2") -> Any:
    name = codec["id"]
    first = name in (*OBJECTS, "categorize")
    document = {
        "zarr_format": 2, "shape": [4, 4], "chunks": [4, 4], "dtype": dtype, "fill_value": None,
        "order": "C", "filters": [codec] if first else None, "compressor": None if first else codec,
    }  # fmt: skip
    return zg.open(MemoryStore({".zarray": json.dumps(document).encode()}))


def test_the_page_says_what_the_tables_say():
    assert support.PAGE.read_text() == support.page(), "run: python scripts/zarr-support"
    shown = set(ROWS) | {"crc32c_start"}  # the same row
    only_tiff = {"lzw", "short_chunk", "tiff_bits", "tiff_fill_order", "tiff_packbits",
                 "tiff_predictor"}  # fmt: skip
    images = {name for name in DEVICE_DECODERS if name.startswith("imagecodecs_")}
    assert set(DEVICE_DECODERS) - only_tiff - images - {"zarr_jpeg"} <= shown
    assert not only_tiff & shown


@pytest.mark.parametrize("name", ROWS)
def test_every_codec_of_the_page_opens(name):
    data_type = DATA_TYPES.get(name, "uint16")
    configuration = CONFIGURATIONS.get(name, {})
    for spelling in (name, f"numcodecs.{name}"):
        if f"`{spelling}`" in ROWS[name][1].split(", "):
            fitting = {} if spelling == "numcodecs.packbits" else configuration
            assert opens(open_v3, spelling, fitting, data_type) or name in NEED_PACKAGES
    if ROWS[name][2] != "-":
        dtype = {"uint16": "<u2", "float32": "<f4", "bool": "|b1", "U": "<U1"}.get(data_type, "|u1")
        dtype = "|O" if name in OBJECTS else dtype
        assert opens(open_v2, {"id": name, **configuration}, dtype) or name in NEED_PACKAGES


def test_names_in_v3_are_no_wider_than_the_page():
    for name in {*ROWS, *(f"numcodecs.{name}" for name in ROWS)}:
        if not any(f"`{name}`" in row[1].split(", ") for row in ROWS.values()):
            with pytest.raises((UnsupportedCodecError, zg.MetadataError)):
                open_v3(name, CONFIGURATIONS.get(name, {}))


def test_every_name_of_imagecodecs_on_the_page_is_known():
    pytest.importorskip("imagecodecs")
    names = {*support.IMAGES, *support.FILTERS, *support.COMPRESSORS, *support.SAME_STREAMS}
    assert not names & set(REFUSED)
    for name in sorted({*names, "quantize", "checksum"}):
        with contextlib.suppress(UnsupportedCodecError, MissingDependencyError):
            open_v2({"id": f"imagecodecs_{name}"})  # some want more, or are not in this build
            continue
        assert CODECS[f"imagecodecs_{name}"]
    for name in REFUSED:
        with pytest.raises(UnsupportedCodecError, match=name):
            open_v2({"id": f"imagecodecs_{name}"})


@pytest.mark.parametrize(
    "name", ["pickle", "zfpy", "numcodecs.zfpy", "zfp", "conditional", "gdeflate", "omfiles.pfor"]
)
def test_what_the_page_says_is_refused_is_refused(name):
    assert name.partition(".")[0] in " ".join(support.REFUSED_NAMES)
    with pytest.raises(UnsupportedCodecError, match=name):
        open_v3(name, {})
    with pytest.raises(UnsupportedCodecError, match=name):
        open_v2({"id": name}, "|O" if name == "pickle" else "<u2")


def test_types_that_the_page_gives_to_a_gpu():
    for name, dtype in data_types._CORE_TYPES.items():
        if f"`{name}`" in support.type_rows()[0][0]:
            check_device_dtype(dtype, "a")
        else:
            with pytest.raises(zg.SelectionError, match="cannot lie on a GPU"):
                check_device_dtype(dtype, "a")


@pytest.mark.parametrize("name", [*data_types._CORE_TYPES, *EXTENDED_TYPES])
def test_every_type_of_the_page_opens(name):
    assert any(f"`{name}`" in row[0] for row in support.type_rows())
    fills = {"string": "", "variable_length_utf8": "", "bytes": "", "variable_length_bytes": ""}
    text = {"string": "vlen-utf8", "variable_length_utf8": "vlen-utf8"}
    codec = text.get(name, "vlen-bytes" if "bytes" in name else "bytes")
    fill: Any = [0, 0] if name.startswith("complex") else fills.get(name, 0)
    document = {
        "zarr_format": 3, "node_type": "array", "shape": [2], "data_type": name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [2]}},
        "chunk_key_encoding": "default", "fill_value": False if name == "bool" else fill,
        "codecs": [LITTLE if codec == "bytes" else {"name": codec}],
    }  # fmt: skip
    assert opens(read, document) or name in EXTENDED_TYPES


def read(document: dict[str, Any]) -> Any:
    array = zg.open(MemoryStore({"zarr.json": json.dumps(document).encode()}))
    assert array.read(device="cpu").shape == (2,)
    return array


def test_types_that_the_page_says_are_refused():
    document = json.loads(encode(np.zeros(2, "u1"), Recipe(chunks=(2,)))["zarr.json"])
    field = {"name": "a", "data_type": "string"}
    for data_type in (
        "r12", "complex_float8_e4m3", {"name": "struct", "configuration": {"fields": [field]}}
    ):  # fmt: skip
        document["data_type"] = data_type
        with pytest.raises((zg.MetadataError, UnsupportedFormatError), match="data_type"):
            zg.open(MemoryStore({"zarr.json": json.dumps(document).encode()}))
