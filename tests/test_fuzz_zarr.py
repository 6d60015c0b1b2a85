"""Law 5 for every kind of Zarr: a changed byte or member gives right data or a clear error.

Never another exception than zarrgpu's own, a crash, a hang, garbage where a checksum could tell,
or memory beyond the budget; and a device says what the host says. `conformance.fuzz` tells how the
subjects are changed; its campaigns, run by hand, are far longer than these tests.
"""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import zarrgpu as zg
from tests.conformance import fuzz
from tests.conformance.fixtures import ARCHIVE, KINDS
from tests.conformance.subjects import FAMILIES, Subject, fixtures
from tests.gpu.devices import is_emulated
from tests.test_bad_input import Bounded
from tests.test_codecs import GIB, rle_blocks, zstd_frame
from tests.zarr_cases import MemoryStore, Recipe, apply_codec, encode
from zarrgpu.codecs.registry import CODECS, OBJECT_CODECS
from zarrgpu.errors import ChunkDecodeError, ZarrGPUError

numbers = st.integers(0, 1 << 40)
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning",  # imagecodecs' htj2k prints what it meets
)


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    """Subjects of a family, and all their metadata."""
    if request.param in ("images", "streams"):
        pytest.importorskip("imagecodecs")
    subjects = FAMILIES[request.param]()
    return subjects, fuzz.documents_of(subjects)


@settings(max_examples=200)
@given(numbers)
def test_mutations_give_right_data_or_a_clear_error(family, number):
    subjects, donors = family
    drawn = fuzz.case(subjects, donors, 0, number)
    if drawn is not None:
        drawn[1]()


@settings(max_examples=60)
@given(number=numbers)
def test_a_device_says_what_the_host_says(family, cuda, number):
    subjects, donors = family
    if not is_emulated(cuda) or not {"v3_gzip", "nczarr"} & set(subjects):
        pytest.skip("objects and images are the host's; a GPU is for other tests")
    drawn = fuzz.case(subjects, donors, 1, number, fuzz.compare(cuda))
    if drawn is not None:
        drawn[1]()


def test_mutations_are_heard_at_all():
    """The harness finds what it should: most changes are noticed, some leave the data right."""
    subjects = fixtures()
    with Bounded(seconds=60):
        outcomes, wrong = fuzz.campaign(subjects, 400, 7)
    assert not wrong
    assert min(outcomes[name] for name in ("same", "other")) > 10
    assert min(outcomes[name] for name in ("ChunkDecodeError", "MetadataError")) > 50
    objects = subjects["v3_bytes_zstd"].objects
    unheeded = Subject(name="v3_crc32c", objects=objects)
    with pytest.raises(AssertionError, match="checksum"):
        fuzz.check(unheeded, objects | {"c/0/0": objects["c/0/1"]}, "c/0/0")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)  # fmt: skip
members = {
    "zarr.json": [
        "zarr_format", "node_type", "shape", "data_type", "chunk_grid", "chunk_key_encoding",
        "fill_value", "codecs", "attributes", "storage_transformers", "dimension_names",
    ],
    ".zarray": [
        "zarr_format", "shape", "chunks", "dtype", "fill_value", "order", "filters", "compressor",
        "dimension_separator",
    ],
}  # fmt: skip


@settings(max_examples=100)
@given(key=st.sampled_from(sorted(members)), data=st.data())
def test_any_json_is_a_node_or_a_clear_error(key, data):
    kind = "v3_bytes_zstd" if key == "zarr.json" else "v2_zlib"
    with zipfile.ZipFile(ARCHIVE) as archive:
        document = json.loads(archive.read(f"{kind}/{key}"))
    for name in data.draw(st.lists(st.sampled_from(members[key]), min_size=1, max_size=3)):
        document[name] = data.draw(json_values)
    try:
        fuzz.read_corner(zg.open(MemoryStore({key: json.dumps(document).encode()}, fuzz.URL)))
    except ZarrGPUError as error:
        fuzz.check_refusal(error, "")


@settings(max_examples=200)
@given(st.sampled_from(KINDS), st.binary(max_size=300))
@example("v3_shard_end", b"")
def test_any_bytes_are_a_chunk_or_a_clear_error(name, content):
    subject = fixtures()[name]
    if subject.chunks:
        key = subject.chunks[0]
        fuzz.check(subject, subject.objects | {key: content}, key)


