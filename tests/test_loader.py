"""Law: the loader's batches are what reading patch by patch gives, however they are read ahead.

Window size, prefetch depth, ranks, interruptions and resumption change when pixels are read and on
which thread, never which, nor their order; and leaving a loop leaves nothing behind.
"""

from __future__ import annotations

import gc
import json
import pickle
import subprocess
import sys
import threading
import time
import weakref
from dataclasses import replace

import numpy as np
import pytest

import zarrgpu as zg
from tests.synthetic_slides import SlideRecipe, make_svs
from zarrgpu import loader as loader_module
from zarrgpu.errors import (
    ChunkDecodeError,
    DeviceUnavailableError,
    ReadCancelledError,
    SelectionError,
    StoreError,
)
from zarrgpu.model import ByteRange, ReadOptions
from zarrgpu.read_ahead import read_ahead
from zarrgpu.sampling import PatchTable
from zarrgpu.stores.cancellable import CancellableStore
from zarrgpu.stores.local import LocalStore

PATCHES, SIZE = 45, (24, 16)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("loader") / "slide.svs"
    path.write_bytes(make_svs(SlideRecipe(kind="lzw", n_levels=2, associated=False)))
    return path


@pytest.fixture(scope="module")
def sampler(path):
    slide = zg.open_slide(path)
    return zg.RandomPatches([slide, slide], size=SIZE, num_patches=PATCHES, seed=4)


@pytest.fixture(autouse=True)
def nothing_runs_on():
    yield
    assert not readers(), "a prefetch thread outlived its loop"


def readers() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "zarrgpu-prefetch"]


def make(sampler, **options) -> zg.PatchLoader:
    return zg.PatchLoader(sampler, **{"batch_size": 8, "device": "cpu", **options})


def contents(batches) -> list[tuple]:
    """What batches hold, as values that compare."""
    return [
        (
            b.images.tobytes(),
            b.images.shape,
            str(b.images.dtype),
            b.indices.tolist(),
            b.slides.tolist(),
            b.locations.tolist(),
            b.valid.tolist(),
        )
        for b in batches
    ]


# ---------------------------------------------------------------------------------- what is read


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize(
    "conversion",
    [{}, {"dtype": "float16"}, {"normalize": ((1, 2, 3), (4, 5, 6))},
     {"normalize": (9, 2), "dtype": "f8"}],
)  # fmt: skip
def test_batches_equal_regions_read_one_by_one(sampler, layout, conversion):
    table = sampler.epoch_patches(0)
    batches = list(make(sampler, layout=layout, **conversion))
    assert [len(b) for b in batches] == [8, 8, 8, 8, 8, 5]
    assert np.array_equal(np.concatenate([b.indices for b in batches]), np.arange(PATCHES))
    for batch in batches:
        assert batch.valid.all()
        for image, slide, location, index in zip(
            batch.images, batch.slides, batch.locations, batch.indices, strict=True
        ):
            assert slide == table.slide[index]
            assert np.array_equal(location, table.location[index])
            expected = sampler.slides[slide].read_region(
                location, 0, SIZE, layout=layout, device="cpu", **conversion
            )
            assert image.dtype == expected.dtype
            assert np.array_equal(image, expected)


@pytest.mark.parametrize("prefetch", [0, 1, 3])
@pytest.mark.parametrize("window_batches", [1, 2, 5, 100, None])
def test_windows_and_prefetch_change_nothing(sampler, prefetch, window_batches):
    expected = contents(make(sampler, prefetch=0, window_batches=1))
    loader = make(sampler, prefetch=prefetch, window_batches=window_batches)
    assert contents(loader) == expected
    assert loader.state_dict() == {"epoch": 1, "batch": 0}
    second = contents(loader)
    assert second != expected
    reference = make(sampler, prefetch=0, window_batches=1)
    reference.set_epoch(1)
    assert contents(reference) == second


