"""Laws of ``openslide.quickhash-1``.

1. It is OpenSlide's own for the same file, for every vendor that both read (here Aperio; the tests
   of the other vendors compare all properties).
2. It is read when it is asked for, once, in few requests; opening and listing names read no image.
3. A smallest level of more than 5 MiB has none, as in OpenSlide; a file that is cut off is a typed
   error.
"""

from __future__ import annotations

import hashlib
import pickle
from dataclasses import replace

import numpy as np
import pytest
import tifffile

import zarrgpu as zg
from tests.slide_editor import Editor
from tests.synthetic_slides import SlideRecipe, make_svs, tissue
from tests.zarr_cases import MemoryStore
from zarrgpu.errors import StoreError
from zarrgpu.formats.quickhash import quickhash_of
from zarrgpu.formats.tiff_ifd import read_ifds
from zarrgpu.model import ByteRange
from zarrgpu.quickhash import QUICKHASH, SlideProperties, read_quickhash
from zarrgpu.slide_model import Quickhash

openslide = pytest.importorskip("openslide")

RECIPE = SlideRecipe(kind="jpeg-rgb", height=200, width=150, tile=64, n_levels=2)


class CountingStore(MemoryStore):
    def __init__(self, objects):
        super().__init__(objects)
        self.ranges: list[ByteRange] = []

    def get_range(self, key, byte_range, *args, **kwargs):
        self.ranges.append(byte_range)
        return super().get_range(key, byte_range, *args, **kwargs)


@pytest.mark.parametrize(
    "recipe",
    [
        RECIPE,
        replace(RECIPE, kind="j2k-ycbcr", n_levels=3),
        replace(RECIPE, kind="none", n_levels=1),
    ],
    ids=["jpeg", "three levels", "one level"],
)
def test_it_is_that_of_openslide(recipe, tmp_path):
    path = tmp_path / "slide.svs"
    path.write_bytes(make_svs(recipe))
    slide = zg.open_slide(path)
    with openslide.OpenSlide(path) as peer:
        assert slide.properties[QUICKHASH] == peer.properties[QUICKHASH]
        assert dict(slide.properties) == dict(peer.properties)
    copy = pickle.loads(pickle.dumps(slide))
    assert copy.properties[QUICKHASH] == slide.properties[QUICKHASH]


def test_text_of_another_encoding_is_hashed_as_it_is_stored(tmp_path):
    path = tmp_path / "slide.svs"
    text = b"Aperio x|Name = M\xfcller|Unit = \xb5m"
    editor = Editor(replace(RECIPE, description="x" * len(text)))
    path.write_bytes(editor.set_value(0, "ImageDescription", text + b"\0").data)
    slide = zg.open_slide(path)
    assert slide.properties["aperio.Name"] == "M\u00fcller"
    with openslide.OpenSlide(path) as peer:
        assert slide.properties[QUICKHASH] == peer.properties[QUICKHASH]


def make_hash(n: int = 9, nbytes: int = 700) -> tuple[CountingStore, Quickhash]:
    """Ranges out of order, one of them empty, one far away."""
    random = np.random.default_rng(5)
    offset = random.permutation(n) * (nbytes + 10)
    offset[0] += 1 << 22
    sizes = np.full(n, nbytes)
    sizes[2] = 0
    data = random.integers(0, 256, (1 << 22) + n * (nbytes + 10), np.uint8).tobytes()
    store = CountingStore({"a": data})
    return store, Quickhash(key="a", offset=offset, nbytes=sizes, text=b"text\0")


def test_it_is_read_late_once_and_in_few_requests():
    store, quickhash = make_hash()
    properties = SlideProperties({"openslide.vendor": "x"}, quickhash, store)
    assert set(properties) == {"openslide.vendor", QUICKHASH}
    assert QUICKHASH in properties
    assert len(properties) == 2
    assert properties["openslide.vendor"] == "x"
    assert properties.get("nothing") is None
    assert "'openslide.vendor': 'x'" in repr(properties)
    assert store.ranges == []
    value = properties[QUICKHASH]
    assert len(store.ranges) == 3  # a gap, and what is far away
    assert properties[QUICKHASH] == value
    assert len(store.ranges) == 3


def test_parts_are_hashed_in_the_order_of_their_table():
    store, quickhash = make_hash()
    expected = hashlib.sha256()
    for offset, nbytes in zip(quickhash.offset, quickhash.nbytes, strict=True):
        expected.update(store.get_range("a", ByteRange(int(offset), int(nbytes))).tobytes())
    expected.update(quickhash.text)
    assert read_quickhash(quickhash, store) == expected.hexdigest()


def test_large_levels_have_none():
    sizes = np.array([3 << 20, (2 << 20) + 1])
    data = make_svs(RECIPE)
    ifd = read_ifds(lambda at, n: data[at : at + n], len(data), source="a")[0]
    assert quickhash_of("a", sizes, sizes, ifd) is None
    assert quickhash_of("a", sizes, sizes - 1, ifd) is not None
    overflowing = np.full(4, 1 << 62)
    assert quickhash_of("a", overflowing, overflowing, ifd) is None
    properties = SlideProperties({}, None, MemoryStore({}))
    assert QUICKHASH not in properties
    with pytest.raises(KeyError):
        properties[QUICKHASH]


def test_what_cannot_be_read_is_a_typed_error():
    store, quickhash = make_hash()
    with pytest.raises(StoreError, match="'b'"):
        read_quickhash(replace(quickhash, key="b"), store)
    with pytest.raises(StoreError):
        read_quickhash(replace(quickhash, offset=quickhash.offset + (1 << 23)), store)


def test_levels_in_sub_directories_are_not_hashed_as_openslide_does_not_see_them(tmp_path):
    path, image = tmp_path / "slide.tif", tissue(200, 150)
    options = {"photometric": "rgb", "tile": (64, 64), "metadata": None}
    with tifffile.TiffWriter(path) as writer:
        writer.write(image, subifds=1, **options)
        writer.write(np.ascontiguousarray(image[::2, ::2]), subfiletype=1, **options)
    slide = zg.open_slide(path)
    assert slide.level_count == 2
    with openslide.OpenSlide(path) as peer:
        assert slide.properties[QUICKHASH] == peer.properties[QUICKHASH]
