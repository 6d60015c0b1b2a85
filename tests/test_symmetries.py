"""Law: flipping, turning, casting and normalising on the way is what NumPy does afterwards.

On every path: NumPy's, the compiled executor and the (emulated) CUDA device. What a loader draws
depends on seed, epoch and patch alone.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import zarrgpu as zg
from tests.synthetic_slides import SlideRecipe, make_svs
from tests.zarr_cases import MemoryStore, Recipe, encode, values
from zarrgpu import reader
from zarrgpu.devices.native import native_library
from zarrgpu.errors import SelectionError
from zarrgpu.magnification import read_scaled_patches
from zarrgpu.native_engine import runs_compiled
from zarrgpu.output import OutputFormat, output_format
from zarrgpu.plan.request import ReadRequest
from zarrgpu.symmetries import AUGMENTATIONS, Turns, draw_symmetries, turned_view

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
STORED = ["?", "i1", "u1", "i2", ">u2", ">i4", "u4", "i8", "f2", ">f4", "f8"]
TARGETS = ["stored", "f2", "bfloat16", "f4", "f8", "i2", "u4", "i8"]
ON_DEVICE = ["stored", "bfloat16", "f4", "i8"]
SCALE = ((3.5, 100.0, -2.0), (0.7, 50.0, 3.0))
SIDE, N = 9, 8


def turned(patch: np.ndarray, symmetry: int) -> np.ndarray:
    """What the documentation says; rows and columns are the first two axes."""
    return np.rot90(patch if symmetry < 4 else np.fliplr(patch), symmetry % 4)


# -------------------------------------------------------------------------- values, types, paths


def make_array(stored: str, seed: int = 1) -> tuple[zg.Array, np.ndarray]:
    """Array (30, 31, 3) with missing chunks, and its pixels padded by what lies around it."""
    native = np.dtype(stored).newbyteorder("=")
    data = values((30, 31, 3), "bool" if native.kind == "b" else native.str[1:], seed)
    fill = data.reshape(-1)[5]
    missing = frozenset([(1, 0, 0), (0, 2, 1)])
    recipe = Recipe(
        chunks=(8, 12, 2), big_endian=stored.startswith(">"), missing=missing, fill_value=fill
    )
    array = zg.open(MemoryStore(encode(data, recipe)))
    whole = array.read(device="cpu", options=zg.ReadOptions(native=False))
    return array, np.pad(whole, ((9, 9), (9, 9), (0, 0)), constant_values=fill)


def expected(padded, start, symmetry, output, layout):
    """Patches cut, converted and turned by NumPy, one by one."""
    made = []
    for (y, x, _), s in zip(start, symmetry, strict=True):
        patch = padded[y + 9 : y + 9 + SIDE, x + 9 : x + 9 + SIDE]
        with np.errstate(all="ignore"):
            if output.scale is not None:
                patch = patch.astype("f4") * output.scale + output.offset
            patch = turned(patch.astype(output.dtype), s)
        made.append(patch.transpose(layout))
    return np.stack(made)


def formats(dtype: np.dtype, targets: list[str]):
    """Every output format of a stored type that is supported, or is refused by name."""
    for target, normalised in itertools.product(targets, (False, True)):
        wanted = None if target == "stored" else target
        try:
            yield output_format(
                dtype, dtype=wanted, normalize=SCALE if normalised else None, channel_axis=2,
                channels=3,
            )  # fmt: skip
        except SelectionError:
            into = BFLOAT16 if target == "bfloat16" else np.dtype(wanted or dtype)
            assert into.kind in "biu"
            assert normalised or not np.can_cast(dtype, into)


def is_compiled(stored: str, output: OutputFormat) -> bool:
    """What the compiled executor converts, beside what is taken as it is."""
    plain = output.is_plain(np.dtype(stored))
    return plain or (stored not in ("?", "i8", "f2", "f8") and output.dtype != "f8")


def check(stored, device, layout, options=None):
    array, padded = make_array(stored)
    on_host = device == "cpu"
    start = np.array([(0, 0), (-3, 4), (25, 20), (11, 9), (8, 12), (3, -2), (16, 26), (7, 1)])
    start = np.pad(start, ((0, 0), (0, 1)))
    symmetry = np.arange(N, dtype=np.uint8)
    request = ReadRequest(
        arrays=(array.spec,), array_index=np.zeros(N, np.int32), start=start,
        count=(SIDE, SIDE, 3), step=(1, 1, 1),
    )  # fmt: skip
    tried = 0
    for output in formats(array.dtype, TARGETS if on_host else ON_DEVICE):
        # unturned ones are test_kernels' and test_cuda_engine's on a device
        for turns in (None, Turns(symmetry, 0, 1))[0 if on_host else 1 :]:
            how = replace(output, turns=turns)
            got, ok = reader.read(
                (array.source,), request, output=how, layout=layout, device=device,
                options=options or zg.ReadOptions(),
            )  # fmt: skip
            wished = expected(padded, start, symmetry if turns else 0 * symmetry, output, layout)
            assert ok.all()
            assert got.dtype == output.dtype
            got = np.asarray(got)
            assert got.tobytes() == wished.tobytes(), (stored, str(output.dtype), turns)
            if options is not None and options.native and native_library() is not None:
                assert runs_compiled(array.source, how) == is_compiled(stored, output), output
            tried += 1
    assert tried >= (10 if on_host else 4)


@pytest.mark.parametrize("layout", [(0, 1, 2), (2, 0, 1)], ids=["NHWC", "NCHW"])
@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("native", [True, False], ids=["compiled", "numpy"])
def test_the_host_delivers_what_numpy_makes_of_it(stored, native, layout):
    check(stored, "cpu", layout, zg.ReadOptions(native=native, num_threads=1))


@pytest.mark.parametrize("stored", STORED)
def test_a_device_delivers_what_numpy_makes_of_it(stored, cuda):
    check(stored, cuda, ((0, 1, 2), (2, 0, 1))[STORED.index(stored) % 2])


def test_a_bool_is_true_whatever_its_byte_is(cuda):
    """NumPy and the kernel agree; ml_dtypes alone would take 2 for 2."""
    data = np.array([0, 1, 2, 255, 0, 7], np.uint8)
    store = MemoryStore(encode(data.view("?"), Recipe(chunks=(6,))))
    array = zg.open(store)
    want = (data != 0).astype("f4")
    for device in ("cpu", cuda):
        for native in (True, False):
            got = array.read(device=device, dtype="bfloat16", options=zg.ReadOptions(native=native))
            assert np.array_equal(np.asarray(got).astype("f4"), want)


def test_bfloat16_by_name_or_type():
    array, _ = make_array("u1")
    named = array.read(device="cpu", dtype="bfloat16")
    typed = array.read_patches([(0, 0, 0)], array.shape, device="cpu", dtype=BFLOAT16)
    assert named.dtype == BFLOAT16
    assert named.tobytes() == typed.tobytes()


# ------------------------------------------------------------------------------------ symmetries


@given(
    st.integers(0, 7), st.integers(1, 7), st.integers(1, 7), st.integers(1, 3),
    st.permutations([0, 1, 2]), st.sampled_from([1, -1]),
)  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_views_and_strides_take_a_patch_as_it_is(symmetry, height, width, channels, order, sign):
    if symmetry % 2:
        width = height
    patch = np.arange(height * width * channels).reshape(height, width, channels)
    want = turned(patch, symmetry)
    memory = np.zeros([want.shape[a] for a in order], np.int64)[::sign]
    out = memory.transpose(np.argsort(order))
    turned_view(out, symmetry)[...] = patch
    assert np.array_equal(out, want)
    turns = Turns(np.zeros(1, np.uint8), 0, 1)
    strides = tuple(s // 8 for s in out.strides)
    offset, along = turns.strides(symmetry, strides, patch.shape)
    places = offset + sum(
        index * stride for index, stride in zip(np.indices(patch.shape), along, strict=True)
    )
    wished = sum(index * s for index, s in zip(np.indices(want.shape), strides, strict=True))
    assert dict(zip(places.ravel().tolist(), patch.ravel().tolist(), strict=True)) == dict(
        zip(wished.ravel().tolist(), want.ravel().tolist(), strict=True)
    )


# ---------------------------------------------------------------------------------------- slides


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    path = tmp_path_factory.mktemp("symmetries") / "slide.svs"
    path.write_bytes(make_svs(SlideRecipe(kind="none", n_levels=2, associated=False)))
    return zg.open_slide(path)


@pytest.mark.parametrize(
    ("layout", "dtype", "step"),
    [("NCHW", None, 1.7), ("NHWC", "bfloat16", 1.7), ("NCHW", "float16", 1.0)],
)
def test_patches_at_a_pixel_size_are_turned_too(slide, layout, dtype, step, cuda):
    corners = np.random.default_rng(0).integers(-10, 150, (8, 2))
    symmetries = np.arange(8)
    results = []
    for device, native in (("cpu", True), ("cpu", False), (cuda, True)):
        how = {
            "layout": layout, "dtype": dtype, "device": device,
            "options": zg.ReadOptions(native=native),
        }  # fmt: skip
        args = ((slide,), np.zeros(8, np.int32), corners, [(step, step)], (7, 7))
        plain, _ = read_scaled_patches(*args, **how)
        got, _ = read_scaled_patches(*args, symmetries=symmetries, **how)
        plain, got = np.asarray(plain), np.asarray(got)
        for i, s in enumerate(symmetries):
            image = plain[i] if layout == "NHWC" else np.moveaxis(plain[i], 0, 2)
            want = turned(image, s)
            want = want if layout == "NHWC" else np.moveaxis(want, 2, 0)
            assert got[i].tobytes() == want.tobytes()
        results.append(got.tobytes())
    assert len(set(results)) == 1


def test_wide_patches_are_flipped_and_half_turned(slide, cuda):
    where = (np.zeros(4, np.int32), [(0, 0), (30, 17), (100, 90), (-5, 3)], (21, 12))
    for device in ("cpu", cuda):
        plain = zg.read_regions([slide], *where, device=device)
        got = zg.read_regions([slide], *where, device=device, symmetries=[0, 2, 4, 6])
        for before, after, s in zip(plain, got, (0, 2, 4, 6), strict=True):
            assert np.array_equal(turned(np.asarray(before), s), np.asarray(after))
        with pytest.raises(SelectionError, match="cannot be turned by 90 degrees"):
            zg.read_regions([slide], *where, device=device, symmetries=[0, 2, 4, 7])
    for bad in ([0, 1], [0, 0, 0, 8], [0, 0, 0, -1], [0.0, 1.0, 0.5, 0.0]):
        with pytest.raises(SelectionError, match=r"0\.\.7"):
            zg.read_regions([slide], *where, symmetries=bad)


def test_labels_at_a_pixel_size_are_not_interpolated(slide):
    with pytest.raises(SelectionError, match="labels are not interpolated"):
        read_scaled_patches((slide,), [0], [(0, 0)], [(1.7, 1.7)], (9, 9), dtype="int64")


# ---------------------------------------------------------------------------------------- loader


def loader(slide, augment, **options):
    sampler = zg.RandomPatches(slide, size=16, num_patches=37, seed=options.pop("seed", 5))
    how = {"batch_size": 8, "device": "cpu", "layout": "NHWC", "augment": augment, **options}
    return zg.PatchLoader(sampler, **how)


def patches_of(batches):
    """Image and symmetry of each patch, by its number."""
    return {
        int(index): (np.asarray(image).tobytes(), int(symmetry))
        for batch in batches
        for index, image, symmetry in zip(
            batch.indices, batch.images, batch.symmetries, strict=True
        )
    }


@pytest.mark.parametrize("augment", AUGMENTATIONS)
def test_a_loader_turns_what_it_would_read(slide, augment, cuda):
    plain = {
        int(i): x for b in loader(slide, None) for i, x in zip(b.indices, b.images, strict=True)
    }
    for device in ("cpu", cuda) if augment == "rotations" else ("cpu",):
        found = patches_of(loader(slide, augment, device=device))
        assert {s for _, s in found.values()} <= set(AUGMENTATIONS[augment])
        for index, (image, symmetry) in found.items():
            assert image == turned(plain[index], symmetry).tobytes()
    assert all((b.symmetries == 0).all() for b in loader(slide, None))


def test_what_is_drawn_depends_on_seed_epoch_and_patch_alone(slide):
    made = loader(slide, "flips+rotations")
    first, second = patches_of(made), patches_of(made)
    assert first != second
    again = loader(slide, "flips+rotations", prefetch=0, window_batches=1, batch_size=5)
    assert patches_of(again) == first
    again.set_epoch(1)
    assert patches_of(again) == second
    ranks = {}
    for rank in range(3):
        ranks.update(patches_of(loader(slide, "flips+rotations", rank=rank, world_size=3)))
    assert ranks == first
    iterator = iter(made)
    made.set_epoch(0)
    iterator = iter(made)
    head = [next(iterator) for _ in range(2)]
    state = made.state_dict()
    iterator.close()
    resumed = loader(slide, "flips+rotations")
    resumed.load_state_dict(state)
    assert patches_of([*head, *resumed]) == first
    fixed = loader(slide, "flips+rotations", fixed_epoch=1)
    assert patches_of(fixed) == second
    assert patches_of(fixed) == second
    other = loader(slide, "flips+rotations", seed=6)
    assert [s for _, s in patches_of(other).values()] != [s for _, s in first.values()]


def test_a_sampler_without_a_seed_has_that_of_zero(slide):
    class Unseeded:
        def __init__(self, sampler):
            self.slides, self.levels, self.size = sampler.slides, sampler.levels, sampler.size
            self.seed, self.sampler = None, sampler

        def __len__(self):
            return len(self.sampler)

        def epoch_patches(self, epoch):
            return self.sampler.epoch_patches(epoch)

    sampler = zg.RandomPatches(slide, size=16, num_patches=20, seed=0)
    made, seeded = (
        zg.PatchLoader(s, device="cpu", augment="flips") for s in (Unseeded(sampler), sampler)
    )
    assert np.array_equal(made.symmetries(3), seeded.symmetries(3))
    assert made.symmetries(3).any()


def test_all_symmetries_are_equally_likely():
    for augment, allowed in AUGMENTATIONS.items():
        drawn = draw_symmetries(augment, 1, 2, 8000)
        counts = np.bincount(drawn, minlength=8)
        assert set(np.flatnonzero(counts).tolist()) == set(allowed)
        share = counts[list(allowed)] * len(allowed) / 8000
        assert np.abs(share - 1).max() < 0.15
    longer = draw_symmetries("flips", 1, 2, 9000)
    assert np.array_equal(longer[:8000], draw_symmetries("flips", 1, 2, 8000))


def test_a_grid_is_augmented_and_wide_patches_are_not_turned(slide):
    grid = zg.GridPatches(slide, size=(20, 16))
    made = zg.PatchLoader(grid, device="cpu", augment="flips")
    drawn = [patches_of(made), patches_of(made)]
    assert drawn[0] != drawn[1]
    assert {s for _, s in drawn[0].values()} == {0, 2, 4, 6}
    for augment in ("rotations", "flips+rotations"):
        with pytest.raises(SelectionError, match="needs square ones, got 20 x 16 px"):
            zg.PatchLoader(grid, device="cpu", augment=augment)
    with pytest.raises(SelectionError, match="one of hflip, vflip"):
        zg.PatchLoader(grid, device="cpu", augment="mirror")


def test_labels_of_augmented_patches(slide):
    """The same symmetries for another slide at the same places; as int64, as losses want them."""
    for batch in loader(slide, "flips+rotations"):
        where = (batch.slides, batch.locations, (16, 16))
        labels = zg.read_regions([slide], *where, dtype="int64", symmetries=batch.symmetries)
        assert labels.dtype == np.int64
        assert np.array_equal(labels, batch.images)