def test_a_coarser_level_and_a_grid_are_read(path):
    slide = zg.open_slide(path)
    grid = zg.GridPatches(slide, size=50, stride=40, level=1, edge="pad")
    batches = list(make(grid, batch_size=7))
    assert sum(map(len, batches)) == len(grid)
    for batch in batches:
        expected = slide.read_regions(batch.locations, 1, (50, 50), layout="NCHW")
        assert np.array_equal(batch.images, expected)


@pytest.mark.parametrize("world_size", [1, 2, 7, 45, 50])
@pytest.mark.parametrize("drop_last", [False, True])
def test_ranks_share_out_the_epoch(sampler, world_size, drop_last):
    loaders = [
        make(sampler, rank=r, world_size=world_size, drop_last=drop_last) for r in range(world_size)
    ]
    assert len({len(loader) for loader in loaders}) == 1
    parts = []
    for loader in loaders[:8]:
        batches = list(loader)
        assert len(batches) == len(loader)
        parts.append([i for b in batches for i in b.indices.tolist()])
    assert len({len(part) for part in parts}) == 1
    if drop_last:
        assert all(len(part) % 8 == 0 for part in parts)
        assert all(len(part) > -(-PATCHES // world_size) - 8 for part in parts)
    elif world_size <= 8:
        seen = np.bincount([i for part in parts for i in part], minlength=PATCHES)
        assert seen.sum() == -(-PATCHES // world_size) * world_size
        repeated = seen.sum() - PATCHES  # the epoch goes on from its start
        assert seen.tolist() == [2] * repeated + [1] * (PATCHES - repeated)


def test_drop_last_drops_the_last_batch_only(sampler):
    whole = contents(make(sampler))
    assert contents(make(sampler, drop_last=True)) == whole[:-1]
    assert contents(make(sampler, drop_last=True, batch_size=45)) == contents(
        make(sampler, batch_size=45)
    )


def test_a_fixed_epoch_is_the_same_every_time(sampler):
    validation = make(sampler, fixed_epoch=2)
    reference = make(sampler)
    reference.set_epoch(2)
    expected = contents(reference)
    assert contents(validation) == expected
    assert contents(validation) == expected
    assert validation.state_dict() == {"epoch": 2, "batch": 0}


class NoPatches:
    """A sampler whose epochs are empty."""

    def __init__(self, slide: zg.Slide) -> None:
        self.slides, self.size, self.levels = (slide,), (4, 4), (0,)

    def __len__(self) -> int:
        return 0

    def epoch_patches(self, epoch: int) -> PatchTable:
        return PatchTable(np.empty(0, np.int32), np.empty((0, 2), np.int64))


def test_an_epoch_without_batches_is_an_epoch(sampler):
    for loader in (
        make(NoPatches(sampler.slides[0])),
        make(NoPatches(sampler.slides[0]), world_size=3, rank=2),
        make(sampler, batch_size=46, drop_last=True),
    ):
        assert len(loader) == 0
        assert list(loader) == []
        assert loader.epoch == 1


# -------------------------------------------------------------------------------- state and resume


@pytest.mark.parametrize("prefetch", [0, 2])
@pytest.mark.parametrize("stop_after", [0, 1, 4, 6])
def test_a_loaded_state_gives_exactly_the_rest_and_the_next_epoch(sampler, prefetch, stop_after):
    whole = make(sampler, window_batches=2)
    first, second = contents(whole), contents(whole)
    loader = make(sampler, prefetch=prefetch, window_batches=3)
    iterator = iter(loader)
    seen = contents(next(iterator) for _ in range(stop_after))
    state = json.loads(json.dumps(loader.state_dict()))
    iterator.close()
    assert seen == first[:stop_after]
    resumed = make(sampler, prefetch=1, window_batches=4)
    resumed.load_state_dict(state)
    assert contents(resumed) == first[stop_after:]
    assert contents(resumed) == second
    # and in the loader itself
    loader.load_state_dict(state)
    assert contents(loader) == first[stop_after:]


def test_a_new_process_resumes(sampler, tmp_path):
    loader = make(sampler, rank=1, world_size=2, normalize=(3, 4))
    loader.set_epoch(5)
    rest = iter(loader)
    next(rest)
    (tmp_path / "loader").write_bytes(pickle.dumps(loader))
    (tmp_path / "state").write_text(json.dumps(loader.state_dict()))
    code = (
        "import pickle, sys, json, hashlib, pathlib\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "loader = pickle.loads((folder / 'loader').read_bytes())\n"
        "loader.load_state_dict(json.loads((folder / 'state').read_text()))\n"
        "for epoch in range(2):\n"
        "    for b in loader:\n"
        "        print(hashlib.sha256(b.images.tobytes() + b.indices.tobytes()).hexdigest())\n"
    )
    got = subprocess.run(
        [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True
    )
    import hashlib

    batches = [*rest, *loader]
    expected = [
        hashlib.sha256(b.images.tobytes() + b.indices.tobytes()).hexdigest() for b in batches
    ]
    assert len(expected) == 5
    assert got.stdout.split() == expected


def test_an_epoch_left_early_begins_anew_and_is_not_counted(sampler):
    expected = contents(make(sampler))
    loader = make(sampler)
    assert contents([next(iter(loader))]) == expected[:1]
    assert loader.state_dict() == {"epoch": 0, "batch": 1}
    assert contents([next(iter(loader))]) == expected[:1]
    for number, _ in enumerate(loader):
        if number == 3:
            break
    assert loader.state_dict() == {"epoch": 0, "batch": 4}
    assert contents(loader) == expected
    assert loader.state_dict() == {"epoch": 1, "batch": 0}


def test_iterators_are_independent_and_the_state_is_that_of_the_last(sampler):
    expected = contents(make(sampler))
    loader = make(sampler, window_batches=2)
    first, second = iter(loader), iter(loader)
    a = contents([next(first), next(first)])
    b = contents([next(second)])
    assert loader.state_dict() == {"epoch": 0, "batch": 1}
    a += contents(first)
    assert loader.state_dict() == {"epoch": 0, "batch": 1}
    b += contents(second)
    assert a == b == expected
    assert loader.state_dict() == {"epoch": 1, "batch": 0}
    assert loader.stats.patches == 2 * PATCHES


def test_states_that_do_not_fit_are_refused(sampler):
    loader = make(sampler)
    for state in ({"epoch": 0, "batch": 7}, {"epoch": -1, "batch": 0}, {"epoch": 0}, {}, 5,
                  {"epoch": 0, "batch": 1.5}, {"epoch": "a", "batch": 0}):  # fmt: skip
        with pytest.raises(SelectionError):
            loader.load_state_dict(state)
    with pytest.raises(SelectionError, match="epoch must be an integer"):
        loader.set_epoch(-1)
    assert loader.state_dict() == {"epoch": 0, "batch": 0}


def test_a_loader_pickles(sampler):
    loader = make(sampler, fixed_epoch=0, window_batches=2)
    iterator = iter(loader)
    next(iterator)
    again = pickle.loads(pickle.dumps(loader))
    assert again.state_dict() == loader.state_dict()
    assert again.device == "cpu"
    assert contents(again) == contents(make(sampler))


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 0}, {"batch_size": 2.5}, {"prefetch": -1}, {"prefetch": None},
        {"window_batches": 0}, {"rank": 1}, {"rank": -1}, {"world_size": 0},
        {"fixed_epoch": -1}, {"layout": "HWC"}, {"dtype": "int8"}, {"normalize": (1, 0)},
        {"augment": "none"}, {"augment": True}, {"dtype": "int64", "normalize": (0, 1)},
    ],
)  # fmt: skip
def test_bad_settings_are_refused(sampler, options):
    with pytest.raises(SelectionError):
        make(sampler, **options)


# --------------------------------------------------------------------------------- leaving early


class SlowStore:
    """A file store that takes its time, and counts."""

    def __init__(self, store, seconds: float) -> None:
        self._store, self._seconds, self.reads = store, seconds, 0
        self.url, self.io_concurrency = store.url, 1
        self.max_gap_bytes = self.max_coalesced_bytes = 1

    def get_range(self, key, byte_range, *args):
        self.reads += 1
        time.sleep(self._seconds)
        return self._store.get_range(key, byte_range, *args)


def slowed(sampler, seconds: float):
    """The same sampler over slides whose every tile takes `seconds`, and their store."""
    again = pickle.loads(pickle.dumps(sampler))
    store = SlowStore(again.slides[0].levels[0].source.store, seconds)
    for slide in again.slides:
        slide.levels[0].source.store = store
    return again, store


@pytest.mark.parametrize("how", ["break", "exception", "close", "drop"])
def test_leaving_the_loop_stops_reading_at_once(sampler, how):
    slow, store = slowed(sampler, 0.15)
    options = ReadOptions(num_threads=1)
    loader = make(slow, window_batches=1, batch_size=1, prefetch=1, options=options)
    loader._window_batches = 20  # the second window takes some three seconds
    iterator = iter(loader)
    next(iterator)
    reads = store.reads
    while store.reads == reads:  # now the second window is being read
        time.sleep(0.01)
    began = time.perf_counter()
    if how == "break":
        for _ in iterator:
            break
        iterator.close()
    elif how == "exception":
        with pytest.raises(KeyError):
            _raise_in_loop(iterator)
        del iterator
    elif how == "close":
        iterator.close()
    else:
        del iterator
    gc.collect()
    assert time.perf_counter() - began < 1.5
    assert not readers()
    reads = store.reads
    time.sleep(0.3)
    assert store.reads == reads


def _raise_in_loop(batches) -> None:
    for _ in batches:
        raise KeyError


def test_a_cancelled_store_reads_nothing(path):
    stop = threading.Event()
    store = CancellableStore(LocalStore(path.parent), stop.is_set)
    assert store.size(path.name) == path.stat().st_size
    assert store.get(path.name).tobytes() == path.read_bytes()
    assert store.get_range(path.name, ByteRange(2, 3)).tobytes() == path.read_bytes()[2:5]
    assert store.get_suffix(path.name, 4).tobytes() == path.read_bytes()[-4:]
    assert path.name in store.list_dir("")
    stop.set()
    for read in (
        lambda: store.get(path.name),
        lambda: store.get_range(path.name, ByteRange(0, 1)),
        lambda: store.get_suffix(path.name, 4),
        lambda: store.size(path.name),
    ):
        with pytest.raises(ReadCancelledError, match="cancelled"):
            read()


def test_read_ahead_is_bounded_ordered_and_raises_in_turn():
    made: list[int] = []

    def work(item: int, cancelled) -> int:
        if item == 6:
            raise ValueError(item)
        made.append(item)
        return item

    results = read_ahead(work, range(9), 2)
    assert next(results) == 0
    deadline = time.monotonic() + 5
    while len(made) < 3 and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(0.05)
    assert made == [0, 1, 2], "one taken, two ahead"
    got = []
    with pytest.raises(ValueError, match="6"):
        got.extend(results)
    assert list(results) == []
    assert made == list(range(6))


@pytest.mark.parametrize("depth", [0, 2])
@pytest.mark.parametrize("closed", [False, True])
def test_the_end_comes_once_nothing_is_worked_on(depth, closed):
    threads = set(threading.enumerate())
    seen: list[bool] = []
    results = read_ahead(
        lambda item, cancelled: item,
        range(4),
        depth,
        at_end=lambda: seen.append(set(threading.enumerate()) <= threads),
    )
    if closed:
        next(results)
        results.close()
    assert list(results) == ([] if closed else [0, 1, 2, 3])
    assert seen == [True]


def test_a_generator_that_is_closed_by_its_own_thread_ends_after_it():
    """As the garbage collector may do, which comes by on any thread."""
    ended: list[str] = []

    def work(item: int, cancelled) -> int:
        if item == 1:
            yielded.wait(timeout=30)
            results.close()
            ended.append("worked")
        return item

    yielded, end = threading.Event(), threading.Event()

    def at_end() -> None:
        ended.append("end")
        end.set()

    results = read_ahead(work, range(4), 1, at_end=at_end)
    next(results)
    yielded.set()
    assert end.wait(timeout=30)
    assert ended == ["worked", "end"]


def test_a_result_is_let_go_while_the_next_is_waited_for():
    class Result:
        pass

    made: list[weakref.ref] = []
    gone: list[bool] = []

    def work(item: int, cancelled) -> Result:
        if item == 1:
            time.sleep(0.1)  # the consumer waits by now
            gc.collect()
            gone.append(made[0]() is None)
        result = Result()
        made.append(weakref.ref(result))
        return result

    results = read_ahead(work, range(2), 1)
    next(results)
    next(results)
    assert gone == [True]
    results.close()


# --------------------------------------------------------------------------------------- failures


@pytest.fixture(scope="module")
def damaged(path, tmp_path_factory):
    """The slide with one tile of garbage, and the box of that tile."""
    tifffile = pytest.importorskip("tifffile")
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        at, n = page.dataoffsets[12], page.databytecounts[12]  # 5 tiles a row: row 2, column 2
    data[at : at + n] = bytes([0x5A]) * n
    broken = tmp_path_factory.mktemp("damaged") / "broken.svs"
    broken.write_bytes(data)
    return broken


def touches_tile(locations: np.ndarray) -> np.ndarray:
    x, y = np.asarray(locations).T
    return (x < 192) & (x + SIZE[0] > 128) & (y < 192) & (y + SIZE[1] > 128)


@pytest.mark.parametrize("prefetch", [0, 1, 3])
def test_a_failure_reaches_the_consumer_in_its_turn(damaged, prefetch):
    slide = zg.open_slide(damaged)
    samplers = (zg.RandomPatches(slide, size=SIZE, num_patches=40, seed=s) for s in range(100))
    for sampler in samplers:  # one whose first bad patch comes late
        first = int(np.flatnonzero(touches_tile(sampler.epoch_patches(0).location))[0]) // 2
        if first > 6:
            break
    loader = make(sampler, batch_size=2, window_batches=1, prefetch=prefetch)
    got = []
    with pytest.raises(ChunkDecodeError, match=r"level 0 tile \(row 2, column 2\).*broken\.svs"):
        got.extend(loader)
    assert len(got) == first
    assert loader.state_dict() == {"epoch": 0, "batch": first}
    assert not readers()


def test_masked_patches_are_exactly_those_that_touch_the_tile(damaged, path):
    sampler = zg.RandomPatches(zg.open_slide(damaged), size=SIZE, num_patches=200, seed=2)
    good = zg.open_slide(path)
    masked = 0
    for batch in make(sampler, on_error="mask", batch_size=32, window_batches=3):
        assert np.array_equal(batch.valid, ~touches_tile(batch.locations))
        expected = good.read_regions(batch.locations, 0, SIZE, layout="NCHW")
        assert np.array_equal(batch.images[batch.valid], expected[batch.valid])
        masked += int((~batch.valid).sum())
    assert masked > 3


def test_an_error_of_the_sampler_reaches_the_consumer(sampler):
    dot = np.zeros((300, 300), bool)
    dot[150, 150] = True
    hopeless = zg.RandomPatches(sampler.slides[0], size=100, mask=dot)
    with pytest.raises(SelectionError, match="lower min_mask_fraction"):
        next(iter(make(hopeless)))


# --------------------------------------------------------------------------------- memory and stats


@pytest.mark.parametrize("prefetch", [0, 1, 3])
def test_no_more_windows_live_than_are_allowed(sampler, prefetch, monkeypatch):
    memory: list[int] = []
    start = loader_module.start_sampled

    def note(images, valid):
        memory.append(images.__array_interface__["data"][0])
        return images, valid

    monkeypatch.setattr(
        loader_module, "start_sampled", lambda *args, **how: start(*args, **how).then(note)
    )
    loader = make(sampler, batch_size=2, window_batches=2, prefetch=prefetch)
    for batch in loader:
        time.sleep(0.005)  # lets the reader get as far ahead as it may
        assert len(batch) <= 2
    assert len(memory) == 12
    # the one consumed, those ahead, and for a moment the last one of the consumer's variable
    assert len(set(memory)) <= max(prefetch, 1) + 2
    held = weakref.ref(batch.images.base)
    del batch, loader
    gc.collect()
    assert held() is None


def test_batches_that_are_kept_keep_their_pixels(sampler):
    loader = make(sampler, batch_size=3, window_batches=1, prefetch=2)
    kept = [(batch.images, batch.images.copy()) for batch in loader]
    for images, copy in kept:
        np.testing.assert_array_equal(images, copy)


@pytest.mark.parametrize(("prefetch", "held"), [(0, 2), (1, 2), (3, 4)])
def test_windows_fit_the_budget(sampler, prefetch, held):
    batch = 8 * 24 * 16 * 3 * 4
    for budget in (1, batch, 4 * batch, 9 * batch + 5, 100 * batch):
        loader = make(
            sampler,
            prefetch=prefetch,
            dtype="float32",
            options=ReadOptions(memory_budget_bytes=budget),
        )
        assert loader.window_batches == max(1, budget // held // batch)


def test_a_finished_window_does_not_wait_for_the_next(sampler, monkeypatch):
    """A window is read into the memory of the last one, if the consumer let go of that."""
    memory: list[int] = []
    start = loader_module.start_sampled

    def note(images, valid):
        memory.append(images.__array_interface__["data"][0])
        return images, valid

    monkeypatch.setattr(
        loader_module, "start_sampled", lambda *args, **how: start(*args, **how).then(note)
    )
    iterator = iter(make(sampler, batch_size=15, window_batches=1, prefetch=0))
    for _ in range(3):
        next(iterator)  # not kept
    assert len(set(memory)) == 1


def test_stats_add_up_and_a_window_decodes_each_chunk_once(sampler):
    size = 64 * 64 * 3
    by_window = {}
    for window_batches in (1, 2, 6):
        loader = make(sampler, window_batches=window_batches)
        delivered = sum(batch.images.nbytes for batch in loader)
        stats = loader.stats
        assert stats.patches == PATCHES
        assert stats.delivered_bytes == delivered == PATCHES * 24 * 16 * 3
        assert stats.decoded_bytes == stats.chunks_decoded * size
        assert stats.fetched_bytes > 0
        assert stats.seconds > 0
        by_window[window_batches] = stats.chunks_decoded
    assert by_window[1] > by_window[2] > by_window[6]
    table = sampler.epoch_patches(0)
    tiles = {
        (int(s), (y + dy) // 64, (x + dx) // 64)
        for s, (x, y) in zip(table.slide, table.location.tolist(), strict=True)
        for dx in (0, 23)
        for dy in (0, 15)
    }
    assert by_window[6] == len(tiles)


# ----------------------------------------------------------------------------------------- devices


def test_dlpack_shares_memory(sampler):
    torch = pytest.importorskip("torch")
    batch = next(iter(make(sampler, dtype="float32")))
    for tensor in (torch.from_dlpack(batch.images), torch.from_dlpack(batch)):
        assert tensor.shape == (8, 3, 16, 24)
        assert tensor.data_ptr() == batch.images.ctypes.data
    tensor += 1
    assert np.array_equal(tensor.numpy(), batch.images)
    assert batch.__dlpack_device__() == (1, 0)
    assert np.shares_memory(np.from_dlpack(batch), batch.images)


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("kind", ["j2k-rgb", "none"])
def test_the_emulated_device_gives_the_hosts_batches(tmp_path, lazy, kind):
    from tests.emulator import EmulatedDriver
    from zarrgpu.devices.cuda import CudaDevice

    path = tmp_path / "slide.svs"
    path.write_bytes(make_svs(replace(SlideRecipe(n_levels=1, associated=False), kind=kind)))
    sampler = zg.RandomPatches(zg.open_slide(path), size=SIZE, num_patches=20, seed=6)
    driver = EmulatedDriver(lazy=lazy)
    for options in ({}, {"normalize": ((1, 2, 3), (4, 5, 6)), "dtype": "float16"}):
        expected = contents(make(sampler, **options))
        loader = make(sampler, device=CudaDevice(driver), prefetch=2, window_batches=1, **options)
        assert loader.device == "emulated:0"
        for batch, wanted in zip(loader, expected, strict=True):
            driver.synchronize()
            assert contents([replace(batch, images=np.asarray(batch.images))]) == [wanted]
    assert any("gather" in launch for launch in driver.launches)
    with pytest.raises(DeviceUnavailableError, match="emulated:0"):
        pickle.loads(pickle.dumps(loader))


def test_the_emulated_device_masks_and_stops(damaged):
    from tests.emulator import EmulatedDriver
    from zarrgpu.devices.cuda import CudaDevice

    sampler = zg.RandomPatches(zg.open_slide(damaged), size=SIZE, num_patches=60, seed=2)
    driver = EmulatedDriver()
    device = CudaDevice(driver)
    host = list(make(sampler, on_error="mask", batch_size=20))
    for batch, wanted in zip(
        make(sampler, on_error="mask", batch_size=20, device=device), host, strict=True
    ):
        assert np.array_equal(batch.valid, wanted.valid)
        assert np.array_equal(np.asarray(batch.images), wanted.images)
    loader = make(sampler, batch_size=2, window_batches=1, device=device)
    with pytest.raises(ChunkDecodeError, match="level 0 tile"):
        list(loader)


@pytest.mark.parametrize("kind", ["j2k-rgb", "none"])  # decoded on the host, and on the device
def test_a_tile_beyond_the_end_fails_alone_on_every_device(tmp_path, kind):
    from tests.emulator import EmulatedDriver
    from zarrgpu.devices.cuda import CudaDevice

    recipe = replace(SlideRecipe(kind=kind, n_levels=1, associated=False), missing={0: (29,)})
    good = zg.open_slide(_written(tmp_path / "good.svs", make_svs(recipe)))
    broken = zg.open_slide(tmp_path / "good.svs")
    location = broken.levels[0].source.spec.location
    last = int(np.argmax(location.offsets))
    # the slide is cut within its last tile, after it was opened
    _written(
        tmp_path / "cut.svs", (tmp_path / "good.svs").read_bytes()[: location.offsets[last] + 9]
    )
    broken.levels[0].source.store = _Renamed(tmp_path, "cut.svs")
    sampler = zg.GridPatches(broken, size=32, edge="pad")
    row, column = divmod(last, 5)
    for device in ("cpu", CudaDevice(EmulatedDriver())):
        masked = 0
        for batch in make(sampler, on_error="mask", batch_size=20, device=device):
            x, y = batch.locations.T
            inside = (x // 64 == column) & (y // 64 == row)
            assert np.array_equal(batch.valid, ~inside)
            masked += int(inside.sum())
            expected = good.read_regions(batch.locations, 0, (32, 32), layout="NCHW")
            images = np.asarray(batch.images)
            assert np.array_equal(images[batch.valid], expected[batch.valid])
            assert not images[~batch.valid].any()
        assert masked == 2
        text = rf"level 0 tile \(row {row}, column {column}\).*beyond"
        with pytest.raises(StoreError, match=text):
            list(make(sampler, device=device))


def _written(path, data: bytes):
    path.write_bytes(data)
    return path


class _Renamed(LocalStore):
    """A folder in which every key means one file."""

    def __init__(self, root, name: str) -> None:
        super().__init__(root)
        self._name = name

    def _path(self, key: str) -> str:
        return super()._path(self._name)