WRONG_CONFIGURATIONS: list[dict[str, Any]] = [
    {}, {"dtype": 3}, {"dtype": "<u2", "encoded_dtype": "<u2", "shape": [2, 2], "options": {}},
]  # fmt: skip


@pytest.mark.parametrize("configuration", WRONG_CONFIGURATIONS)
@pytest.mark.parametrize("prefix", ["", "numcodecs."])
def test_no_name_of_a_codec_is_a_back_door(prefix, configuration):
    """Canonical names in any place, the internal ones too, with configurations of another codec."""
    outcomes = set()
    for name in (*CODECS, *OBJECT_CODECS, "bytes"):
        v3 = {"name": prefix + name, "configuration": configuration}
        v2 = {"id": prefix + name, **configuration}
        little = {"name": "bytes", "configuration": {"endian": "little"}}
        for kind, change in (
            ("v3_bytes_zstd", {"codecs": [little, v3]}),
            ("v3_bytes_zstd", {"codecs": [v3, little]}),
            ("v3_bytes_zstd", {"codecs": [v3]}),
            ("v2_zlib", {"compressor": v2}),
            ("v2_zlib", {"filters": [v2]}),
        ):
            subject = fixtures()[kind]
            key = subject.documents[0]
            document = json.loads(subject.objects[key]) | change
            outcomes.add(
                fuzz.check(subject, subject.objects | {key: json.dumps(document).encode()}, key)
            )
    assert outcomes >= {"MetadataError", "UnsupportedCodecError", "ChunkDecodeError"}


# ---- checksums -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(fuzz.CHECKSUMMED))
def test_every_bit_of_a_checksummed_chunk(name):
    """Each flipped bit of a chunk gives the right data, or an error that names the chunk."""
    subject = fixtures()[name]
    key = subject.chunks[0]
    good = subject.objects[key]
    errors = 0
    positions = [*range(min(len(good), 40)), *range(max(0, len(good) - 20), len(good))]
    for position in sorted(set(positions)):
        for bit in (0, 3, 7):
            bad = bytearray(good)
            bad[position] ^= 1 << bit
            outcome = fuzz.check(subject, subject.objects | {key: bytes(bad)}, key)
            assert outcome in ("same", "ChunkDecodeError")
            errors += outcome == "ChunkDecodeError"
    assert errors > len(positions)


# ---- bombs ---------------------------------------------------------------------------------------

MIB = 1 << 20
V2_BOMBS: dict[str, tuple[dict[str, Any], bytes]] = {
    "zstd": ({"id": "zstd"}, zstd_frame(rle_blocks(4 * GIB))),
    "gzip": ({"id": "gzip"}, gzip.compress(bytes(256 * MIB), 1)),
    "zlib": ({"id": "zlib"}, zlib.compress(bytes(256 * MIB), 1)),
    "bz2": ({"id": "bz2"}, bz2.compress(bytes(900_000)) * 300),
    "lzma": ({"id": "lzma"}, lzma.compress(bytes(128 * MIB), preset=0)),
    "lz4": ({"id": "lz4"}, (0x7FFFFFFF).to_bytes(4, "little") + b"\x1fx" + b"\xff" * 4000),
    "blosc": (
        {"id": "blosc"},
        b"\x02\x01\x01\x01" + (0x7FFFFFFF).to_bytes(4, "little") + b"\0\0\1\0"
        + (32).to_bytes(4, "little") + bytes(16),
    ),
    "gzip in gzip": ({"id": "gzip"}, gzip.compress(gzip.compress(bytes(256 * MIB), 1))),
    "vlen-utf8, count": ({"id": "zlib"}, zlib.compress(b"\xff\xff\xff\x7f" + bytes(100))),
    "vlen-utf8, length": (
        {"id": "zlib"}, zlib.compress((8).to_bytes(4, "little") + b"\xff\xff\xff\x7f" * 8)
    ),
}  # fmt: skip


