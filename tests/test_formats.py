"""Laws of the Zarr and OME-Zarr parsers.

1. A document that a specification allows gives what it says; zarr-python agrees.
2. A document that uses what zarrgpu does not read is refused by name.
3. Bad documents are the matter of `test_bad_input.py`, except what is particular to one member.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import zarr

from tests.zarr_cases import CHAINS, DTYPES, Recipe, encode, expected, values, write
from zarrgpu.errors import MetadataError, UnsupportedCodecError, UnsupportedFormatError
from zarrgpu.formats import ome, zarr_v2, zarr_v3
from zarrgpu.formats.document import Document
from zarrgpu.formats.group import GroupSpec
from zarrgpu.grids import KeyEncoding
from zarrgpu.model import CodecSpec, ObjectPerChunk, Sharded


def v3_document(**changes: Any) -> dict[str, Any]:
    recipe = Recipe(chunks=(4, 4), codecs=CHAINS["zstd"], fill_value=1)
    document = json.loads(encode(np.zeros((8, 6), "<u2"), recipe)["zarr.json"])
    return {k: v for k, v in (document | changes).items() if v is not ...}


def parse_v3(document: Any, path: str = "") -> Any:
    return zarr_v3.parse_node(Document.parse(json.dumps(document).encode(), "s://a"), path)


def parse_v2(document: Any, attributes: Any = None) -> Any:
    return zarr_v2.parse_array(
        Document.parse(json.dumps(document).encode(), "s://a"), attributes or {}, "p"
    )


@pytest.mark.filterwarnings("ignore:Numcodecs codecs")
@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("chain", ["none", "zstd", "blosc-lz4-shuffle", "zlib", "lz4", "gzip"])
def test_the_encoder_of_these_tests_is_right(zarr_format, chain, tmp_path):
    # what the other tests compare with, read by zarr-python
    for number, dtype in enumerate(DTYPES):
        order = (1, 0) if number % 3 else None
        sharded = zarr_format == 3 and number % 2
        recipe = Recipe(
            chunks=(4, 3),
            shards=(8, 6) if sharded else None,
            codecs=CHAINS[chain],
            order=order,
            big_endian=number % 4 == 1,
            fill_value=1,
            separator="./"[number % 2],
            zarr_format=zarr_format,
            index_location=("start", "end")[number % 5 > 1],
            index_checksum=number % 3 > 0,
            index_big_endian=number % 2 > 0,
            missing=frozenset([(0, 1), (2, 0)]),
        )
        data = values((9, 7), dtype, number)
        array = zarr.open_array(write(tmp_path / dtype, encode(data, recipe)), mode="r")
        np.testing.assert_array_equal(array[...], expected(data, recipe))


def test_v3_array():
    spec = parse_v3(v3_document(attributes={"a": 1}, dimension_names=["y", None]), "x/y")
    assert (spec.shape, spec.chunk_shape, spec.dtype) == ((8, 6), (4, 4), np.dtype("<u2"))
    assert spec.location == ObjectPerChunk(KeyEncoding("default", "/", "x/y"))
    assert spec.codecs == (CodecSpec("zstd", {"level": 1, "checksum": False}),)
    assert (spec.dimension_names, spec.attributes) == (("y", None), {"a": 1})
    assert (spec.fill_value, spec.fill_value.dtype) == (1, np.dtype("u2"))
    assert (spec.grid_shape, spec.chunk_nbytes, spec.shard_shape) == ((2, 2), 32, None)
    assert spec.source == "s://a"


def test_v3_shards():
    recipe = Recipe(
        chunks=(2, 3), shards=(4, 6), order=(1, 0), big_endian=True, index_location="start"
    )
    spec = parse_v3(json.loads(encode(np.zeros((8, 6), "i4"), recipe)["zarr.json"]))
    assert isinstance(spec.location, Sharded)
    assert (spec.shard_shape, spec.chunk_shape, spec.axis_order) == ((4, 6), (2, 3), (1, 0))
    assert (spec.location.index_nbytes, spec.location.index_location) == (4 * 16 + 4, "start")
    assert (spec.location.index_codecs, spec.location.index_endian) == (
        (CodecSpec("crc32c"),),
        "little",
    )
    assert spec.dtype == np.dtype(">i4")


def test_v3_group_with_consolidated_metadata():
    group = parse_v3(
        {
            "zarr_format": 3,
            "node_type": "group",
            "attributes": {"k": 2},
            "consolidated_metadata": {
                "kind": "inline",
                "must_understand": False,
                "metadata": {"a": {}},
            },
        }
    )
    assert isinstance(group, GroupSpec)
    assert (group.attributes, group.consolidated) == ({"k": 2}, {"a": {}})
    assert parse_v3({"zarr_format": 3, "node_type": "group"}).consolidated is None


def test_v3_short_hands_and_ignorable_members():
    document = v3_document(
        chunk_key_encoding="v2",
        codecs=[{"name": "bytes", "configuration": {"endian": "little"}}, "crc32c"],
        unknown={"must_understand": False, "name": "anything"},
        storage_transformers=[],
    )
    spec = parse_v3(document)
    assert spec.location.key_encoding == KeyEncoding("v2", ".", "")
    assert [codec.name for codec in spec.codecs] == ["crc32c"]


def codecs(*items: Any) -> dict[str, Any]:
    return {"codecs": [{"name": item} if isinstance(item, str) else item for item in items]}


LITTLE = {"name": "bytes", "configuration": {"endian": "little"}}


def sharding(**changes: Any) -> dict[str, Any]:
    configuration = {"chunk_shape": [2, 2], "codecs": [LITTLE], "index_codecs": [LITTLE, "crc32c"]}
    return {"name": "sharding_indexed", "configuration": configuration | changes}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"unknown": 1}, MetadataError, "unknown.*not a member"),
        ({"unknown": {"must_understand": True}}, MetadataError, "not a member"),
        ({"unknown": {"name": "x"}}, MetadataError, "not a member"),
        ({"data_type": "decimal"}, UnsupportedFormatError, "'decimal' is not read"),
        ({"data_type": "r12"}, MetadataError, "whole bytes"),
        ({"chunk_grid": {"name": "rectilinear"}}, MetadataError, "kind.*is missing"),
        ({"chunk_grid": {"name": "hexagonal"}}, UnsupportedFormatError, "'hexagonal' is not read"),
        ({"chunk_key_encoding": "fancy"}, UnsupportedFormatError, "fancy"),
        ({"storage_transformers": [{"name": "x"}]}, UnsupportedFormatError, "storage transformers"),
        ({"fill_value": None}, MetadataError, "fill_value.*null"),
        ({"fill_value": 65536}, MetadataError, "fill_value"),
        ({"fill_value": -1}, MetadataError, "fill_value"),
        ({"fill_value": 1.5}, MetadataError, "fill_value"),
        ({"fill_value": True}, MetadataError, "fill_value"),
        ({"dimension_names": ["y"]}, MetadataError, "1 names for 2 axes"),
        (
            {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [4]}}},
            MetadataError,
            "expected 2",
        ),
        (
            {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [0, 4]}}},
            MetadataError,
            "chunk_shape",
        ),
        (
            {
                "chunk_grid": {
                    "name": "regular",
                    "configuration": {"chunk_shape": [1 << 40, 1 << 40]},
                }
            },
            MetadataError,
            "bytes",
        ),
        ({"shape": [1 << 40, 1 << 40]}, MetadataError, "2\\*\\*62 chunks"),
        ({"shape": [1 << 62, 1]}, MetadataError, "shape"),
        ({"shape": [1] * 40}, MetadataError, "40 dimensions"),
        (codecs("zstd"), UnsupportedCodecError, "'zstd' is no array codec"),
        (codecs("vlen-utf8"), MetadataError, "vlen-utf8 encodes strings"),
        (codecs("bytes"), MetadataError, "codecs.0.configuration.endian.*is missing"),
        (
            codecs({"name": "transpose", "configuration": {"order": [1, 0]}}),
            MetadataError,
            "array-to-bytes",
        ),
        (
            codecs({"name": "transpose", "configuration": {"order": [0, 0]}}, LITTLE),
            MetadataError,
            "permutation",
        ),
        (
            codecs({"name": "numcodecs.delta", "configuration": {"dtype": "<u2"}}, sharding()),
            UnsupportedCodecError,
            "delta around or in a shard that is decoded whole",
        ),
        (
            codecs(sharding(codecs=[sharding(chunk_shape=[4, 4])])),
            MetadataError,
            "codecs.0.configuration.codecs.0.*does not divide the shard, axis 0: 2",
        ),
        (codecs(sharding(chunk_shape=[3, 2])), MetadataError, "does not divide"),
        (codecs(sharding(chunk_shape=[0, 2])), MetadataError, "chunk_shape"),
        (codecs(sharding(index_location="middle")), MetadataError, "start, end"),
        (codecs(sharding(index_codecs=["bytes"])), MetadataError, "index_codecs.0.*endian"),
        (codecs(sharding(index_codecs=[LITTLE, "zstd"])), UnsupportedCodecError, "only crc32c"),
        (codecs(sharding(index_codecs=[sharding()])), UnsupportedCodecError, "index_codecs"),
        (
            codecs(
                sharding(
                    index_codecs=[
                        {"name": "transpose", "configuration": {"order": [2, 1, 0]}},
                        LITTLE,
                    ]
                )
            ),
            UnsupportedCodecError,
            "index_codecs",
        ),
    ],
)
def test_v3_refusals(changes, error, message):
    with pytest.raises(error, match=message) as caught:
        parse_v3(v3_document(**changes))
    assert "s://a" in str(caught.value)


def test_v2_array():
    document = {
        "zarr_format": 2,
        "shape": [5, 4],
        "chunks": [2, 3],
        "dtype": ">f4",
        "fill_value": "NaN",
        "order": "F",
        "filters": [{"id": "zlib", "level": 1}],
        "compressor": {"id": "blosc", "cname": "lz4"},
    }
    spec = parse_v2(document, {"_ARRAY_DIMENSIONS": ["y", "x"], "k": 1})
    assert (spec.shape, spec.chunk_shape, spec.dtype) == ((5, 4), (2, 3), np.dtype(">f4"))
    assert spec.axis_order == (1, 0)
    assert np.isnan(spec.fill_value)
    assert spec.codecs == (CodecSpec("zlib", {"level": 1}), CodecSpec("blosc", {"cname": "lz4"}))
    assert spec.location == ObjectPerChunk(KeyEncoding("v2", ".", "p"))
    assert spec.dimension_names == ("y", "x")
    slashes = parse_v2(document | {"dimension_separator": "/", "order": "C"})
    assert slashes.location == ObjectPerChunk(KeyEncoding("v2", "/", "p"))
    assert (slashes.axis_order, slashes.dimension_names) == ((0, 1), (None, None))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"dtype": "|O"}, MetadataError, "at filters: '.O' needs one of vlen-utf8"),
        ({"dtype": [["a"]]}, MetadataError, "at dtype.0: expected .name, type"),
        ({"dtype": "<i3"}, MetadataError, "not a NumPy type"),
        ({"dtype": "|S0"}, MetadataError, "elements of 0 bytes"),
        ({"dtype": "|V0"}, MetadataError, "elements of 0 bytes"),
        ({"dtype": "<M8[fortnight]"}, MetadataError, "not a NumPy type"),
        ({"dtype": "<U2000000000"}, MetadataError, "NumPy type|bytes"),
        ({"dtype": "i4"}, MetadataError, "expected a NumPy type string"),
        ({"dtype": "object"}, MetadataError, "expected a NumPy type string"),
        ({"order": "K"}, MetadataError, "expected one of C, F"),
        ({"filters": 0}, MetadataError, "filters"),
        ({"filters": [{}]}, MetadataError, "filters.0.id.*is missing"),
        ({"compressor": {"id": 7}}, MetadataError, "compressor.id"),
        ({"compressor": "zstd"}, MetadataError, "compressor"),
        ({"zarr_format": 3}, MetadataError, "expected 2, got 3"),
        ({"chunks": [1, 1], "shape": [1 << 40, 1 << 40]}, MetadataError, "chunks"),
        ({"chunks": [1 << 30, 1 << 30]}, MetadataError, "bytes"),
    ],
)
def test_v2_refusals(changes, error, message):
    document = {
        "zarr_format": 2,
        "shape": [5, 4],
        "chunks": [2, 3],
        "dtype": "<f4",
        "fill_value": 0,
        "order": "C",
        "filters": None,
        "compressor": None,
    }
    with pytest.raises(error, match=message):
        parse_v2(document | changes)


@pytest.mark.parametrize(
    ("data_type", "value", "wanted"),
    [
        ("float32", "NaN", np.float32(np.nan)),
        ("float64", "-Infinity", -np.inf),
        ("float32", "0x7fc00001", None),
        ("float16", 1e10, np.float16(np.inf)),
        ("float32", 1, np.float32(1)),
        ("bool", True, np.True_),
        ("complex64", ["NaN", -1], np.complex64(complex(np.nan, -1))),
        ("uint8", 255.0, np.uint8(255)),
        ("int64", -(1 << 63), np.int64(-(1 << 63))),
        ("r24", [1, 2, 255], np.void(b"\1\2\xff")),
    ],
)
def test_fill_values(data_type, value, wanted):
    spec = parse_v3(v3_document(data_type=data_type, fill_value=value))
    if wanted is None:  # NaN with a payload, bit for bit
        assert spec.fill_value.tobytes() == np.uint32(0x7FC00001).tobytes()
    else:
        assert spec.fill_scalar.tobytes() == np.asarray(wanted).tobytes()


@pytest.mark.parametrize(
    ("data_type", "value"),
    [
        ("float32", "nan"),
        ("float32", "0x7fc0"),
        ("float32", "1.5"),
        ("float32", [1]),
        ("float32", {}),
        ("float32", True),
        ("bool", 2),
        ("bool", "true"),
        ("bool", [True]),
        ("complex64", [1]),
        ("complex64", ["x", 1]),
        ("complex64", {"real": 1}),
        ("uint8", 256),
        ("int8", -129),
        ("int8", "1"),
        ("uint8", float("inf")),
        ("uint8", float("nan")),
        ("float64", 10**400),
        ("r16", [1, 2, 3]),
        ("r16", [256]),
        ("r16", [-1]),
        ("r16", ["a"]),
        ("r16", 7),
    ],
)
def test_fill_values_of_another_type_are_refused(data_type, value):
    with pytest.raises(MetadataError, match="fill_value"):
        parse_v3(v3_document(data_type=data_type, fill_value=value))


# ---- OME-Zarr ------------------------------------------------------------------------------------


def image(**changes: Any) -> dict[str, Any]:
    axes = [{"name": n, "type": "space", "unit": "nanometer"} for n in "zyx"]
    steps = [
        {"type": "scale", "scale": [4, 500, 250]},
        {"type": "translation", "translation": [1, 2, 3]},
    ]
    datasets = [{"path": str(i), "coordinateTransformations": steps} for i in range(3)]
    return {"name": "cells", "version": "0.4", "axes": axes, "datasets": datasets} | changes


def test_multiscale_image():
    for attributes in (
        {"multiscales": [image()], "omero": {"channels": [{"label": "a"}, 7]}},
        {
            "ome": {
                "version": "0.5",
                "multiscales": [image()],
                "omero": {"channels": [{"label": "a"}]},
            }
        },
    ):
        found = ome.parse_multiscale(attributes, "s")
        assert ome.is_multiscale(attributes)
        assert (found.name, found.axes, found.paths) == ("cells", ("z", "y", "x"), ("0", "1", "2"))
        assert found.mpp == (0.25, 0.5)
        assert found.channels[0] == {"label": "a"}
        assert not any(found.channels[1:])  # what is no channel keeps its place
    doubled = image(coordinateTransformations=[{"type": "scale", "scale": [1, 2, 2]}])
    assert ome.parse_multiscale({"multiscales": [doubled]}, "s").mpp == (0.5, 1.0)
    old = {"multiscales": [{"datasets": [{"path": "a/b"}]}]}  # 0.1: five axes, no units
    assert ome.parse_multiscale(old, "s").axes == ("t", "c", "z", "y", "x")
    assert ome.parse_multiscale(old, "s").mpp == (None, None)
    assert not ome.is_multiscale({"ome": {}})


@pytest.mark.parametrize(
    ("attributes", "error"),
    [
        ({"multiscales": []}, MetadataError),
        ({"multiscales": 3}, MetadataError),
        ({"multiscales": [3]}, MetadataError),
        ({"multiscales": [image(axes=[])]}, MetadataError),
        ({"multiscales": [image(axes=3)]}, MetadataError),
        (
            {"multiscales": [image(axes=[{"name": "y"}, {"name": "y"}, {"name": "x"}])]},
            MetadataError,
        ),
        ({"multiscales": [image(axes=[{"type": "space"}])]}, MetadataError),
        ({"multiscales": [image(datasets=[])]}, MetadataError),
        ({"multiscales": [image(datasets=[{}])]}, MetadataError),
        ({"multiscales": [image(datasets=[{"path": 0}])]}, MetadataError),
        ({"multiscales": [image(version="0.6")]}, UnsupportedFormatError),
        ({"multiscales": [image(version="1.0")]}, UnsupportedFormatError),
        *[
            (
                {
                    "multiscales": [
                        image(coordinateTransformations=[{"type": "scale", "scale": scale}])
                    ]
                },
                MetadataError,
            )
            for scale in (
                None,
                3,
                [1, 2],
                [1, 2, "3"],
                [1, 2, None],
                [1, 2, -3],
                [1, 2, 0],
                [1, 2, [3]],
                [1, 2, float("nan")],
                [1, 2, float("inf")],
                [1, 2, 10**400],
                [True, 1, 1],
            )
        ],
    ],
)
def test_bad_multiscale_images(attributes, error):
    with pytest.raises(error) as caught:
        ome.parse_multiscale(attributes, "s://a")
    assert "s://a" in str(caught.value)


def test_odd_members_of_multiscale_images_are_ignored():
    for steps in (None, 3, "x", {}, [3], [{"type": 3}], [{}]):
        found = ome.parse_multiscale(
            {"multiscales": [image(datasets=[{"path": "0", "coordinateTransformations": steps}])]},
            "s",
        )
        assert found.mpp == (None, None)
    for omero in (None, 3, [], {"channels": None}, {"channels": 3}, {"channels": {"a": 1}}):
        assert ome.parse_multiscale({"multiscales": [image()], "omero": omero}, "s").channels == ()


TOLERATED = {  # of the conformance suites: what does not change which pixels are read
    "invalid_transformation_type",
    "missing_scale",
    "too_many_axes",
    "invalid_channels_color",
    "invalid_multiscales_transformations",
    "missing_transformations",
    "invalid_version",
    "invalid_axis_type",
    "duplicate_scale",
    "too_many_space_axes",
    "invalid_channels_window",
    "empty_transformations",
    "missing_axes",
}


# valid by the JSON schema, but its scale has two numbers for three axes, which the text forbids
WRONG_SCALE = "mismatch_axes_units"


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_conformance_suites(version, shared_data):
    suite = json.loads((shared_data / "ngff" / version / "image_suite.json").read_text())
    tolerated = set()
    for case in suite["tests"]:
        name = case["formerly"].rpartition("/")[2].removesuffix(".json")
        try:
            ome.parse_multiscale(case["data"], name)
        except (MetadataError, UnsupportedFormatError):
            assert not case["valid"] or name == WRONG_SCALE, name
        else:
            if not case["valid"]:
                tolerated.add(name)
    assert len(suite["tests"]) >= 28
    assert tolerated <= TOLERATED