def _image_bombs() -> dict[str, tuple[dict[str, Any], bytes]]:
    """Small streams of large images."""
    import imagecodecs

    white = np.full((9000, 9000), 255, np.uint8)
    # the marker SIZ says how large the image is; tiles that are not there need no bytes
    j2k = bytearray(imagecodecs.jpeg2k_encode(np.zeros((16, 16), "u1"), codecformat="j2k"))
    at = j2k.index(b"\xff\x51") + 6
    j2k[at : at + 8] = (1 << 30).to_bytes(4, "big") * 2
    webp = imagecodecs.webp_encode(np.zeros((8000, 8000, 3), np.uint8), lossless=True, level=0)
    return {
        "png": ({"id": "imagecodecs_png"}, bytes(imagecodecs.png_encode(white, 1))),
        "jpeg": ({"id": "imagecodecs_jpeg"}, bytes(imagecodecs.jpeg_encode(white, 50))),
        "jpeg2k": ({"id": "imagecodecs_jpeg2k"}, bytes(j2k)),
        "qoi": (
            {"id": "imagecodecs_qoi"},
            b"qoif" + (30000).to_bytes(4, "big") * 2 + b"\3\0" + bytes(7) + b"\1",
        ),
        "webp": ({"id": "imagecodecs_webp"}, bytes(webp)),
        "lerc": ({"id": "imagecodecs_lerc"}, bytes(imagecodecs.lerc_encode(white))),
    }


_CHILD = """
import json, resource, sys, time
from pathlib import Path
import zarrgpu as zg
import numpy as np

root = Path(sys.argv[1])
for folder in sorted(root.iterdir()):  # what libraries take for good data comes first
    if folder.name.startswith("good"):
        zg.open(folder).read(device="cpu")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for folder in sorted(root.iterdir()):
    if folder.name.startswith("good"):
        continue
    began = time.process_time()
    try:
        got = zg.open(folder).read(device="cpu")
        said = f"gave {got.shape}"
    except zg.ChunkDecodeError as error:
        said = "refused" if error.chunk == "0" or error.chunk.startswith("0/") else str(error)
    took = time.process_time() - began
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(json.dumps([folder.name, said, round(took, 3), grown]))
"""


def _bomb_document(name: str, compressor: dict[str, Any]) -> dict[str, Any]:
    image = compressor["id"].startswith("imagecodecs")
    shape = [16, 16, 3] if name in ("qoi", "webp") else [16, 16] if image else [64]
    strings = name.startswith("vlen")
    return {
        "zarr_format": 2, "shape": [8] if strings else shape, "chunks": [8] if strings else shape,
        "dtype": "|O" if strings else "|u1", "fill_value": None, "order": "C",
        "filters": [{"id": "vlen-utf8"}] if strings else None, "compressor": compressor,
        "dimension_separator": "/",
    }  # fmt: skip


def test_bombs_are_refused_before_they_take_memory(tmp_path):
    """A process of its own, whose peak memory tells."""
    bombs = V2_BOMBS | (_image_bombs() if _has("imagecodecs") else {})
    for name, (compressor, stream) in bombs.items():
        document = _bomb_document(name, compressor)
        folder = tmp_path / name
        chunk = folder.joinpath(*"0" * len(document["shape"]))
        chunk.parent.mkdir(parents=True)
        chunk.write_bytes(stream)
        (folder / ".zarray").write_text(json.dumps(document))
    for name in ("v2_zlib", "v2_bz2", "v2_lzma", "v2_lz4", "v2_blosc_lz4", "more_v2_gzip"):
        for key, value in fixtures()[name].objects.items():
            path = tmp_path / f"good {name}" / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(value)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _CHILD, str(tmp_path)],
        capture_output=True, text=True, timeout=120, cwd=Path(__file__).parents[1], check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert {name for name, *_ in results} == set(bombs)
    assert {said for _, said, *_ in results} == {"refused"}, results
    assert max(took for _, _, took, _ in results) < 3, results
    assert max(grown for *_, grown in results) < 64 << 10, results  # KiB; most is libraries


def _has(module: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(module) is not None


def test_a_bomb_in_a_shard_is_refused():
    data = np.zeros((8, 8), "u1")
    recipe = Recipe(
        chunks=(4, 4), shards=(8, 8), codecs=(("zstd", {"level": 1, "checksum": False}),)
    )
    objects = encode(data, recipe)
    bomb = zstd_frame(rle_blocks(GIB))
    index = np.array([[0, len(bomb)]] * 4, "<u8").tobytes()
    objects["c/0/0"] = bomb + apply_codec("crc32c", {}, index)
    with Bounded(), pytest.raises(ChunkDecodeError, match=r"c/0/0 inner chunk \(0, 0\)"):
        zg.open(MemoryStore(objects)).read(device="cpu")
